#!/usr/bin/env bash
# transformers 5.24.0 quantises the image tower of a PaliGemma although `llm_int8_skip_modules` names it: the
# entry "vision_tower", with which 4.57.6 leaves it alone, matches nothing, and nothing is said.
#
# 5.x matches an entry at the start or at the end of a module's path, "model.vision_tower.encoder.layers.0…",
# 4.x anywhere in it. So "model.vision_tower" works in both. The same goes for "multi_modal_projector".
# Who skips the tower for its quality, or trains it beside 4-bit weights, gets 4-bit weights there after an update.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/count.py" <<'PY'
import sys

import torch
import transformers

text = dict(model_type="gemma", vocab_size=128, hidden_size=64, intermediate_size=64, head_dim=32)
text |= dict(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
vision = dict(model_type="siglip_vision_model", hidden_size=64, intermediate_size=64, patch_size=14)
vision |= dict(num_hidden_layers=2, num_attention_heads=2, image_size=28, vision_use_head=False)
config = transformers.PaliGemmaConfig(
  text_config=text, vision_config=vision, image_token_index=127, projection_dim=64
)
torch.manual_seed(0)
kind = transformers.PaliGemmaForConditionalGeneration
kind(config).save_pretrained("model")


def narrow(entry):
  """(4-bit modules of the image tower, 4-bit modules of the projector) when `entry` is skipped."""
  skipped = transformers.BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["lm_head", entry])
  model = kind.from_pretrained("model", quantization_config=skipped)
  names = [name for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"]
  return tuple(sum(part in name for name in names) for part in ("vision_tower", "projector"))


for entry, wanted in zip(("vision_tower", "model.vision_tower", "multi_modal_projector"), sys.argv[1:]):
  found = narrow(entry)
  print(f"transformers {transformers.__version__}, skipping {entry}: 4-bit in tower, projector: {found}")
  assert found == tuple(map(int, wanted.split(","))), "the behaviour has changed"
PY
count() {
  python3 -m venv "$tmp/$1"
  "$tmp/$1/bin/pip" install -q torch==2.13.0 2>/dev/null
  "$tmp/$1/bin/pip" install -q "transformers==$1" bitsandbytes==0.50.2 accelerate==1.14.0 2>/dev/null
  (cd "$tmp" && "$tmp/$1/bin/python" count.py "${@:2}" 2>log || { cat log; exit 1; })
}
count 4.57.6 0,1 0,1 12,0
count 5.24.0 12,1 0,1 12,1
