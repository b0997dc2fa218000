"""The embedded default is killed again and again and ends with the same bits.

Three rounds here; PALIGEMMA_KILLS=50 asks for more, a quarter of an hour on two cores.
"""

import collections
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from paligemma_jax.checkpoint import formats
from paligemma_jax.train import log as logs

ROUNDS = int(os.environ.get("PALIGEMMA_KILLS", 3))
STEPS = max(20, 4 * ROUNDS)
STATUS = {"SIGTERM": 75, "SIGINT": 1, "SIGKILL": -signal.SIGKILL}
# What depends on the clock or on the process rather than on the step.
MEASURED = {
  "seconds_per_step", "examples_per_second", "tokens_per_second", "tflops_per_device", "data_wait",
  "device_wait", "compilations", "compile_seconds",
}  # fmt: skip


def train(workdir, kill=0, number="SIGKILL") -> int:
  """`paligemma train` on one device, in a process of its own; its exit status."""
  config = f"tests/train/digits_run.py:steps={STEPS},kill={kill},signal={number}"
  command = [sys.executable, "-m", "paligemma_jax", "train", "--config", config]
  run = subprocess.run(
    [*command, "--workdir", workdir], env=os.environ | {"XLA_FLAGS": ""},
    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert run.returncode in (0, STATUS[number]), run.stderr
  return run.returncode


def metrics(workdir) -> list[dict]:
  """Everything in metrics.jsonl that follows from the config."""
  lines = [{k: v for k, v in x.items() if k not in MEASURED} for x in logs.read_metrics(workdir)]
  # An evaluation stands beside the line of its step, before or after those of other evaluations.
  return sorted(lines, key=lambda x: (x["step"], sorted(x)))


@pytest.mark.slow
def test_kills_at_any_step_by_any_signal_leave_no_trace(tmp_path):
  rng = random.Random(0)
  steps = sorted(rng.choices(range(1, STEPS - 4), k=ROUNDS))
  signals = [list(STATUS)[i % len(STATUS)] for i in range(ROUNDS)]
  rng.shuffle(signals)
  rounds = collections.Counter()
  for step, number in zip(steps, signals):
    status = train(tmp_path / "killed", step, number)
    reached = logs.read_metrics(tmp_path / "killed")[-1]["step"]
    print(f"{number} at step {step}: status {status}, {reached} steps logged", flush=True)
    assert status == STATUS[number] and step <= reached < STEPS
    rounds[number] += 1
  assert train(tmp_path / "killed") == 0
  print(f"{dict(rounds)}, {STEPS} steps")

  assert train(tmp_path / "undisturbed") == 0
  found, wanted = metrics(tmp_path / "killed"), metrics(tmp_path / "undisturbed")
  assert {x["step"] for x in wanted if "loss" in x} == set(range(1, STEPS + 1))
  assert found == wanted
  killed, undisturbed = (formats.open(tmp_path / name) for name in ("killed", "undisturbed"))
  assert killed.meta["step"] == undisturbed.meta["step"] == STEPS
  for name in undisturbed.shapes:
    np.testing.assert_array_equal(killed.read(name), undisturbed.read(name), err_msg=name)
