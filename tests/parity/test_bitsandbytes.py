"""Live against transformers with bitsandbytes: folders that we quantise, opened there on a CPU.

Weights are widened from what bitsandbytes holds in memory by the arithmetic of its CUDA code, since its
code for CPUs with AVX-512 restarts blocks in every row. Logits are compared in training mode, in which it
widens weights and multiplies in float32, of models whose widths are multiples of 64: there all of its
code is right. In evaluation mode it rounds to bfloat16 on some CPUs, and int8 quantises activations too.
"""

import jax
import numpy as np
import pytest

from paligemma_jax.checkpoint import bnb_save, formats, names
from paligemma_jax.models import paligemma, tree
from tests.checkpoint import toys
from tests.parity import test_generate as live

pytestmark = pytest.mark.parity
bitsandbytes = pytest.importorskip("bitsandbytes")
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

WIDE = dict(hidden_size=64, intermediate_size=128)


def opened(folder):
  model, info = transformers.PaliGemmaForConditionalGeneration.from_pretrained(
    folder, output_loading_info=True, attn_implementation="eager"
  )
  wrong = {k: list(v) for k, v in info.items() if v}
  assert not wrong, wrong
  return model


def widened(module):
  """float32[out, in] of a module in memory."""
  weight = module.weight
  if isinstance(module, bitsandbytes.nn.Linear8bitLt):
    return (weight.CB * weight.SCB[:, None] * np.float32(1 / 127)).numpy()
  state, absmax = weight.quant_state, weight.quant_state.absmax
  if state.nested:
    blocks = torch.arange(len(absmax)) // state.state2.blocksize
    absmax = state.state2.code[absmax.int()] * state.state2.absmax[blocks] + state.offset
  codes = torch.stack([weight.data >> 4, weight.data & 15], -1).reshape(-1)[: state.shape.numel()]
  blocks = torch.arange(len(codes)) // state.blocksize
  return (state.code[codes.int()] * absmax[blocks]).reshape(state.shape).numpy()


@pytest.mark.parametrize("form", bnb_save.FORMS)
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_bitsandbytes_holds_the_weights_that_we_read(family, form, tmp_path):
  toys.write(tmp_path / "x.npz", family)
  formats.convert(tmp_path / "x.npz", tmp_path / "y", quant=form)
  source, modules = formats.open(tmp_path / "y"), dict(opened(tmp_path / "y").named_modules())
  quantised = {
    name
    for name, module in modules.items()
    if isinstance(module, bitsandbytes.nn.Linear4bit | bitsandbytes.nn.Linear8bitLt)
  }
  for slot in names.slots(source.shapes, source.config.llm.post_norms):
    module = "model." + slot.theirs.removesuffix(".weight")
    if slot.ours in tree.matrices(source.config):
      ours = names.to_theirs(slot, source.arrays[slot.ours][slot.index])
      np.testing.assert_array_equal(widened(modules[module]), ours, err_msg=module)
      quantised.remove(module)
  assert not quantised


@pytest.mark.parametrize("form", bnb_save.FORMS)
@pytest.mark.parametrize("family", live.FAMILIES)
def test_logits(family, form, tmp_path):
  config = transformers.PaliGemmaConfig(
    vision_config=live.VISION | WIDE | {"projection_dim": 64},
    text_config=live.FAMILIES[family] | WIDE, image_token_index=live.IMAGE,
    projection_dim=64, hidden_size=64, bos_token_id=2, eos_token_id=1, pad_token_id=0,
  )  # fmt: skip
  plain = transformers.PaliGemmaForConditionalGeneration(config)
  noise = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for p in plain.parameters():
      p.normal_(0, 0.1 if p.ndim == 1 else p[0].numel() ** -0.5, generator=noise)
  plain.save_pretrained(tmp_path / "x")
  formats.convert(tmp_path / "x", tmp_path / "y", quant=form)
  batch = live.prompts(slice(0, 5), 1)
  with torch.no_grad():
    theirs = opened(tmp_path / "y").train()(**live.on_their_side(batch)).logits
  source = formats.open(tmp_path / "y")
  params = formats.load_params(source, source.config, "float32")
  forward = jax.jit(lambda p, *a: paligemma.PaliGemma(source.config).apply({"params": p}, *a)[0])
  ours = forward(params, batch.image, batch.text, batch.mask_ar, batch.mask_input)
  for a, b, n in zip(ours, theirs[:, :, : live.V].numpy(), batch.mask_input.sum(1)):
    np.testing.assert_allclose(a[:n], b[-n:], atol=2e-4, rtol=0)
