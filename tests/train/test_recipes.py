"""Recipes: what the config leaves open is theirs, and the bytes they state."""

import pytest

from paligemma_jax import errors
from paligemma_jax.models import tree, variants
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.train import recipes


def resolve(**train):
  return recipes.resolve({"recipe": "full", "schedule": {"decay_type": ""}, **train})


def trainable(model, **train):
  names = tree.param_shapes(model)
  got = resolve(**train)
  rules = dict(schedules=got["rules"], otherwise=got["otherwise"])
  return optimizers.make(names, 10, lr=1.0, **rules).trainable


def test_what_is_left_open_is_the_recipe_s():
  got = resolve(recipe="attention_sgd", optimizer="", lr=0.0)
  assert (got["optimizer"], got["lr"]) == ("sgd", 0.03)
  assert got["schedule"] == {"decay_type": "cosine", "warmup_percent": 0.10}


def test_what_is_given_goes_first():
  schedule = {"decay_type": "linear", "warmup_steps": 7, "warmup_percent": None}
  got = resolve(recipe="attention_sgd", optimizer="adam", lr=1.0, schedule=schedule)
  assert (got["optimizer"], got["lr"]) == ("adam", 1.0)
  assert got["schedule"] == {"decay_type": "linear", "warmup_steps": 7}


def test_what_trains():
  model = variants.preset("paligemma-3b")
  assert len(trainable(model)) == len(tree.param_shapes(model))
  assert set(trainable(model, recipe="head_only")) == {"img/head/kernel", "img/head/bias"}
  assert set(trainable(model, recipe="attention_sgd")) == {
    "llm/layers/attn/q_einsum/w",
    "llm/layers/attn/kv_einsum/w",
    "llm/layers/attn/attn_vec_einsum/w",
  }
  frozen = trainable(model, freeze=("img/.*",))
  assert frozen and all(name.startswith("llm/") for name in frozen)


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_schedule_of_the_user_s_may_cover_everything(recipe):
  model = variants.preset("paligemma-3b")
  rules = {"mine": {"params": "llm/.*", "decay_type": "linear"}, "rest": {"params": ".*"}}
  assert set(trainable(model, recipe=recipe, schedules=rules)) == set(tree.param_shapes(model))
  with pytest.raises(errors.UserError, match='"img/.*" never applies'):
    trainable(model, recipe=recipe, schedules={**rules, "late": {"params": "img/.*"}})


def test_bytes_of_3b():
  # 2,923,335,408 parameters (data sheet); attention: 18 layers of 2 * 8 * 2048 * 256 for queries
  # and outputs and 2 * 2048 * 256 for the one pair of keys and values
  total, attention = 2_923_335_408, 18 * (16 + 2) * 2048 * 256
  model = variants.preset("paligemma-3b")
  full = recipes.bytes_needed(model, "full")
  assert full[:2] == (4 * total, 4 * total)
  assert full.optimizer == 8 * total + 8  # two moments and two counters
  sgd = recipes.bytes_needed(model, "attention_sgd", frozen="float16")
  assert sgd[:2] == (4 * attention + 2 * (total - attention), 4 * attention)
  assert sgd.optimizer == 4  # the counter of the schedule
  assert sgd.total < 7e9
  narrow = recipes.bytes_needed(model, "full", mu_dtype="bfloat16")
  assert narrow.optimizer == 6 * total + 8
  codes = recipes.bytes_needed(model, "full", optimizer="adam8bit")
  # two bytes a value, two scales of four bytes for 256; norms and biases, 0.2 M values, eight
  assert codes.optimizer == pytest.approx((2 + 8 / 256) * total, rel=1e-3)


def test_frozen_parameters_are_narrow_on_accelerators_only():
  assert recipes.frozen_dtype("attention_sgd", "float16", "gpu") == "float16"
  assert recipes.frozen_dtype("full", "bfloat16", "tpu") is None  # as stored
  assert recipes.frozen_dtype("full", "float32", "cpu") == "float32"


def test_unknown_recipe():
  with pytest.raises(errors.UserError, match='did you mean "head_only"'):
    resolve(recipe="headonly")
