"""The same training on one device and on eight."""

import jax
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.configs import meshes
from paligemma_jax.models import paligemma, tree
from paligemma_jax.train import adam8bit, saved, setup, step
from paligemma_jax.train import optimizer as optimizers
from tests import toy

STEPS, BATCH = 20, 8


def train(mesh_name: str, optimizer: str = "adam") -> tuple[list[float], step.TrainState]:
  """The losses of 20 steps in float32, and the final state."""
  config = toy.config(vocab_size=1496)
  layout = meshes.get(mesh_name)
  devices = jax.devices()[:1] if mesh_name == "single" else None
  mesh, rules = sharding.make_mesh(layout["axes"], devices), layout["rules"]
  model = paligemma.PaliGemma(config, rules=rules)
  flat = toy.flat_params(config)
  schedules = ((".*", {"warmup_steps": 2}),)
  made = optimizers.make(flat, STEPS, optimizer=optimizer, lr=1e-3, schedules=schedules)
  start = lambda: step.init_state(sharding.unflatten(flat), made, seed=0)
  shardings = saved.state_shardings(jax.eval_shape(start), tree.plain(config), mesh, rules)
  parts = setup.Parts(None, config, None, None, mesh=mesh, rules=rules, model=model)
  train_step = setup.jit_step(parts, made, shardings)
  losses = []
  with jax.set_mesh(mesh):
    state = jax.jit(start, out_shardings=shardings)()
    batch = sharding.put_batch(toy.batch(config, BATCH), mesh, rules)
    for _ in range(STEPS):
      state, scalars = train_step(state, batch)
      losses.append(float(scalars["loss"]))
  return losses, state


@pytest.fixture(scope="module")
def one():
  """The losses on one device."""
  return train("single")[0]


@pytest.fixture(autouse=True)
def split_small_parameters_too(monkeypatch):
  monkeypatch.setattr(sharding, "AUTO_MIN_SIZE", 1)


@pytest.mark.parametrize(
  "name",
  [
    "data=2,fsdp=2,tensor=2",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("data", "fsdp", "data_fsdp:4")),
  ],
)
def test_losses_do_not_depend_on_the_devices(name, one):
  assert len(jax.devices()) == 8
  eight, state = train(name)
  np.testing.assert_allclose(eight, one, rtol=1e-5)
  assert one[-1] < one[0] - 0.5  # it learns the batch by heart

  table = state.params["llm"]["embedder"]["input_embedding"]
  assert table.is_fully_replicated == (name == "data")
  tree = saved.to_tree(state)["opt_state"]
  (mean,) = [x for path, x in tree.items() if path.endswith("mu.llm.embedder.input_embedding")]
  assert mean.sharding == table.sharding  # moments lie where their parameters lie


@pytest.mark.slow
def test_losses_with_moments_of_8_bits_are_those_of_adam_within_1_percent(one, monkeypatch):
  monkeypatch.setattr(adam8bit, "SMALLEST", 256)  # else the table alone is large enough
  narrow, state = train("single", "adam8bit")
  np.testing.assert_allclose(narrow, one, rtol=0.01)
  codes = [x for x in jax.tree.leaves(state.opt_state) if x.dtype == np.uint8]
  values = sum(x.size for x in jax.tree.leaves(state.params))
  assert 1.9 * values < sum(x.size for x in codes) < 2 * values


@pytest.mark.parametrize("optimizer", ["adafactor", "adam8bit"])
def test_a_state_survives_the_form_it_is_saved_in(optimizer):
  made = optimizers.make(toy.flat_params(toy.config()), 3, lr=1e-3, optimizer=optimizer)
  params = sharding.unflatten(toy.flat_params(toy.config()))
  state = step.init_state(params, made, seed=1)
  again = saved.from_tree(saved.to_tree(state), jax.eval_shape(lambda: state))
  assert jax.tree.structure(again) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
    np.testing.assert_array_equal(a, b)
