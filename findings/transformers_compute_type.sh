#!/usr/bin/env bash
# transformers 5.24.0 takes any keyword for BitsAndBytesConfig and drops those it does not know without a warning
# (a line at level INFO, which is off). The fine-tuning recipe that came with PaliGemma writes
# bnb_4bit_compute_type=torch.bfloat16; the key is bnb_4bit_compute_dtype. So the 4-bit layers compute in float32,
# the default, and nobody is told.
#
# Expected: a TypeError or a warning, as for any unknown keyword of a Python function.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q torch==2.13.0 2>/dev/null
"$tmp/venv/bin/pip" install -q transformers==5.24.0 bitsandbytes==0.50.2 accelerate==1.15.0 2>/dev/null
cd "$tmp"
cat >look.py <<'PY'
import torch
import transformers

text = dict(model_type="gemma", vocab_size=128, hidden_size=64, intermediate_size=64, head_dim=32)
text |= dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
vision = dict(model_type="siglip_vision_model", hidden_size=64, intermediate_size=64, patch_size=14)
vision |= dict(num_hidden_layers=1, num_attention_heads=2, image_size=28, vision_use_head=False)
config = transformers.PaliGemmaConfig(
  text_config=text, vision_config=vision, image_token_index=127, projection_dim=64
)
kind = transformers.PaliGemmaForConditionalGeneration
kind(config).save_pretrained("model")


def computes_in(**keys):
  quantised = transformers.BitsAndBytesConfig(load_in_4bit=True, **keys)
  model = kind.from_pretrained("model", quantization_config=quantised)
  found = {m.compute_dtype for m in model.modules() if type(m).__name__ == "Linear4bit"}
  print(f"transformers {transformers.__version__}, {keys}: computes in {found}")
  return found


assert computes_in(bnb_4bit_compute_dtype=torch.bfloat16) == {torch.bfloat16}
assert computes_in(bnb_4bit_compute_type=torch.bfloat16) == {torch.float32}, "has changed"
assert computes_in(no_such_key=1) == {torch.float32}, "has changed"
PY
venv/bin/python look.py 2>log || { cat log; exit 1; }
echo "lines about the unknown keys: $(grep -c -e compute_type -e no_such_key log || true)"
! grep -q -e compute_type -e no_such_key log
