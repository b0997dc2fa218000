"""Properties of the joined model that hold for any weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.models import paligemma, tree
from tests import toy

FAMILIES = ("paligemma", "paligemma2")
TOL = dict(atol=2e-5, rtol=0)


def build(family, dtype="float32", **settings):
  config = toy.config(family, vocab_size=64, **settings)
  return paligemma.PaliGemma(config, dtype), sharding.unflatten(toy.flat_params(config))


def inputs(rows=2, length=9, frames=None, res=28):
  """Image + text with three suffix tokens at the end of every row."""
  rng = np.random.default_rng(1)
  shape = (rows, res, res, 3) if frames is None else (rows, frames, res, res, 3)
  image = rng.integers(0, 256, shape, dtype=np.uint8)
  text = rng.integers(4, 64, (rows, length)).astype(np.int32)
  mask_ar = np.zeros((rows, length), np.int32)
  mask_ar[:, -3:] = 1
  return image, text, mask_ar


@pytest.mark.parametrize("family", FAMILIES)
def test_init_gives_the_published_names_and_shapes(family):
  model, _ = build(family)
  abstract = jax.eval_shape(model.init, jax.random.key(0), *inputs())["params"]
  shapes = {k: v.shape for k, v in sharding.flatten(abstract).items()}
  assert shapes == tree.param_shapes(model.config)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_suffix_token_changes_nothing_before_it(family):
  model, params = build(family)
  image, text, mask_ar = inputs()
  changed = text.copy()
  changed[:, -2] = 5
  a, _ = model.apply({"params": params}, image, text, mask_ar)
  b, _ = model.apply({"params": params}, image, changed, mask_ar)
  np.testing.assert_array_equal(a[:, :-2], b[:, :-2])
  assert np.abs(a[:, -2:] - b[:, -2:]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_token_is_seen_by_the_whole_prefix(family):
  model, params = build(family)
  image, text, mask_ar = inputs()
  changed = text.copy()
  changed[:, -4] = 5  # the last one of the prefix
  a, _ = model.apply({"params": params}, image, text, mask_ar)
  b, _ = model.apply({"params": params}, image, changed, mask_ar)
  assert (np.abs(a - b).max(axis=(0, 2)) > 1e-4).all()


@pytest.mark.parametrize("masked", [True, False])
def test_padding_behind_the_suffix_changes_nothing(masked):
  model, params = build("paligemma2")
  image, text, mask_ar = inputs()
  pad = lambda x, value: np.pad(x, ((0, 0), (0, 4)), constant_values=value)
  mask_input = pad(np.ones(text.shape, bool), False) if masked else None
  a, _ = model.apply({"params": params}, image, text, mask_ar)
  b, _ = model.apply({"params": params}, image, pad(text, 0), pad(mask_ar, 1), mask_input)
  np.testing.assert_allclose(a, b[:, :9], **TOL)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_second_image_is_as_if_it_were_not_there(family):
  model, params = build(family)
  image, text, mask_ar = inputs(frames=2)
  one, _ = model.apply({"params": params}, image[:, 0], text, mask_ar)
  mask = np.array([[True, False]] * 2)
  two, _ = model.apply({"params": params}, image, text, mask_ar, mask_image=mask)
  both, _ = model.apply({"params": params}, image, text, mask_ar)
  np.testing.assert_allclose(one, two, **TOL)
  assert np.abs(one - both).max() > 1e-3


def test_tokens_of_several_images_follow_each_other():
  model, params = build("paligemma")
  image, _, _ = inputs(frames=3)
  encode = lambda x: model.apply({"params": params}, x, method="encode_images")
  np.testing.assert_allclose(
    encode(image), np.concatenate([encode(image[:, i]) for i in range(3)], axis=1), **TOL
  )


def test_pixels_as_bytes_or_as_floats_are_the_same_picture():
  model, params = build("paligemma")
  image, text, mask_ar = inputs()
  a, _ = model.apply({"params": params}, image, text, mask_ar)
  b, _ = model.apply({"params": params}, image.astype(np.float32) / 127.5 - 1, text, mask_ar)
  np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


SETTINGS = (
  {},
  {"final_logits_softcap": 3.0},
  {"sliding_window": 5},
  {"sliding_window": 5, "final_logits_softcap": 3.0, "query_pre_attn_norm": "rsqrt_emb_per_head"},
)


@pytest.mark.parametrize("layout", ["stacked", "per layer"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_extend_equal_the_full_forward_pass(family, settings, layout):
  """Ragged prompts: the rows have 9 and 6 tokens, of which the last two are added one by one."""
  model, params = build(family, **settings)
  image, text, mask_ar = inputs()
  lengths = np.array([9, 6])
  mask_ar = (np.arange(9)[None] >= lengths[:, None] - 3).astype(np.int32)
  mask_input = np.arange(9)[None] < lengths[:, None]
  full, _ = model.apply({"params": params}, image, text, mask_ar, mask_input)
  if layout == "per layer":
    params = paligemma.unstack_layers(jax.tree.map(jnp.asarray, params))
  prompt = np.arange(9)[None] < lengths[:, None] - 2
  args = image, text, mask_ar, prompt
  logits, cache = model.apply({"params": params}, *args, cache_size=2, method="prefill")
  for step in (-3, -2, -1):
    last = lengths + step
    want = full[np.arange(2), last]
    np.testing.assert_allclose(logits, want, **TOL)
    if step < -1:
      token = jnp.asarray(text[np.arange(2), last + 1])
      logits, cache = model.apply({"params": params}, token, cache, method="extend")


def test_the_window_hides_far_keys_from_the_suffix_but_not_from_the_prefix():
  model, params = build("paligemma2")
  windowed, _ = build("paligemma2", sliding_window=4)
  image, text, mask_ar = inputs()
  a, _ = model.apply({"params": params}, image, text, mask_ar)
  b, _ = windowed.apply({"params": params}, image, text, mask_ar)
  np.testing.assert_allclose(a[:, :-3], b[:, :-3], **TOL)
  assert np.abs(a[:, -3:] - b[:, -3:]).max() > 1e-3


def test_unstacked_layers_share_the_memory_of_the_stacked_ones_on_the_cpu():
  model, params = build("paligemma")
  params = jax.tree.map(lambda x: jax.device_put(x, jax.devices()[0]), params)
  stacked = params["llm"]["layers"]["mlp"]["linear"]
  split = paligemma.unstack_layers(params)["llm"]["layers"]
  for i in range(model.config.llm.depth):
    row = split[str(i)]["mlp"]["linear"]
    np.testing.assert_array_equal(row, stacked[i])
    assert row.unsafe_buffer_pointer() == stacked.unsafe_buffer_pointer() + i * row.nbytes


def test_bfloat16_compute_leaves_logits_and_hidden_states_float32_and_close():
  model, params = build("paligemma2")
  narrow, _ = build("paligemma2", dtype="bfloat16")
  args = inputs()
  a, _ = model.apply({"params": params}, *args)
  b, out = narrow.apply({"params": params}, *args)
  assert b.dtype == out["llm/pre_logits"].dtype == jnp.float32
  assert 1e-4 < np.abs(a - b).max() < 0.1  # rounding, not a different model


def test_storage_dtype_changes_nothing_when_the_values_are_exact():
  model, params = build("paligemma2")
  narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params)
  a, _ = model.apply({"params": params}, *inputs())
  b, _ = model.apply({"params": narrow}, *inputs())
  np.testing.assert_array_equal(a, b)


def test_dropout_needs_training_and_a_key():
  model, params = build("paligemma2")
  model = model.clone(dropout=0.5)
  run = lambda key: model.apply(
    {"params": params},
    *inputs(),
    train=True,
    rngs={"dropout": jax.random.key(key)},
    method="hidden",
  )
  quiet = model.apply({"params": params}, *inputs(), method="hidden")
  np.testing.assert_array_equal(run(0), run(0))
  assert np.abs(run(0) - run(1)).max() > 1e-3
  assert np.abs(run(0) - quiet).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_of_some_positions_are_those_of_all(family):
  model, params = build(family)
  rows = np.array([[2, 7, 8], [0, 0, 5]])
  some = model.apply({"params": params}, *inputs(), rows=rows, method="hidden")
  every = model.apply({"params": params}, *inputs(), method="hidden")
  np.testing.assert_allclose(some, np.take_along_axis(every, rows[..., None], axis=1), **TOL)
