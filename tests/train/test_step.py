"""The step against the reference's traces: four steps of every optimizer config of both models."""

import functools
import types

import jax
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.models import paligemma, variants
from paligemma_jax.structs import Batch
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.train import step
from tests import golden

RUNS = [(tag, run) for tag in golden.TAGS for run in golden.config(tag)["train_configs"]]
NAMES = {  # optax_name of the reference -> ours
  "scale_by_adam": "adam",
  "big_vision.scale_by_adafactor": "adafactor",
  "big_vision.sgd": "sgd",
}


@functools.cache
def golden_model(tag: str) -> tuple[paligemma.PaliGemma, dict]:
  """The model as the traces were made: no final soft-cap, float32 parameters."""
  flat = golden.weights(tag)
  llm = golden.config(tag)["llm"]
  img = golden.config(tag)["img"]
  config = variants.recognise({name: x.shape for name, x in flat.items()})
  config = config.replace(
    res=img["image_size"],
    attn_logits_softcap=llm.get("attn_logits_softcap") or 0.0,
    final_logits_softcap=0.0,
    sliding_window=0,
    query_pre_attn_norm=llm.get("query_pre_attn_norm", "rsqrt_head_dim"),
  )
  return paligemma.PaliGemma(config, remat="none"), flat


def golden_batch(tag: str) -> Batch:
  io = golden.io(tag)
  image = io["image"]
  frames = image.shape[1] if image.ndim == 5 else 1
  return Batch(
    image=image,
    mask_image=np.ones((len(image), frames), bool),
    text=io["text"],
    mask_ar=io["mask_ar"],
    mask_input=io["mask_input"],
    mask_loss=io["mask_loss"].astype(np.float32),
    valid=np.ones(len(image), bool),
  )


def golden_optimizer(tag: str, names, run: dict) -> optimizers.Optimizer:
  rules = run["schedule"]
  if isinstance(rules, dict):
    rules = [(".*", rules)]
  extra = {name: run[name] for name in ("lr_mults", "wd_mults") if name in run}
  batch = golden.config(tag)["batch"]
  return optimizers.make(
    names,
    run["total_steps"],
    optimizer=NAMES[run["optax_name"]],
    lr=run["lr"],
    schedules=rules,
    weight_decay=run.get("wd") or 0.0,
    grad_clip_norm=run.get("grad_clip_norm") or 0.0,
    batch_size=batch,
    data_size=3 * batch,
    **run.get("optax", {}),
    **extra,
  )


@pytest.mark.parametrize("tag, run", RUNS)
def test_traces_of_the_reference(tag, run):
  config, want = golden.config(tag)["train_configs"][run], golden.io(tag)
  want = {k.removeprefix(f"train_{run}/"): v for k, v in want.items() if f"train_{run}/" in k}
  model, flat = golden_model(tag)
  made = golden_optimizer(tag, flat, config)

  factors = [made.factor(i) for i in range(len(want["schedule"]))]
  np.testing.assert_allclose(factors, want["schedule"], rtol=1e-3, atol=1e-6)

  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  train_step = jax.jit(step.make_train_step(model, made, label_smoothing=config["label_smoothing"]))
  trace = {"loss": [], "l2_grads": [], "l2_params": [], "l2_updates": []}
  for _ in want["loss"]:
    state, scalars = train_step(state, golden_batch(tag))
    for name in trace:
      trace[name].append(float(scalars[name]))
  for name, values in trace.items():
    np.testing.assert_allclose(values, want[name], rtol=1e-3, err_msg=name)
  assert trace["l2_updates"][0] == 0.0  # warmup starts at exactly 0

  final = sharding.flatten(state.params)
  for name in [k.removeprefix("final/") for k in want if k.startswith("final/")]:
    np.testing.assert_allclose(final[name], want[f"final/{name}"], rtol=1e-3, atol=1e-5)


def test_frozen_parameters_hold_no_state_and_do_not_move():
  model, flat = golden_model("pg1_tiny")
  rules = [("llm/layers/attn/.*", {"decay_type": "cosine"}), (".*", None)]
  made = optimizers.make(flat, 10, lr=0.01, schedules=rules)
  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  trained = [name for name in flat if name.startswith("llm/layers/attn/")]
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
  assert moments == 2 * sum(flat[name].size for name in trained)

  after, _ = jax.jit(step.make_train_step(model, made))(state, golden_batch("pg1_tiny"))
  for name, x in sharding.flatten(after.params).items():
    assert np.array_equal(x, flat[name]) is (name not in trained), name


def test_a_row_without_targets_adds_nothing_and_counts_in_the_mean_as_in_the_reference():
  model, flat = golden_model("pg1_tiny")
  made = optimizers.make(flat, 10, lr=0.01, schedules=[(".*", {"decay_type": "cosine"})])
  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  train_step = jax.jit(step.make_train_step(model, made))
  batch = golden_batch("pg1_tiny")
  half = np.array([True, True, False, False])
  _, some = train_step(state, batch._replace(valid=half))
  mask_loss = batch.mask_loss * half[:, None].astype(np.float32)
  _, want = train_step(state, batch._replace(mask_loss=mask_loss))
  assert float(some["loss"]) == float(want["loss"])
  means = some["example_nll"][:2] / some["example_tokens"][:2]
  np.testing.assert_allclose(some["loss"], means.sum() / 4, rtol=1e-6)  # of four rows, not of two


