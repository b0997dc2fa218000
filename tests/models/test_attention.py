"""Attention in blocks and in the TPU's kernel against attention at once."""

import functools
import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.models import attention, kv_cache

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


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("kv_heads, softcap", [(4, 0.0), (1, 0.0), (2, 5.0)])
@pytest.mark.parametrize("at_once", [1, 2**20])
def test_a_few_examples_give_the_same_values_and_gradients(
  mask, kv_heads, softcap, at_once, monkeypatch
):
  monkeypatch.setattr(attention, "SCORES", at_once)
  q, k, v = inputs(kv_heads)
  mask = masks()[mask]

  def run(attend):
    total = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, mask, softcap)))
    return jax.value_and_grad(total, (0, 1, 2))(q, k, v)

  for got, want in zip(
    jax.tree.leaves(run(attention.attend_few)), jax.tree.leaves(run(attention.attend_whole))
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kv_heads, softcap", [(4, 0.0), (1, 0.0), (2, 5.0)])
@pytest.mark.parametrize("new", [1, 3])
def test_new_tokens_attend_to_a_cache_as_to_keys_and_values(kv_heads, softcap, new):
  q, k, v = inputs(kv_heads)
  q, mask = q[:, :new], masks()["prefix-LM"][:, :new]
  cache = kv_cache.cached(k, v, "float32")
  got = attention.attend_cached(q, *cache, mask, softcap)
  np.testing.assert_allclose(
    got, attention.attend_whole(q, k, v, mask, softcap), rtol=1e-5, atol=1e-6
  )


def test_at_896_px_the_scores_of_a_layer_never_exist_at_once():
  image = jax.ShapeDtypeStruct((1, 4096, 16, 72), jnp.bfloat16)

  def temporaries(attend):
    total = lambda *qkv: jnp.sum(attend(*qkv).astype(jnp.float32))
    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(image, image, image).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(attention.attend) <= temporaries(attention.attend_whole) / 4


@pytest.mark.parametrize("kv_heads, softcap, masked", [(4, 0.0, False), (2, 5.0, True)])
def test_the_kernel_gives_the_same_values_and_gradients(kv_heads, softcap, masked):
  q, k, v = inputs(kv_heads, S=13)
  seen = jnp.asarray(np.arange(13) < np.array([[9], [13]])) if masked else None
  mask = jnp.repeat(seen[:, None], T, axis=1) if masked else None
  splash = functools.partial(attention.attend_splash, softcap=softcap, interpret=True)

  def run(attend, mask):
    total = lambda q, k, v: jnp.sum(jnp.sin(attend(q, k, v, mask)))
    return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(q, k, v)

  whole = functools.partial(attention.attend_whole, softcap=softcap)
  for got, want in zip(jax.tree.leaves(run(splash, seen)), jax.tree.leaves(run(whole, mask))):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.fixture
def as_on_tpu(monkeypatch):
  """`attend` takes the branch of TPUs, with the kernel run step by step, however few the queries."""
  interpreted = functools.partial(attention.attend_splash, interpret=True)
  monkeypatch.setattr(attention, "attend_splash", interpreted)
  monkeypatch.setattr(attention, "KERNEL", 6)
  choose = jax.lax.platform_dependent  # JAX uses it as well

  def on_tpu(*args, **branches):
    return branches["tpu"](*args) if "tpu" in branches else choose(*args, **branches)

  monkeypatch.setattr(jax.lax, "platform_dependent", on_tpu)


@pytest.mark.parametrize("kv_heads", [1, 2])  # whole on each device; one for each of its queries
def test_devices_share_the_kernel_for_what_sees_the_same_keys(as_on_tpu, kv_heads):
  rules = (("batch", "fsdp"), ("heads", "tensor"))
  mask = masks()["prefix-LM"].at[1, 2:4].set(False)  # two of the first six are not there at all
  q, k, v = (x.astype(jnp.bfloat16) for x in inputs(kv_heads))

  def run(attend, **kwargs):
    attend = jax.checkpoint(functools.partial(attend, **kwargs))
    # What nobody reads counts in no loss.
    read = jnp.diagonal(mask, axis1=1, axis2=2)[..., None, None]
    total = lambda *qkv: jnp.sum(jnp.where(read, jnp.sin(attend(*qkv, mask).astype("float32")), 0))
    return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(q, k, v)

  with jax.set_mesh(sharding.make_mesh({"fsdp": 2, "tensor": 4})):
    got = run(attention.attend, alike=6, rules=rules)
  want = run(attention.attend_whole)
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
    # bfloat16 has 8 bits, and the kernel rounds the probabilities elsewhere.
    g, w = (np.asarray(x, np.float32) for x in (g, w))
    np.testing.assert_allclose(g, w, rtol=0.02, atol=0.03)


def test_the_platform_lowered_for_decides_about_the_kernel():
  def is_kernel(platform, dtype=jnp.bfloat16, side=32):
    image = jax.ShapeDtypeStruct((1, side**2, 2, 72), dtype)
    lowered = jax.jit(attention.attend).trace(image, image, image)
    return "tpu_custom_call" in lowered.lower(lowering_platforms=(platform,)).as_text()

  assert is_kernel("tpu")
  assert not is_kernel("cpu") and not is_kernel("cuda")
  assert not is_kernel("tpu", dtype=jnp.float32) and not is_kernel("tpu", side=16)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
@pytest.mark.parametrize("layer", ["tower", "decoder"])
def test_a_layer_at_896_px_needs_a_quarter_of_the_einsums_memory_on_tpu(layer):
  argv = [sys.executable, "-m", "tests.models.compiled_attention", "v5e:1x1", layer]
  run = subprocess.run(argv, capture_output=True, text=True, check=True)
  best, whole = map(int, run.stdout.split())
  assert best <= whole / 4
