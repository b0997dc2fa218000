"""Rules over parameter names, and what each link of the chain does; worked out by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paligemma_jax import errors
from paligemma_jax.train import optimizer as optimizers

NAMES = ("img/head/kernel", "img/head/bias", "llm/layers/attn/w")
CONSTANT = ((".*", {"decay_type": "stair"}),)


def params(value=1.0):
  return {
    "img": {"head": {"kernel": jnp.full((2, 2), value), "bias": jnp.full((2,), value)}},
    "llm": {"layers": {"attn": {"w": jnp.full((3,), value)}}},
  }


def update(grads, **options):
  """The first update of sgd at a constant schedule, flat."""
  made = optimizers.make(NAMES, 10, optimizer="sgd", schedules=CONSTANT, **options)
  updates, _ = made.tx.update(grads, made.tx.init(params()), params())
  return {
    "kernel": updates["img"]["head"]["kernel"],
    "bias": updates["img"]["head"]["bias"],
    "w": updates["llm"]["layers"]["attn"]["w"],
  }


def test_sgd_is_minus_lr_times_gradient():
  got = update(params(0.01), lr=0.5, grad_clip_norm=0.0)
  for x in got.values():
    np.testing.assert_allclose(x, -0.005, rtol=1e-6)


def test_clipping_is_by_the_norm_of_all():
  got = update(params(2.0), lr=1.0, grad_clip_norm=1.0)  # nine values of 2: norm 6
  np.testing.assert_allclose(optax.tree.norm(got), 1.0, rtol=1e-6)
  np.testing.assert_allclose(got["w"], -1 / 3, rtol=1e-6)


def test_the_first_matching_lr_mult_counts_and_names_without_one_have_1():
  mults = (("img/head/kernel", 0.5), ("img/.*", 0.1))
  got = update(params(1.0), lr=1.0, grad_clip_norm=0.0, lr_mults=mults)
  assert [float(got[k].ravel()[0]) for k in ("kernel", "bias", "w")] == pytest.approx(
    [-0.5, -0.1, -1.0]
  )


def test_weight_decay_meets_kernels_only_and_is_not_scaled_by_lr():
  got = update(params(0.0), lr=1e-6, weight_decay=0.25)
  assert [float(got[k].ravel()[0]) for k in ("kernel", "bias", "w")] == [-0.25, 0.0, 0.0]


def test_weight_decay_is_scaled_by_the_schedule():
  made = optimizers.make(
    NAMES, 10, optimizer="sgd", lr=1.0, weight_decay=0.25, schedules=((".*", {"warmup_steps": 2}),)
  )
  state, seen = made.tx.init(params()), []
  for _ in range(3):
    updates, state = made.tx.update(params(0.0), state, params())
    seen.append(float(updates["img"]["head"]["kernel"][0, 0]))
  assert seen == pytest.approx([0.0, -0.125, -0.25])


def test_frozen_names_are_not_trainable():
  rules = (("img/.*", None), (".*", {}))
  assert optimizers.make(NAMES, 10, lr=1.0, schedules=rules).trainable == ("llm/layers/attn/w",)


def test_adam_keeps_its_mean_in_mu_dtype():
  made = optimizers.make(NAMES, 10, lr=1.0, mu_dtype="bfloat16")
  adam = next(s for s in made.tx.init(params()) if isinstance(s, optax.ScaleByAdamState))
  assert adam.mu["img"]["head"]["kernel"].dtype == jnp.bfloat16
  assert adam.nu["img"]["head"]["kernel"].dtype == jnp.float32


def test_adafactor_factors_matrices_from_32_on_and_keeps_a_bfloat16_mean():
  tx = optimizers.scale_by_adafactor()
  rms, _, mean = tx.init({"big": jnp.zeros((32, 64)), "small": jnp.zeros((31, 64))})
  assert {rms.v_row["big"].shape, rms.v_col["big"].shape} == {(32,), (64,)}
  assert rms.v["big"].shape == (1,)
  assert rms.v["small"].shape == (31, 64)
  assert mean.ema["big"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(optimizer="adamm"), 'did you mean "adam"'),
    (dict(schedules=(("img/.*", {}),)), 'no rule covers "llm/layers/attn/w"'),
    (dict(schedules=(("img", None), (".*", {}))), '"img" matches no whole parameter name'),
    (dict(schedules=((".*", {}), ("img/.*", None))), '"img/.*" never applies'),
    (
      dict(schedules=((".*", {}), ("img/.*", {}), (".*", {})), otherwise=((".*", {}),)),
      '"img/.*" never',
    ),
    (dict(schedules=((".*", None),)), "nothing to train"),
    (dict(schedules=((".*", None),), otherwise=((".*", {}),)), "nothing to train"),
    (dict(lr_mults=(("llm/.*", 0.0),)), "must be positive"),
    (dict(lr_mults=(("lm/.*", 1.0),)), '"lm/.*" matches no whole parameter name'),
    (dict(lr_mults=(("(", 1.0),)), "is no regular expression"),
  ],
)
def test_mistakes_are_named(options, message):
  import re

  with pytest.raises(errors.UserError, match=re.escape(message)):
    optimizers.make(NAMES, 10, **{"lr": 1.0, **options})
