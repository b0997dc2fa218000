"""Adam in 8 bits: the codes of bitsandbytes, and blocks that neither layers nor devices cut."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.checkpoint import manifest, orbax
from paligemma_jax.configs import meshes
from paligemma_jax.models import tree, variants
from paligemma_jax.train import adam8bit, loop, plan, saved, step
from paligemma_jax.train import log as logs
from tests import golden_adapters, toy
from tests.train import toy_run

GOLDEN = golden_adapters.INDEX["adam8bit"]
GATE, OUT = "llm/layers/mlp/gating_einsum", "llm/layers/attn/attn_vec_einsum/w"


@pytest.mark.parametrize("name", GOLDEN["shapes"])
def test_codes_and_parameters_are_those_of_bitsandbytes(name):
  stored, hyper = golden_adapters.arrays("quant/adam8bit"), GOLDEN["hyper"]
  tx = adam8bit.scale_by_adam8bit(hyper["b1"], hyper["b2"], hyper["eps"])
  p = stored[f"{name}/p0"]
  state, update = tx.init({name: p}), jax.jit(tx.update)
  for i in range(GOLDEN["steps"]):
    updates, state = update({name: stored[f"{name}/g{i}"]}, state)
    p = p * (1 - hyper["lr"] * hyper["weight_decay"]) - hyper["lr"] * updates[name]
    worst = np.abs(p - stored[f"{name}/p{i + 1}"]).max()
    assert worst < golden_adapters.TOLERANCE["adam8bit/parameters"]
  for moment, absmax, n in ((state.mu, state.mu_absmax, 1), (state.nu, state.nu_absmax, 2)):
    wanted = stored[f"{name}/state{n}"]
    assert moment[name].dtype == wanted.dtype  # float32 where there are few values
    if wanted.dtype == np.float32:
      np.testing.assert_allclose(moment[name], wanted, rtol=1e-5, atol=1e-9)
    else:
      different = np.mean(moment[name] != wanted)
      assert different < golden_adapters.TOLERANCE["adam8bit/codes"]
      np.testing.assert_allclose(absmax[name].ravel(), stored[f"{name}/absmax{n}"], rtol=1e-5)


@pytest.mark.parametrize(
  "name, shape, order",
  [
    (GATE, (3, 2, 256, 512), (1, 0)),  # one block of 256 at each of 512
    (GATE, (3, 2, 48, 96), (1, 0)),  # blocks over several rows of the turned matrix
    (OUT, (3, 2, 64, 512), (2, 0, 1)),
    (OUT, (3, 3, 40, 300), (2, 0, 1)),  # the last block of a layer is not full
    ("llm/layers/mlp/linear", (3, 512, 256), (0, 1)),
  ],
)
def test_a_stack_moves_as_its_layers_do_each_with_its_longest_axis_first(name, shape, order):
  stack = len(shape) - len(order)
  count = math.prod(shape[:stack])
  rng = np.random.default_rng(0)
  grads = rng.normal(size=(2, *shape)).astype(np.float32)
  apart = lambda x: {
    str(i): one.transpose(order).reshape(shape[stack + order[0]], -1)
    for i, one in enumerate(x.reshape(count, *shape[stack:]))
  }
  tx = adam8bit.scale_by_adam8bit()
  update = jax.jit(tx.update)
  whole, layers = tx.init({name: grads[0]}), tx.init(apart(grads[0]))
  for g in grads:
    together, whole = update({name: g}, whole)
    alone, layers = update(apart(g), layers)
  for got, want in ((together, alone), (whole.mu, layers.mu), (whole.nu, layers.nu)):
    got = apart(np.asarray(got[name]))
    assert all(np.array_equal(got[i], want[i]) for i in want)
  assert whole.mu[name].dtype == jnp.uint8


def placed(leaves, mesh_name, devices=8):
  """Of a run that trains all of these: (gradients, state of the optimizer), shapes with shardings."""
  layout = meshes.get(mesh_name)
  mesh, rules = sharding.make_mesh(layout["axes"], jax.devices()[:devices]), layout["rules"]
  params = {n: jax.ShapeDtypeStruct(x.shape, jnp.float32) for n, x in leaves.items()}
  start = lambda params: (params, adam8bit.scale_by_adam8bit().init(params))
  params, opt_state = jax.eval_shape(start, sharding.unflatten(params))
  state = step.TrainState(0, params, opt_state, 0)
  where = saved.state_shardings(state, leaves, mesh, rules)
  return tuple(
    saved.with_shardings(x, y) for x, y in ((params, where.params), (opt_state, where.opt_state))
  )


@pytest.mark.parametrize("preset", ["paligemma-3b", "paligemma2-28b"])
def test_each_of_eight_devices_holds_an_eighth_of_moments_and_scales(preset):
  _, state = placed(tree.plain(variants.preset(preset)), "fsdp")
  whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  assert whole / 8 < plan.local_bytes(state) < 1.01 * whole / 8  # norms and biases are on each


def compiled(grads, state):
  where = jax.tree.map(lambda x: x.sharding, (grads, state))
  step = jax.jit(adam8bit.scale_by_adam8bit().update, in_shardings=where, out_shardings=where)
  return step.lower(grads, state).compile()


def test_no_device_asks_another_for_what_it_steps():
  leaves = tree.decoder(variants.DecoderConfig(512, 2, 1024, 4, 1, 256, 2048))
  leaves = {name: leaves[name] for name in (tree.TABLE, GATE, OUT)}
  text = compiled(*placed(leaves, "fsdp")).as_text()
  assert not re.findall("all-gather|all-reduce|all-to-all|collective-permute", text)


@pytest.mark.parametrize("mesh", ["fsdp", "fsdp=2,tensor=2"])
def test_the_moments_do_not_depend_on_the_devices(mesh, monkeypatch):
  monkeypatch.setattr(sharding, "AUTO_MIN_SIZE", 1)
  monkeypatch.setattr(adam8bit, "SMALLEST", 256)  # even where shards hold no whole blocks
  leaves = tree.plain(toy.config(vocab_size=1496))
  leaves = {name: leaves[name] for name in (tree.TABLE, GATE, OUT, "img/head/kernel")}
  rng = np.random.default_rng(0)
  # Half of them: XLA has a thread for each simulated device, and the leaves' all-gathers, which do not
  # depend on each other, may each hold some of the threads that the others wait for.
  grads, state = placed(leaves, mesh, devices=4)
  values = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), grads)

  def run(update, place):
    state = place(adam8bit.scale_by_adam8bit().init(values))
    for grads in (values, jax.tree.map(lambda x: -0.5 * x, values)):
      updates, state = update(place(grads), state)
    return updates, state

  where = jax.tree.map(lambda x: x.sharding, (grads, state))
  place = lambda x: jax.device_put(x, where[isinstance(x, adam8bit.State)])
  got = run(compiled(grads, state), place)
  want = run(jax.jit(adam8bit.scale_by_adam8bit().update), lambda x: x)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_checkpoint_of_the_state_goes_on_to_the_same_bits(tmp_path):
  tx = adam8bit.scale_by_adam8bit()
  rng, update = np.random.default_rng(0), jax.jit(tx.update)
  shape = (2, 2, 48, 96)
  grads = [sharding.unflatten({GATE: np.float32(rng.normal(size=shape))}) for _ in range(2)]
  _, state = update(grads[0], tx.init(grads[0]))
  as_tree = lambda x: saved.to_tree(step.TrainState(np.int32(1), grads[0], x, np.uint32([0, 0])))
  with orbax.Checkpointer(tmp_path) as checkpoints:
    checkpoints.save(1, as_tree(state), {}, {})
    checkpoints.wait()
    restored = checkpoints.restore(1, jax.eval_shape(lambda: as_tree(state)))
  again = saved.from_tree(restored, step.TrainState(0, grads[0], state, 0)).opt_state
  for a, b in zip(
    jax.tree.leaves(update(grads[1], again)), jax.tree.leaves(update(grads[1], state)), strict=True
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_that_goes_on_after_an_interruption_repeats_the_undisturbed_one(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path / "cache"))

  def interrupt(done, values):
    if done == 7:
      raise KeyboardInterrupt

  data = toy_run.write_data(tmp_path / "data")
  config = toy_run.config(data, mesh="single", **{"train.optimizer": "adam8bit"})
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  loop.train(config, whole)
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, parts, callbacks=[interrupt])
  loop.train(config, parts)
  leaves = [manifest.read(d / "checkpoints/12")["leaves"] for d in (whole, parts)]
  assert leaves[0] == leaves[1]  # dtype and checksum of every array
  assert leaves[0]["opt_state/1.mu.llm.embedder.input_embedding"][0] == "uint8"
  losses = [[x["loss"] for x in logs.read_metrics(d) if "loss" in x] for d in (whole, parts)]
  assert losses[0] == losses[1]
