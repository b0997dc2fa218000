"""Several processes that train as one."""

import os
import socket
import subprocess
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
  """The toy run as two processes of four devices each; their exit statuses."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  common = os.environ | {
    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
    "JAX_NUM_PROCESSES": "2",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
  }
  command = [sys.executable, "-m", "tests.train.toy_run", str(workdir), str(data), *args]
  started = [subprocess.Popen(command, env=common | {"JAX_PROCESS_ID": str(i)}) for i in range(2)]
  try:
    return [process.wait(timeout=300) for process in started]
  finally:
    for process in started:
      process.kill()


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
