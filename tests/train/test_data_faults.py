"""What becomes of a run when its data break under way: a picture, a worker process."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop
from tests.train import toy_run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
  monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
  return toy_run.write_data(tmp_path / "data")


def losses(workdir):
  return {line["step"]: line["loss"] for line in logs.read_metrics(workdir) if "loss" in line}


def test_a_run_goes_on_without_its_unreadable_pictures_up_to_a_bound(data, tmp_path):
  whole = (data / "3.png").read_bytes()
  (data / "3.png").write_bytes(whole[: len(whole) // 2])  # of lines 4 and 8; the header is whole
  run = lambda limit: loop.train(
    toy_run.config(data, steps=4, **{"input.max_unreadable": limit}), tmp_path / "run"
  )
  with pytest.raises(errors.UserError) as e:
    run(1)
  assert "train.jsonl:4: " in str(e.value) and "train.jsonl:8: " in str(e.value)
  scores = run(2)
  assert scores["val"]["unreadable"] == 2.0
  assert len(losses(tmp_path / "run")) == 4
  assert np.isfinite(list(losses(tmp_path / "run").values())).all()


def test_a_killed_data_worker_ends_the_run_and_the_next_one_continues_it(data, tmp_path):
  changes = {"checkpoint.every": 2, "evals.val.every": 1.0}
  loop.train(toy_run.config(data, **changes), tmp_path / "undisturbed")
  others = multiprocessing.active_children()

  def kill(done, values):
    if done == 2:
      (worker,) = (p for p in multiprocessing.active_children() if p not in others)
      os.kill(worker.pid, signal.SIGKILL)

  config = toy_run.config(data, **changes, **{"train.workers": 1})
  with pytest.raises(errors.RunError, match=r"data worker \d+ \(of 1\) was killed by signal 9"):
    loop.train(config, tmp_path / "run", callbacks=[kill])
  assert 2 <= formats.open(tmp_path / "run").meta["step"] < 12
  loop.train(config, tmp_path / "run")
  assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")
