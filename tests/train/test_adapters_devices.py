"""Training of adapters on one device and on several: the same losses, and what lies where."""

import functools
import math

import jax
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.configs import meshes
from paligemma_jax.models import paligemma, quant, tree, variants
from paligemma_jax.train import adapters, recipes, saved, setup, step
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.transfers import common
from tests import toy

pytestmark = pytest.mark.slow

STEPS, BATCH = 4, 8
FORMS = {"lora": "", "qlora": "nf4-dq", "qlora in int8": "int8"}
# Blocks of 64 divide the rows of some matrices, and of others not.
CONFIG = variants.ModelConfig(
  variants.ImageConfig(width=64, depth=2, mlp_dim=88, num_heads=4, patch_size=14, res=28),
  variants.DecoderConfig(128, 2, 256, 4, 1, 32, 1496),
)


def layout(**options):
  chosen = {"targets": "all-linear", "rank": 4, "dropout": 0.0} | options
  return adapters.layout(common.base().train.lora.to_dict() | chosen, CONFIG)


def form(text, config=CONFIG, made=None):
  few = tree.parse_quant(text, config) if text else {}
  return tree.Form(few, (made or layout()).adapters(config))


@functools.cache
def params(text):
  """Flat parameters: random, in a form, with adapters that have changed something already."""
  found, rng = toy.flat_params(CONFIG), np.random.default_rng(0)
  for name, few in form(text).quant.items():
    leaf, x = tree.plain(CONFIG)[name], found.pop(name)
    axes = (*range(leaf.stack), *leaf.outer, *leaf.summed)
    matrices = np.ascontiguousarray(x.transpose(axes)).reshape(-1, *leaf.matrix)
    made = [quant.quantise(matrix, few) for matrix in matrices]
    for part, like in tree.quantised(leaf, few).items():
      found[f"{name}/{part}"] = np.stack([one[part] for one in made]).reshape(like.shape)
  for name, x in adapters.fresh(layout(), CONFIG, seed=0).items():
    is_b = name.endswith("/b")
    found[name] = rng.normal(size=x.shape).astype(np.float32) * 0.05 if is_b else np.asarray(x)
  return {name: found[name] for name in tree.formed(CONFIG, form(text))}


def train(recipe, mesh_name="single", devices=1, remat="none", accumulate=1):
  """(losses of a few steps, the final state)."""
  text, named = FORMS[recipe], meshes.get(mesh_name)
  mesh = sharding.make_mesh(named["axes"], jax.devices()[:devices])
  rules, flat = named["rules"], params(text)
  model = paligemma.PaliGemma(CONFIG, remat=remat, rules=rules)
  trains = [name for name in flat if recipes.is_adapter(name)]
  schedules = [*((name, {"decay_type": "stair"}) for name in trains), (".*", None)]
  made = optimizers.make(list(flat), STEPS, lr=1e-3, schedules=schedules)
  start = lambda: step.init_state(sharding.unflatten(flat), made, seed=0)
  leaves = tree.formed(CONFIG, form(text))
  shardings = saved.state_shardings(jax.eval_shape(start), leaves, mesh, rules)
  parts = setup.Parts(None, CONFIG, None, None, mesh=mesh, rules=rules, model=model)
  train_step = setup.jit_step(parts, made, shardings, accumulate=accumulate)
  losses = []
  with jax.set_mesh(mesh):
    state = jax.device_put(start(), shardings)
    rows = sharding.put_batch(toy.batch(CONFIG, BATCH), mesh, rules)
    for _ in range(STEPS):
      state, scalars = train_step(state, rows)
      losses.append(float(scalars["loss"]))
  return losses, state


@functools.cache
def one(recipe):
  return train(recipe)


@pytest.fixture(autouse=True)
def split_small_parameters_too(monkeypatch):
  monkeypatch.setattr(sharding, "AUTO_MIN_SIZE", 2**9)


def assert_same(recipe, losses, state):
  wanted, alone = one(recipe)
  assert wanted[-1] < wanted[0] - 0.01
  np.testing.assert_allclose(losses, wanted, rtol=1e-5)
  # Adam's means are gradients; where these are 0 up to rounding, parameters are not told by them.
  means, wanted = (saved.to_tree(s)["opt_state"] for s in (state, alone))
  means = {path: np.asarray(x) for path, x in means.items() if ".mu." in path}
  assert len(means) == sum(recipes.is_adapter(name) for name in params(FORMS[recipe]))
  for path, mean in means.items():
    off = np.linalg.norm(mean - np.asarray(wanted[path]))
    assert off <= 1e-5 * np.linalg.norm(wanted[path]), path


# A minute each to compile: every mesh and every recipe, not each with each.
@pytest.mark.parametrize(
  "recipe, mesh, devices",
  [
    ("lora", "data", 2),
    ("qlora", "fsdp", 4),
    ("qlora", "fsdp_tensor", 4),
    ("qlora in int8", "fsdp_tensor:4", 4),
  ],
)
def test_losses_do_not_depend_on_the_devices(recipe, mesh, devices):
  losses, state = train(recipe, mesh, devices)
  assert_same(recipe, losses, state)
  flat = sharding.flatten(state.params)
  split = {name for name, x in flat.items() if not x.is_fully_replicated}
  if mesh != "data":
    assert {"llm/layers/mlp/linear.lora/a", "llm/layers/mlp/gating_einsum.lora/b"} < split
  if FORMS[recipe] and mesh != "data":
    kind = FORMS[recipe].partition("-")[0]
    codes = flat[f"llm/layers/mlp/linear/{kind}"]
    assert math.prod(codes.sharding.shard_shape(codes.shape)) == codes.size / devices


@pytest.mark.parametrize(
  "recipe, remat, accumulate",
  [
    ("qlora", "dots_with_no_batch_dims_saveable", 2),
    ("lora", "none", 2),
  ],
)
def test_losses_do_not_depend_on_what_is_kept_nor_on_the_pieces(recipe, remat, accumulate):
  assert_same(recipe, *train(recipe, remat=remat, accumulate=accumulate))
