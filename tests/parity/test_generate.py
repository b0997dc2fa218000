"""Live against transformers: random tiny models of both families, opened from the folder it saves.

Compared are logits (1e-4, float32) and greedy tokens (equal up to EOS), for one row and for five
ragged prompts, with one image and with two. On the other side prompts are padded on the left, and
`token_type_ids` are passed: without them the mask of transformers 5 is causal with eager attention
(here), but full with SDPA when no row is padded (PaliGemma 1; tried with 5.23 and 5.24).
"""

import dataclasses
import functools
import tempfile

import jax
import numpy as np
import pytest

from paligemma_jax import structs
from paligemma_jax.checkpoint import formats
from paligemma_jax.decode import generate
from paligemma_jax.models import paligemma

pytestmark = pytest.mark.parity

V, EXTRA, RES, PATCH, M = 210, 46, 16, 4, 12
IMAGE, TOKENS = V, (RES // PATCH) ** 2  # the placeholder's id; image tokens per image
LENGTHS, WIDTH = (5, 3, 8, 4, 6), 9

VISION = dict(
  model_type="siglip_vision_model", hidden_size=32, intermediate_size=56, num_hidden_layers=2,
  num_attention_heads=4, image_size=RES, patch_size=PATCH, vision_use_head=False, projection_dim=48,
)  # fmt: skip
TEXT = dict(
  hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
  num_key_value_heads=1, head_dim=16, vocab_size=V + EXTRA, max_position_embeddings=512,
  hidden_activation="gelu_pytorch_tanh", num_image_tokens=TOKENS,
)  # fmt: skip
FAMILIES = {
  "paligemma": dict(TEXT, model_type="gemma"),
  "paligemma2": dict(
    TEXT, model_type="gemma2", num_key_value_heads=2, query_pre_attn_scalar=16,
    attn_logit_softcapping=5.0, final_logit_softcapping=8.0, sliding_window=4096,
  ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
  """The same weights on both sides."""

  theirs: object
  ours: paligemma.PaliGemma
  params: dict


@functools.cache
def pair(family) -> Pair:
  import torch
  import transformers

  config = transformers.PaliGemmaConfig(
    vision_config=VISION, text_config=FAMILIES[family], image_token_index=IMAGE,
    projection_dim=48, hidden_size=48, bos_token_id=2, eos_token_id=1, pad_token_id=0,
  )  # fmt: skip
  config._attn_implementation = "eager"
  theirs = transformers.PaliGemmaForConditionalGeneration(config).eval()
  noise = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for p in theirs.parameters():  # larger than the initialiser's 0.02: no near-ties
      p.normal_(0, 0.1 if p.ndim == 1 else p[0].numel() ** -0.5, generator=noise)
  with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    source = formats.open(folder)
    params = formats.load_params(source, source.config, "float32")
  return Pair(theirs, paligemma.PaliGemma(source.config), params)


def prompts(rows, frames) -> structs.Batch:
  rng = np.random.default_rng(3)
  image = rng.uniform(-1, 1, (len(LENGTHS), frames, RES, RES, 3)).astype(np.float32)
  is_token = np.arange(WIDTH) < np.array(LENGTHS)[:, None]
  text = np.where(is_token, rng.integers(4, V, (len(LENGTHS), WIDTH)), 0).astype(np.int32)
  text[:, 0] = 2
  whole = structs.Batch(
    image=image[:, 0] if frames == 1 else image,
    mask_image=np.ones((len(text), frames), bool),
    text=text,
    mask_ar=np.where(is_token, 0, 1).astype(np.int32),
    mask_input=is_token,
    mask_loss=np.zeros(text.shape, np.float32),
    valid=np.ones(len(text), bool),
  )
  return structs.Batch(*(x[rows] for x in whole))


def on_their_side(batch):
  """Left-padded, image placeholders first, pixels channels first."""
  import torch

  B, frames = len(batch.text), batch.mask_image.shape[1]
  lengths = batch.mask_input.sum(1)
  ids = np.zeros((B, frames * TOKENS + lengths.max()), np.int64)
  for row, text, n in zip(ids, batch.text, lengths):
    row[-n:] = text[:n]
    row[-n - frames * TOKENS : -n] = IMAGE
  pixels = batch.image.reshape(-1, RES, RES, 3).transpose(0, 3, 1, 2)
  return dict(
    input_ids=torch.tensor(ids),
    attention_mask=torch.tensor(ids != 0).long(),
    token_type_ids=torch.zeros(ids.shape, dtype=torch.long),
    pixel_values=torch.tensor(pixels.copy()),
  )


cases = pytest.mark.parametrize(
  "family, rows, frames",
  [(f, r, i) for f in FAMILIES for r, i in ((slice(0, 1), 1), (slice(0, 5), 1), (slice(0, 5), 2))],
)


@cases
def test_logits(family, rows, frames):
  import torch

  both, batch = pair(family), prompts(rows, frames)
  with torch.no_grad():
    theirs = both.theirs(**on_their_side(batch)).logits[:, :, :V].numpy()
  forward = jax.jit(lambda p, *args: both.ours.apply({"params": p}, *args)[0])
  ours = forward(both.params, batch.image, batch.text, batch.mask_ar, batch.mask_input)
  for a, b, n in zip(ours, theirs, batch.mask_input.sum(1)):
    np.testing.assert_allclose(a[:n], b[-n:], atol=1e-4, rtol=0)


@cases
def test_greedy_tokens(family, rows, frames):
  import torch

  both, batch = pair(family), prompts(rows, frames)
  inputs = on_their_side(batch)

  def theirs(eos):
    with torch.no_grad():
      found = both.theirs.generate(
        **inputs, max_new_tokens=M, do_sample=False, eos_token_id=eos, pad_token_id=0,
        suppress_tokens=list(range(V, V + EXTRA)),
      )[:, inputs["input_ids"].shape[1] :].numpy()  # fmt: skip
    return np.pad(found, ((0, 0), (0, M - found.shape[1])))

  endless = theirs(V + EXTRA - 1)  # suppressed, hence no EOS
  eos = int(endless[0, M // 2])  # one that comes
  for want, id in ((endless, -1), (theirs(eos), eos)):
    tokens, _ = generate.generate(both.ours, both.params, batch, max_new_tokens=M, eos=id)
    np.testing.assert_array_equal(tokens, want)  # both write 0 after EOS