class Noise:
  """In place of a model: its hidden states are nothing but what dropout draws."""

  config = types.SimpleNamespace(llm=types.SimpleNamespace(final_logits_softcap=0.0))
  dtype, rules = "float32", None

  def apply(self, variables, image, text, mask_ar, *, rows, rngs, **_):
    width = variables["params"]["llm"]["embedder"]["input_embedding"].shape[1]
    return jax.random.normal(rngs["dropout"], (*rows.shape, width))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_draws_anew_in_every_step_and_the_same_in_the_same_step(accumulate):
  batch, name = golden_batch("pg1_tiny"), "llm/embedder/input_embedding"
  flat = {name: np.linspace(-1, 1, 2 * (batch.text.max() + 1), dtype=np.float32).reshape(-1, 2)}
  made = optimizers.make(flat, 10, lr=0.01, optimizer="sgd", wd_mults=())
  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  train_step = step.make_train_step(Noise(), made, accumulate=accumulate)
  losses = [float(train_step(state.replace(step=i), batch)[1]["loss"]) for i in (0, 1, 1)]
  assert losses[0] != losses[1] == losses[2]


def test_split_and_merge_are_inverse():
  params = {"img": {"a": 1, "b": {"c": 2}}, "llm": {"d": 3}}
  trained, frozen = step.split(params, ["img/b/c"])
  assert trained == {"img": {"b": {"c": 2}}}
  assert frozen == {"img": {"a": 1}, "llm": {"d": 3}}
  assert step.merge(trained, frozen) == params


@pytest.mark.parametrize(
  "num_pieces, options", [(4, {}), (2, {"mean_over": "token", "label_smoothing": 0.1})]
)
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(num_pieces, options):
  model, flat = golden_model("pg2_tiny")
  made = optimizers.make(flat, 10, lr=0.01, optimizer="sgd", grad_clip_norm=0.0)

  def after_one_step(accumulate):
    state = step.init_state(sharding.unflatten(flat), made, seed=0)
    train_step = jax.jit(step.make_train_step(model, made, accumulate=accumulate, **options))
    state, scalars = train_step(state, golden_batch("pg2_tiny"))
    return scalars, sharding.flatten(state.params)

  (whole, params), (pieces, again) = after_one_step(1), after_one_step(num_pieces)
  for name in ("loss", "l2_grads", "example_nll", "example_tokens"):
    np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-5, err_msg=name)
  for name, x in params.items():
    np.testing.assert_allclose(again[name], x, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("tag", golden.TAGS)
def test_the_mean_over_tokens_is_one_mean_over_the_reference_s_logits(tag):
  io = golden.io(tag)
  logp = jax.nn.log_softmax(io["out_logits"], axis=-1)
  nll = -np.take_along_axis(np.asarray(logp), io["text"][:, 1:, None], axis=-1)[..., 0]
  weights = io["mask_loss"][:, 1:]

  model, flat = golden_model(tag)
  made = optimizers.make(flat, 10, lr=0.01, optimizer="sgd")
  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  train_step = jax.jit(step.make_train_step(model, made, mean_over="token"))
  _, scalars = train_step(state, golden_batch(tag))
  np.testing.assert_allclose(scalars["loss"], (nll * weights).sum() / weights.sum(), rtol=1e-5)


def test_a_window_as_long_as_the_longest_suffix_changes_nothing():
  model, flat = golden_model("pg1_tiny")
  made = optimizers.make(flat, 10, lr=0.01, optimizer="sgd")
  batch = golden_batch("pg1_tiny")
  longest = int(batch.mask_loss.sum(axis=1).max())
  losses = []
  for window in (None, longest):
    state = step.init_state(sharding.unflatten(flat), made, seed=0)
    _, scalars = jax.jit(step.make_train_step(model, made, window=window))(state, batch)
    losses.append(float(scalars["loss"]))
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_the_moving_average_follows_what_trains_and_is_what_is_used():
  model, flat = golden_model("pg1_tiny")
  rules = [("llm/layers/attn/.*", {"decay_type": "linear"}), (".*", None)]
  made = optimizers.make(
    flat, 10, lr=0.1, optimizer="sgd", momentum=0.9, schedules=rules, ema_decay=0.75
  )
  state = step.init_state(sharding.unflatten(flat), made, seed=0)
  train_step = jax.jit(step.make_train_step(model, made))
  name = "llm/layers/attn/q_einsum/w"
  want = flat[name]
  for _ in range(3):
    state, _ = train_step(state, golden_batch("pg1_tiny"))
    want = 0.75 * want + 0.25 * sharding.flatten(state.params)[name]
  used = sharding.flatten(step.averaged(state))
  np.testing.assert_allclose(used[name], want, rtol=1e-5)
  assert {n for n in flat if not np.array_equal(used[n], flat[n])} == set(made.trainable)
