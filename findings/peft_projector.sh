#!/usr/bin/env bash
# peft 0.21.2 over transformers 5.24.0 leaves out what an adapter written by peft 0.14.0 over transformers 4.49.0
# has for PaliGemma's projector, and answers with the rest: no error, one UserWarning about missing keys.
#
# The names of modules changed in transformers 4.52. The new releases translate those of the decoder and of the
# image tower ("language_model.model.layers…" to "model.language_model.layers…"), and so the adapter seems to
# load; "multi_modal_projector.linear" is not translated. "all-linear", for one, adapts it.
# Expected: all of the adapter, or an error. Seen: logits of a random model are off by more than 0.1, where
# those of an adapter of the decoder alone agree to 1e-4.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/common.py" <<'PY'
import peft
import torch
import transformers

ids = torch.tensor([[127] * 4 + [2, 5, 6, 7, 8]])  # four image tokens, BOS, a prompt
picture = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def logits(model):
  model.eval()
  with torch.no_grad():
    return model(
      input_ids=ids, pixel_values=picture, attention_mask=ids * 0 + 1, token_type_ids=ids * 0
    ).logits


print("transformers", transformers.__version__, "peft", peft.__version__)
PY
cat >"$tmp/write.py" <<'PY'
from common import *

text = dict(model_type="gemma", vocab_size=128, hidden_size=32, intermediate_size=64, head_dim=16)
text |= dict(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
vision = dict(model_type="siglip_vision_model", hidden_size=32, intermediate_size=64, patch_size=14)
vision |= dict(num_hidden_layers=2, num_attention_heads=2, image_size=28, vision_use_head=False)
config = transformers.PaliGemmaConfig(
  text_config=text, vision_config=vision, image_token_index=127, projection_dim=32
)
torch.manual_seed(0)
base = transformers.PaliGemmaForConditionalGeneration(config)
with torch.no_grad():
  for p in base.parameters():
    p.normal_(0, 0.3)
base.save_pretrained("base")
found = {"base": logits(base)}
for name, modules in (("decoder", ["down_proj"]), ("projector", ["down_proj", "linear"])):
  base = transformers.PaliGemmaForConditionalGeneration.from_pretrained("base")
  model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=modules))
  with torch.no_grad():
    for n, p in model.named_parameters():
      if "lora_B" in n:
        p.normal_(0, 0.3)
  model.save_pretrained(name)
  found[name] = logits(model)
torch.save(found, "logits.pt")
PY
cat >"$tmp/read.py" <<'PY'
from common import *

wanted = torch.load("logits.pt")
for name in ("base", "decoder", "projector"):
  model = transformers.PaliGemmaForConditionalGeneration.from_pretrained("base")
  if name != "base":
    model = peft.PeftModel.from_pretrained(model, name)
  apart = (logits(model) - wanted[name]).abs().max().item()
  zero = [n for n, p in model.named_parameters() if "lora_B" in n and not p.any()]
  print(f"{name}: {apart:.1e} from the logits of the release that wrote it; still zero: {zero}")
  broken = name == "projector"
  assert (apart > 0.1 and len(zero) == 1) if broken else (apart < 1e-4 and not zero), "has changed"
PY
python3 -m venv "$tmp/venv"
step() {
  "$tmp/venv/bin/pip" install -q torch==2.13.0 "transformers==$1" "peft==$2" 2>/dev/null
  (cd "$tmp" && venv/bin/python "$3" 2>log || { cat log; exit 1; })
}
step 4.49.0 0.14.0 write.py
step 5.24.0 0.21.2 read.py
