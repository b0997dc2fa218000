#!/usr/bin/env bash
# transformers 5.24.0: what PaliGemma computes for a prompt without `token_type_ids` depends on the attention
# implementation. "eager" is causal, also among image and prefix; "sdpa", the default, lets all of them see each
# other (there is no padding, so no mask is made, and is_causal is off).
#
# A processor gives token_type_ids, so `model(**processor(...))` is full in both. Who builds the inputs by
# hand, exports the model or switches to eager for attention maps gets other logits without a word: here,
# for a random model, by more than 1, where rounding differs by 1e-4 at most.
# PaliGemma attends to image and prefix in full (arXiv:2407.07726, section 3.2.2).
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q torch==2.13.0 2>/dev/null
"$tmp/venv/bin/pip" install -q transformers==5.24.0 2>/dev/null
cd "$tmp"
venv/bin/python - 2>/dev/null <<'PY'
import torch
import transformers

text = dict(model_type="gemma", vocab_size=128, hidden_size=32, intermediate_size=64, head_dim=16)
text |= dict(num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
vision = dict(model_type="siglip_vision_model", hidden_size=32, intermediate_size=64, patch_size=14)
vision |= dict(num_hidden_layers=2, num_attention_heads=2, image_size=28, vision_use_head=False)
config = transformers.PaliGemmaConfig(
  text_config=text, vision_config=vision, image_token_index=127, projection_dim=32
)
torch.manual_seed(0)
model = transformers.PaliGemmaForConditionalGeneration(config).eval()
with torch.no_grad():
  for p in model.parameters():
    p.normal_(0, 0.3)
ids = torch.tensor([[127] * 4 + [2, 5, 6, 7, 8]])  # four image tokens, BOS, a prompt
inputs = dict(input_ids=ids, pixel_values=torch.randn(1, 3, 28, 28), attention_mask=ids * 0 + 1)


def logits(attention, **more):
  model.set_attn_implementation(attention)
  with torch.no_grad():
    return model(**inputs, **more).logits


print("transformers", transformers.__version__, "torch", torch.__version__)
full = logits("sdpa", token_type_ids=ids * 0)
for attention in ("sdpa", "eager"):
  for name, more in (("with", dict(token_type_ids=ids * 0)), ("without", {})):
    apart = (logits(attention, **more) - full).abs().max().item()
    print(f"{attention} {name} token_type_ids: {apart:.1e} from the full mask")
    assert (apart > 1) == (attention == "eager" and name == "without") and not 1e-4 < apart < 1
PY
