"""Towers, masks, losses and gradients against the reference's own numbers (tests/data/golden)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.models import attention, gemma_block, loss, paligemma, variants
from tests import golden

LOGITS, LOSS = 2e-4, 1e-4  # absolute, float32, as the golden README suggests


@functools.cache
def load(tag: str, **settings):
  """(model, parameters, golden arrays, golden config) of a tag, with its recorded settings."""
  flat, sizes = golden.weights(tag), golden.config(tag)["llm"]
  config = variants.recognise({k: v.shape for k, v in flat.items()})
  recorded = {k: sizes[k] for k in variants.SETTINGS if k in sizes and k != "final_logits_softcap"}
  config = config.replace(**{**recorded, **settings})
  return paligemma.PaliGemma(config), sharding.unflatten(flat), golden.io(tag), golden.config(tag)


def forward(tag: str, **settings):
  model, params, io, _ = load(tag, **settings)
  apply = jax.jit(lambda p, *args: model.apply({"params": p}, *args))
  return apply(params, io["image"], io["text"][:, :-1], io["mask_ar"][:, :-1])


@pytest.mark.parametrize("tag", golden.TAGS)
def test_image_tokens_hidden_states_and_logits(tag):
  io = golden.io(tag)
  logits, out = forward(tag)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(out["img/zimg"], io["out_zimg"], atol=LOGITS, rtol=0)
  np.testing.assert_allclose(out["llm/pre_logits"], io["out_pre_logits"], atol=LOGITS, rtol=0)
  np.testing.assert_allclose(logits, io["out_logits"], atol=LOGITS, rtol=0)


def test_settings_that_shapes_cannot_tell_change_the_logits_as_in_the_reference():
  io, sizes = golden.io("pg2_tiny"), golden.config("pg2_tiny")["llm"]
  cases = {
    "out_logits_capped": {"final_logits_softcap": sizes["final_logits_softcap"]},
    "out_logits_no_attn_cap": {"attn_logits_softcap": 0.0},
    "out_logits_other_query_scale": {"query_pre_attn_norm": "rsqrt_emb_per_head"},
  }
  for key, settings in cases.items():
    logits, _ = forward("pg2_tiny", **settings)
    np.testing.assert_allclose(logits, io[key], atol=LOGITS, rtol=0, err_msg=key)


@pytest.mark.parametrize("tag", golden.TAGS)
def test_attention_mask_of_image_and_text(tag):
  io = golden.io(tag)
  B, N = io["out_zimg"].shape[:2]
  mask_ar = np.concatenate([np.zeros((B, N), np.int32), io["mask_ar"][:, :-1]], axis=1)
  mask = attention.block_mask(jnp.ones(mask_ar.shape, bool), jnp.asarray(mask_ar))
  np.testing.assert_array_equal(mask, io["out_attn_mask"])


def test_block_mask_of_general_patterns():
  ops = golden.io("ops")
  mask = attention.block_mask(jnp.asarray(ops["mask/input_mask"]), jnp.asarray(ops["mask/mask_ar"]))
  np.testing.assert_array_equal(mask, ops["mask/attn"])


# At position 4100 the reference's float32 timescale alone is worth 2.6e-4.
@pytest.mark.parametrize("name", ["rope16", "rope256"])
def test_rope(name):
  ops = golden.io("ops")
  got = gemma_block.rope(jnp.asarray(ops[f"{name}/x"]), jnp.asarray(ops[f"{name}/positions"]))
  np.testing.assert_allclose(got, ops[f"{name}/out"], atol=3e-4, rtol=0)


def test_rms_norm():
  ops = golden.io("ops")
  got = gemma_block.RMSNorm().apply(
    {"params": {"scale": ops["rmsnorm/scale"]}}, jnp.asarray(ops["rmsnorm/x"])
  )
  np.testing.assert_allclose(got, ops["rmsnorm/out"], atol=1e-6, rtol=1e-6)


def per_example(nll, weights):
  return jnp.sum(nll * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tag", golden.TAGS)
def test_loss_with_and_without_label_smoothing(tag, smoothing):
  _, params, io, _ = load(tag)
  _, out = forward(tag)
  table = params["llm"]["embedder"]["input_embedding"]
  targets, weights = (
    jnp.asarray(io["text"][:, 1:]),
    jnp.asarray(io["mask_loss"][:, 1:], jnp.float32),
  )
  got = per_example(loss.token_nll(out["llm/pre_logits"], table, targets, smoothing), weights)
  want = io[f"out_loss_per_example_ls{smoothing}"]
  np.testing.assert_allclose(got, want, atol=LOSS, rtol=0)
  np.testing.assert_allclose(got.mean(), io[f"out_loss_ls{smoothing}"], atol=LOSS, rtol=0)


@pytest.mark.parametrize("remat", ["none", "nothing_saveable"])
@pytest.mark.parametrize("tag", golden.TAGS)
def test_gradient_norm_of_every_parameter(tag, remat):
  model, params, io, _ = load(tag)
  model = model.clone(remat=remat)
  weights = jnp.asarray(io["mask_loss"][:, 1:], jnp.float32)
  rows = loss.supervised(weights, int(weights.sum(axis=1).max()))
  targets, weights = (jnp.take_along_axis(x, rows, 1) for x in (io["text"][:, 1:], weights))

  def loss_fn(p):
    args = io["image"], io["text"][:, :-1], io["mask_ar"][:, :-1]
    hidden = model.apply({"params": p}, *args, rows=rows, method="hidden")
    nll = loss.token_nll(hidden, p["llm"]["embedder"]["input_embedding"], targets)
    return per_example(nll, weights).mean()

  grads = sharding.flatten(jax.jit(jax.grad(loss_fn))(params))
  for name, grad in grads.items():
    norm = jnp.sqrt(jnp.sum(jnp.square(grad)))
    # Attention key biases of the image tower have a gradient of zero but for rounding.
    np.testing.assert_allclose(norm, io[f"grad_l2/{name}"], rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("tag", golden.TAGS)
def test_prefill_logits_follow_the_last_token_of_each_row(tag):
  model, params, io, _ = load(tag)
  logits, cache = model.apply(
    {"params": params},
    *(io[k] for k in ("image", "dec_text", "dec_mask_ar", "dec_mask_input")),
    cache_size=3,
    method="prefill",
  )
  np.testing.assert_allclose(logits, io["out_prefill_logits"][:, 0], atol=LOGITS, rtol=0)
  N = io["out_zimg"].shape[1]
  np.testing.assert_array_equal(cache.length, N + io["dec_mask_input"].sum(axis=1))
