import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore as ts
from orbax.checkpoint._src.serialization import ocdbt_utils

from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import checksum, formats, items, manifest, orbax, steps
from tests import toy
from tests.checkpoint import toys

ASSETS = {"tokenizer.model": b"t", "preprocessor_config.json": b"{}"}


def state_of(flat, step=3):
  params = sharding.unflatten({k: jnp.asarray(v) for k, v in flat.items()})
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3, mu_dtype=jnp.bfloat16))
  return {
    "params": params,
    "opt_state": tx.init(params),
    "step": jnp.int32(step),
    "rng": jax.random.key(7),
  }


def small(step):
  return {"params": {"w": jnp.arange(2000.0).reshape(2, 1000) * step}, "step": jnp.int32(step)}


def abstract(state, where=None):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state)


def save(directory, *steps, keep=3):
  with orbax.Checkpointer(directory, keep) as c:
    for step in steps:
      c.save(step, small(step), {"step": step}, ASSETS)


def bits_of(x):
  return toys.bits(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(bits_of(x), bits_of(y))


def test_a_whole_training_state_comes_back_to_the_bit(tmp_path):
  cfg = toy.config("paligemma2", sliding_window=5)
  flat = toy.flat_params(cfg)
  state = state_of(flat)
  meta = {"model": cfg.to_dict(), "step": 3, "data": {"position": 12}}
  with orbax.Checkpointer(tmp_path / "checkpoints") as c:
    c.save(3, state, meta, ASSETS)
    assert c.latest() == 3
    assert (c.meta(3), c.assets(3)) == (meta, ASSETS)
  with orbax.Checkpointer(tmp_path / "checkpoints") as c:
    assert c.latest() == 3
    assert_same(c.restore(3, abstract(state)), state)
  for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints/3"):
    source = formats.open(path)  # only the parameters are seen
    toys.assert_same(source, flat)
    assert (source.config, source.assets) == (cfg, ASSETS)
    assert source.meta == {"step": 3, "data": {"position": 12}}
    source.verify()


def test_values_are_those_before_donation(tmp_path):
  state = small(1)
  wanted = jax.tree.map(lambda x: np.array(x), state)
  with orbax.Checkpointer(tmp_path) as c:
    c.save(1, state, {}, {})
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)(state)
    c.wait()
    assert_same(c.restore(1, abstract(wanted)), wanted)


