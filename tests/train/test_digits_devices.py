"""The first steps of the embedded default, however they are shared out: the losses of one device.

`python -m tests.train.test_digits_devices` prints the largest relative deviation of each way.
"""

import pathlib
import sys
import tempfile

import jax
import numpy as np
import pytest

from paligemma_jax.train import log as logs
from paligemma_jax.train import loop
from tests.train import digits_run, toy_run

STEPS = 20
ONE = ("single", 1)
WAYS = [("single", 2), ("single", 4), ("data", 1), ("fsdp", 1), ("fsdp_tensor", 1)]


def losses(workdir) -> np.ndarray:
  """float64[STEPS], as metrics.jsonl has them."""
  return np.array([line["loss"] for line in logs.read_metrics(workdir)])


def train(workdir, mesh: str, accumulate: int) -> np.ndarray:
  """The losses of one process, in float32, over one or eight devices."""
  c = digits_run.get_config(f"steps={STEPS},evals=no")
  c.mesh, c.train.accumulate, c.model.dtype = mesh, accumulate, "float32"
  loop.train(c, workdir)
  return losses(workdir)


def train_as_two(workdir) -> np.ndarray:
  """The losses of two processes with four devices each."""
  config = f"tests/train/digits_run.py:steps={STEPS},evals=no"
  command = [sys.executable, "-m", "paligemma_jax", "train", "--config", config]
  assert toy_run.run_as_two([*command, "--workdir", str(workdir)]) == [0, 0]
  return losses(workdir)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  return train(tmp_path_factory.mktemp("one"), *ONE)


@pytest.mark.slow
@pytest.mark.parametrize("mesh, accumulate", WAYS)
def test_pieces_and_meshes_have_the_losses_of_one_device(one, mesh, accumulate, tmp_path):
  assert len(jax.devices()) == 8 and len(one) == STEPS
  np.testing.assert_allclose(train(tmp_path, mesh, accumulate), one, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_device(one, tmp_path):
  np.testing.assert_allclose(train_as_two(tmp_path), one, rtol=1e-5)


if __name__ == "__main__":
  folder = pathlib.Path(tempfile.mkdtemp())
  wanted = train(folder / "one", *ONE)
  ways = {f"{mesh}, accumulate {n}": lambda to, w=(mesh, n): train(to, *w) for mesh, n in WAYS}
  for i, (name, run) in enumerate({**ways, "two processes": train_as_two}.items()):
    deviation = np.abs(run(folder / str(i)) / wanted - 1)
    print(f"{name}: {deviation.max():.1e} at step {deviation.argmax() + 1}", flush=True)
