"""Several processes that train as one."""

import json
import signal
import sys

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.evals import predictions
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop, processes
from tests.train import mesh_run, toy_run

JAX = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
  "environ, tpu, found",
  [
    ({}, False, ""),
    (JAX, False, "jax"),
    (JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, False, ""),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False, ""),  # a batch script, outside srun
    ({"SLURM_STEP_NUM_TASKS": "4"}, False, "slurm"),
    ({"SLURM_STEP_NUM_TASKS": "1"}, False, ""),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, False, "ompi"),
    ({}, True, "tpu"),
    ({"JAX_PLATFORMS": "cpu"}, True, ""),
  ],
)
def test_who_started_several_processes(environ, tpu, found):
  assert processes.environment(environ, tpu) == found


@pytest.mark.parametrize(
  "change, message",
  [
    ({"JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS is set, but not JAX_PROCESS_ID"),
    ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES must be a number, found 'two'"),
  ],
)
def test_an_incomplete_environment_is_a_users_error(change, message):
  with pytest.raises(errors.UserError, match=message):
    processes.environment(JAX | change)


def train_as_two(workdir, data, *args) -> list[int]:
  """The toy run as two processes; their exit statuses."""
  command = [sys.executable, "-m", "tests.train.toy_run", str(workdir), str(data), *args]
  return toy_run.run_as_two(command)


def losses(workdir) -> list[float]:
  return [line["loss"] for line in logs.read_metrics(workdir) if "loss" in line]


@pytest.mark.slow
def test_two_processes_train_as_one_and_stop_together(tmp_path):
  data = toy_run.write_data(tmp_path / "data")
  loop.train(toy_run.config(data), tmp_path / "one")

  assert train_as_two(tmp_path / "two", data) == [0, 0]
  assert len(losses(tmp_path / "one")) == 12
  np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)

  # A SIGTERM to one of them ends both at the same step; one process goes on in their place.
  assert train_as_two(tmp_path / "cut", data, "6", "SIGTERM") == [75, 75]
  assert formats.open(tmp_path / "cut").meta["step"] in range(7, 12)
  loop.train(toy_run.config(data), tmp_path / "cut")
  np.testing.assert_allclose(losses(tmp_path / "cut"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_train_adapters_as_one(tmp_path):
  data = toy_run.write_data(tmp_path / "data")
  toy_run.write_base(data)
  loop.train(toy_run.adapters_config(data), tmp_path / "one")
  assert train_as_two(tmp_path / "two", data) == [0, 0]
  np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_the_death_of_one_process_ends_the_other_and_the_next_start_goes_on(tmp_path, dying):
  data = toy_run.write_data(tmp_path / "data")
  statuses = train_as_two(tmp_path / "run", data, "8", "SIGKILL", "fsdp", str(dying))
  assert statuses.pop(dying) == -signal.SIGKILL and statuses[0] not in (0, 75)
  assert formats.open(tmp_path / "run").meta["step"] == 5

  assert train_as_two(tmp_path / "run", data) == [0, 0]
  loop.train(toy_run.config(data), tmp_path / "one")
  np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.fixture(scope="module")
def in_one(tmp_path_factory):
  """(data, workdir) of the run of `mesh_run` in one process."""
  data, workdir = (tmp_path_factory.mktemp(name) / name for name in ("data", "one"))
  loop.train(mesh_run.config(mesh_run.write_data(data)), workdir)
  return data, workdir


def figures(workdir) -> dict[tuple, float]:
  """Losses and scores: (step, name) -> value."""
  found = [(line["step"], key, x) for line in logs.read_metrics(workdir) for key, x in line.items()]
  return {(step, key): x for step, key, x in found if key.startswith(("loss", logs.EVAL))}


def answers(workdir) -> dict[tuple, float | str]:
  """What the model said of every example: (evaluation, example) -> answer or nats."""
  found = {}
  for name in ("boxes", "chosen", "nll"):
    for row in map(json.loads, predictions.path(workdir, name).read_text().splitlines()):
      found[name, row["id"]] = row.get("prediction", row.get("nll_sum"))
  return found


@pytest.mark.slow
@pytest.mark.parametrize("layout", mesh_run.LAYOUTS)
def test_two_processes_are_as_one_in_whatever_order_the_mesh_has_them(layout, in_one, tmp_path):
  data, one = in_one
  two = tmp_path / "two"
  command = [sys.executable, "-m", "tests.train.mesh_run", str(two), str(data), layout]
  assert toy_run.run_as_two([*command, "2"], devices=2) == [75, 75]
  assert toy_run.run_as_two(command, devices=2) == [0, 0]  # from the checkpoint of both

  assert {key for _, key in figures(one)} >= {"loss/mine", "loss/boxes", "eval/nll/sum"}
  assert figures(two) == pytest.approx(figures(one), rel=1e-4)
  said, wanted = answers(two), answers(one)
  assert list(said) == list(wanted) and len(said) == 5 + 8 + 8
  for key, answer in wanted.items():
    assert said[key] == (answer if isinstance(answer, str) else pytest.approx(answer, rel=1e-4))