def test_streamed_tensors_take_turns_piece_by_piece_and_are_stored_as_whole_ones_are(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(orbax, "_CHUNK_BYTES", 4096)
  rng, asked = np.random.default_rng(0), []
  whole = {
    "layers": rng.normal(size=(3, 4, 64)).astype(np.float32),  # 1 kB a layer
    "table": rng.normal(size=(40, 64)).astype(np.float32),  # 10 kB: chunks of 20 x 32
    "scale": rng.normal(size=(64,)).astype("bfloat16"),
  }

  def streamed(name):
    def read(start, stop):
      asked.append((name, start, stop))
      return whole[name][start:stop]

    return items.Streamed(whole[name].shape, whole[name].dtype, read)

  with orbax.Checkpointer(tmp_path / "streamed", streamed=True) as c:
    c.save(1, {"params": {name: streamed(name) for name in whole}}, {}, ASSETS)
  assert asked == [
    ("layers", 0, 1), ("layers", 1, 2), ("layers", 2, 3), ("scale", 0, 64),
    ("table", 0, 20), ("table", 20, 40),
  ]  # fmt: skip
  with orbax.Checkpointer(tmp_path / "whole") as c:
    c.save(1, {"params": jax.tree.map(jnp.asarray, whole)}, {}, ASSETS)
  leaves = lambda name: manifest.read(tmp_path / name / "1")["leaves"]
  assert leaves("streamed") == leaves("whole")
  with orbax.Checkpointer(tmp_path / "streamed") as c:
    assert_same(c.restore(1, abstract({"params": whole})), {"params": whole})


def test_another_mesh_gets_the_same_state_and_the_same_checksums(tmp_path):
  specs = jax.sharding.PartitionSpec
  there = sharding.make_mesh({"a": 2, "b": 4})
  here = sharding.make_mesh({"a": 8})
  x = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
  y = jax.device_put(x, jax.sharding.NamedSharding(there, specs("a", "b")))
  with orbax.Checkpointer(tmp_path) as c:
    c.save(1, {"params": y}, {}, {})
    c.wait()
    onto = jax.sharding.NamedSharding(here, specs(None, "a"))
    found = c.restore(1, abstract({"params": y}, onto))["params"]
  assert found.sharding.is_equivalent_to(onto, 2)
  np.testing.assert_array_equal(np.asarray(found), x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8", "float16"])
def test_the_checksum_sees_every_change_and_no_sharding(dtype):
  x = np.random.default_rng(0).integers(0, 2, (8, 6)).astype(dtype)
  number = lambda x: int(checksum.leaves({"x": x})["x"][1])  # noqa: E731
  mesh = sharding.make_mesh({"a": 8})
  sharded = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a")))
  assert number(x) == number(jnp.asarray(x)) == number(sharded)
  swapped = x.copy()
  i, j = np.argwhere(x == x.max())[0], np.argwhere(x == x.min())[0]
  swapped[tuple(i)], swapped[tuple(j)] = x[tuple(j)], x[tuple(i)]
  changed = x.copy()
  changed[5, 2] = not changed[5, 2]
  assert len({number(x), number(swapped), number(changed)}) == 3


def test_only_the_newest_are_kept(tmp_path):
  save(tmp_path, 1, 2, 3, 4, keep=2)
  assert manifest.steps(tmp_path) == [4, 3]


def test_a_step_that_is_complete_is_not_written_again(tmp_path):
  save(tmp_path, 1)
  before = (tmp_path / "1" / manifest.NAME).stat().st_mtime_ns
  save(tmp_path, 1)
  assert (tmp_path / "1" / manifest.NAME).stat().st_mtime_ns == before


@pytest.mark.parametrize("said", [True, False])
def test_of_several_processes_the_first_says_whether_a_step_is_there(said, tmp_path, monkeypatch):
  save(tmp_path, 5)
  before = (tmp_path / "5" / manifest.NAME).stat().st_mtime_ns
  monkeypatch.setattr(orbax.exchange, "of_first", lambda seen: said)  # what this one sees is True
  save(tmp_path, 5)
  assert ((tmp_path / "5" / manifest.NAME).stat().st_mtime_ns == before) is said


def data_file(step):
  return max(
    (p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
  )


def flip(step):
  path = data_file(step)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 16
  path.write_bytes(data)


def truncate(step):
  data_file(step).write_bytes(data_file(step).read_bytes()[:-1])


DAMAGES = {
  "flipped bit": (flip, "CRC-32 does not fit"),
  "truncated": (truncate, "bytes instead of"),
  "missing file": (lambda step: data_file(step).unlink(), "has no bytes instead of"),
  "missing asset": (lambda step: (step / "assets/tokenizer.model").unlink(), "has no bytes"),
  "no manifest": (lambda step: (step / manifest.NAME).unlink(), "its save was not finished"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_passed_over_with_a_warning_and_written_again(tmp_path, damage, caplog):
  spoil, said = DAMAGES[damage]
  save(tmp_path, 1, 2)
  spoil(tmp_path / "2")
  with orbax.Checkpointer(tmp_path, keep=1) as c:
    with caplog.at_level(logging.WARNING):
      assert c.latest() == 1
    assert said in caplog.text and "Using step 1" in caplog.text and "/2 cannot" in caplog.text
    with pytest.raises(errors.UserError, match=said):
      c.restore(2, abstract(small(2)))
    assert_same(c.restore(1, abstract(small(1))), small(1))
    c.save(2, small(2), {}, ASSETS)
    assert c.latest() == 2
  assert manifest.steps(tmp_path) == [2]


def test_a_damaged_newer_step_does_not_push_out_a_good_older_one(tmp_path):
  save(tmp_path, 1, 9)
  flip(tmp_path / "9")
  with orbax.Checkpointer(tmp_path, keep=1) as c:
    assert c.latest() == 1
    c.save(5, small(5), {}, {})
    assert c.latest() == 5
  assert manifest.steps(tmp_path) == [5]


def test_wrong_numbers_behind_right_bytes_are_noticed_leaf_by_leaf(tmp_path):
  save(tmp_path, 1)
  path = tmp_path / "1" / manifest.NAME
  stored = json.loads(path.read_text())
  stored["leaves"]["params/w"][1] ^= 1
  path.write_text(json.dumps(stored))
  with orbax.Checkpointer(tmp_path) as c:
    with pytest.raises(errors.UserError, match="params/w is not what was saved"):
      c.restore(1, abstract(small(1)))


def test_another_structure_or_shape_is_a_users_error(tmp_path):
  save(tmp_path, 1)
  with orbax.Checkpointer(tmp_path) as c:
    wider = small(1) | {"params": {"w": jnp.zeros((2, 1001))}}
    more = small(1) | {"params": {"w": jnp.zeros((2, 1000)), "v": jnp.zeros(3)}}
    for other in (wider, more):
      with pytest.raises(errors.UserError, match="does not fit this run"):
        c.restore(1, abstract(other))


def test_no_step_at_all(tmp_path):
  with orbax.Checkpointer(tmp_path) as c:
    assert c.latest() is None
  with pytest.raises(errors.UserError, match="holds no checkpoint"):
    formats.open(tmp_path)


def test_a_damaged_step_is_an_error_when_its_parameters_are_loaded(tmp_path):
  cfg, _ = toys.write(tmp_path / "x", format="orbax")
  flip(tmp_path / "x/0")
  with pytest.raises(errors.UserError, match="0(: .* is damaged| cannot be used.*CRC-32)"):
    formats.load_params(formats.open(tmp_path / "x"), cfg)


@pytest.mark.parametrize("name", ["meta/metadata", "state/_METADATA", "state/manifest.ocdbt"])
def test_a_step_whose_description_is_damaged_is_named(tmp_path, name):
  toys.write(tmp_path / "x", format="orbax")
  path = tmp_path / "x/0" / name
  path.write_bytes(b"\xff" * path.stat().st_size)
  with pytest.raises(errors.UserError, match=r"x/0 is damaged \(.*Choose another step"):
    formats.open(tmp_path / "x")


@pytest.mark.parametrize(
  "change",
  [
    lambda m: [],
    lambda m: {"files": m["files"]},
    lambda m: m | {"leaves": 3},
    lambda m: m | {"files": {"a": 3}},
    lambda m: m | {"files": {"a": [3, "x"]}},
  ],
)
def test_a_manifest_of_another_form_is_none(tmp_path, change):
  toys.write(tmp_path / "x", format="orbax")
  path = tmp_path / "x/0" / manifest.NAME
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  assert "no manifest.json that can be read" in manifest.problem(path.parent, thorough=False)


def test_a_failed_save_is_raised_by_the_next_call(tmp_path, monkeypatch):
  def write(*_):
    raise OSError("disk full")

  c = orbax.Checkpointer(tmp_path)
  monkeypatch.setattr(manifest, "write", write)
  c.save(1, small(1), {}, {})
  with pytest.raises(OSError, match="disk full"):
    c.wait()
  c.close()


KILLED = textwrap.dedent("""
  import sys, jax.numpy as jnp
  from paligemma_jax.checkpoint import orbax
  c = orbax.Checkpointer(sys.argv[1], keep=2)
  for step in range((c.latest() or 0) + 1, 10**6):
    w = jnp.full((64, 4096), step, jnp.float32)
    c.save(step, {"params": {"w": w}}, {"step": step}, {"a": b"b"})
    print(step, flush=True)  # the save before this one is complete
""")


@pytest.mark.slow
def test_killed_at_any_moment_the_newest_complete_step_is_used(tmp_path):
  rng = np.random.default_rng(0)
  complete = 0
  for _ in range(10):
    process = subprocess.Popen(
      [sys.executable, "-c", KILLED, str(tmp_path)],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
    )
    for _ in range(rng.integers(1, 4)):
      complete = max(complete, int(process.stdout.readline()) - 1)
    time.sleep(rng.uniform(0, 0.3))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with orbax.Checkpointer(tmp_path, keep=2) as c:
      step = c.latest()
      if not complete and step is None:
        continue
      assert step >= complete  # no complete step is ever lost
      complete = step
      found = c.restore(step, {"params": {"w": jax.ShapeDtypeStruct((64, 4096), jnp.float32)}})
      np.testing.assert_array_equal(np.asarray(found["params"]["w"]), np.float32(step))
      assert c.meta(step) == {"step": step}
  assert complete > 3


def test_a_moving_average_is_what_is_read_of_the_parameters_that_it_covers(tmp_path):
  flat = toy.flat_params(toy.config())
  average = {name: flat[name] + 1 for name in flat if name.startswith("llm/layers/attn/")}
  state = state_of(flat) | {"ema": sharding.unflatten(average)}
  with orbax.Checkpointer(tmp_path) as c:
    c.save(3, state, {"model": toy.config().to_dict()}, ASSETS)
  toys.assert_same(formats.open(tmp_path), {**flat, **average})


@pytest.mark.parametrize(
  "name", ["run[1]", "run[!1]", "a*b", "a?b", "{x}", "a b", "%2F", "~", "-x", "a/../b", "gs:x", "é"]
)
def test_a_folder_of_any_name_holds_steps_that_can_be_read(tmp_path, name):
  (tmp_path / "aXb/checkpoints/1.orbax-checkpoint-tmp/state/ocdbt.process_0").mkdir(parents=True)
  (tmp_path / "a").mkdir()
  orbax.check_place(tmp_path / name / "checkpoints")
  save(tmp_path / name / "checkpoints", 1)
  with orbax.Checkpointer(tmp_path / name / "checkpoints") as c:
    assert c.latest() == 1
    assert_same(c.restore(1, abstract(small(1))), small(1))
  assert steps.open_arrays(tmp_path / name / "checkpoints/1/state")["params/w"].shape == (2, 1000)


@pytest.mark.parametrize("name", ["a\\b", "\udcff", "gs:"])
def test_a_name_that_the_writer_takes_for_another_is_refused_before_anything_is_written(
  tmp_path, name
):
  for use in (orbax.check_place, orbax.Checkpointer):
    with pytest.raises(errors.UserError, match="cannot be kept in a folder of this name") as e:
      use(tmp_path / name)
    assert str(e.value).isascii() and "\n" not in str(e.value)
  with pytest.raises(errors.UserError, match="cannot be kept in a folder of this name"):
    toys.write(tmp_path / name / "x", format="orbax")
  assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_a_place_is_tried_and_left_as_it_was(tmp_path):
  orbax.check_place(tmp_path / "new/checkpoints")
  save(tmp_path / "old", 1)
  before = sorted(tmp_path.rglob("*"))
  orbax.check_place(tmp_path / "old")
  assert sorted(tmp_path.rglob("*")) == before
  assert not (tmp_path / "new/checkpoints").exists()


def test_a_place_that_cannot_be_written_to_is_a_users_error(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="nothing can be written there .Not a directory"):
    orbax.check_place(tmp_path / "file/checkpoints")


async def _nothing(*_, **__):
  pass


def lose_the_merge(patch):
  patch.setattr(ocdbt_utils, "merge_ocdbt_per_process_files", _nothing)


def test_a_step_that_cannot_be_read_again_does_not_count(tmp_path, monkeypatch):
  lose_the_merge(monkeypatch)
  c = orbax.Checkpointer(tmp_path)
  c.save(1, small(1), {}, {})
  with pytest.raises(errors.RunError, match="1 was written but cannot be read again .NOT_FOUND"):
    c.wait()
  assert not (tmp_path / "1" / manifest.NAME).exists() and c.latest() is None
  c.close()
  with pytest.raises(errors.UserError, match="that was tried there cannot be written or read"):
    orbax.check_place(tmp_path / "other")


def test_every_piece_of_every_array_is_looked_for(tmp_path):
  save(tmp_path, 1)
  state, shapes = tmp_path / "1/state", {"params/w": (2, 1000), "step": ()}
  assert steps.unreadable(state, shapes) is None
  assert steps.unreadable(state, {"step": (1,)}) == "step has shape () instead of (1,)"
  assert "NOT_FOUND" in steps.unreadable(state, shapes | {"params/v": ()})
  kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}
  ts.KvStore.open(kvstore).result().write("step/0", None).result()
  assert steps.unreadable(state, shapes) == "step has 0 pieces instead of 1"
