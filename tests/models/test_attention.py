"""Attention in blocks against attention at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.models import attention

B, T, H = 2, 11, 4


def inputs(kv_heads, S=T):
  rng = np.random.default_rng(0)
  shapes = (B, T, 4, H), (B, S, kv_heads, H), (B, S, kv_heads, H)
  return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def masks():
  mask_ar = jnp.asarray(np.tile([0] * 6 + [1] * 5, (B, 1)))
  mask_input = jnp.asarray(np.arange(T)[None] < np.array([[T], [T - 4]]))  # row 1 ends in padding
  return {"none": None, "prefix-LM": attention.block_mask(mask_input, mask_ar)}


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("kv_heads, softcap", [(4, 0.0), (1, 0.0), (2, 5.0)])
@pytest.mark.parametrize("block", [1, 4, T, 16])
def test_blocks_give_the_same_values_and_gradients(mask, kv_heads, softcap, block):
  q, k, v = inputs(kv_heads)
  mask = masks()[mask]

  def run(attend, **kwargs):
    total = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, mask, softcap, **kwargs)))
    return jax.value_and_grad(total, (0, 1, 2))(q, k, v)

  for got, want in zip(
    jax.tree.leaves(run(attention.attend_blocks, block=block)),
    jax.tree.leaves(run(attention.attend_whole)),
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_at_896_px_the_scores_of_a_layer_never_exist_at_once():
  image = jax.ShapeDtypeStruct((1, 4096, 16, 72), jnp.bfloat16)

  def temporaries(attend):
    total = lambda *qkv: jnp.sum(attend(*qkv).astype(jnp.float32))
    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(image, image, image).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(attention.attend) <= temporaries(attention.attend_whole) / 4
