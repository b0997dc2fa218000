"""Several processes that train as one."""

import signal
import sys

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop, processes
from tests.train import toy_run

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
@pytest.mark.parametrize("dying", [0, 1])
def test_the_death_of_one_process_ends_the_other_and_the_next_start_goes_on(tmp_path, dying):
  data = toy_run.write_data(tmp_path / "data")
  statuses = train_as_two(tmp_path / "run", data, "8", "SIGKILL", "fsdp", str(dying))
  assert statuses.pop(dying) == -signal.SIGKILL and statuses[0] not in (0, 75)
  assert formats.open(tmp_path / "run").meta["step"] == 5

  assert train_as_two(tmp_path / "run", data) == [0, 0]
  loop.train(toy_run.config(data), tmp_path / "one")
  np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "one"), rtol=1e-5)
