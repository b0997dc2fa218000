"""A run whose workdir is `gs://bucket/run`: the same as on this machine, stopped and gone on with."""

import json
import os
import re

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.cli import main
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop
from tests import gcs
from tests.train import toy_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy_run.write_data(tmp_path_factory.mktemp("data"))


def config(data):
  """Keeps what scored best and the newest two of the checkpoints 4, 8 and 12."""
  best = {"checkpoint.every": 4, "checkpoint.keep": 2, "checkpoint.best": "val/exact_match"}
  return toy_run.config(data, mesh="single", **best)


@pytest.fixture(scope="module")
def local(data, tmp_path_factory):
  """The workdir of a run from beginning to end on this machine."""
  workdir = tmp_path_factory.mktemp("run") / "run"
  loop.train(config(data), workdir)
  return workdir


@pytest.fixture(scope="module")
def bucket(data):
  """A bucket with `run`, which was interrupted after step 7 and gone on with."""
  bucket = gcs.bucket()

  def interrupt(done, values):
    if done == 7:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(config(data), f"gs://{bucket}/run", callbacks=[interrupt])
  assert logs.read_metrics(f"gs://{bucket}/run")[-1]["step"] == 7
  loop.train(config(data), f"gs://{bucket}/run")
  return bucket


def params(workdir):
  source = formats.open(workdir)
  assert source.meta["step"] == 12
  source.verify()
  return {name: source.read(name) for name in source.shapes}


def test_it_ends_with_the_bits_and_metrics_of_a_run_on_this_machine(bucket, local):
  got, want = params(f"gs://{bucket}/run"), params(local)
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)

  def read(workdir):
    is_exact = lambda key: key in ("step", "loss", "lr", "l2_grads") or key.startswith("eval/")
    lines = [{k: v for k, v in x.items() if is_exact(k)} for x in logs.read_metrics(workdir)]
    return sorted(lines, key=lambda x: (x["step"], "loss" in x))

  assert read(f"gs://{bucket}/run") == read(local)


def test_it_holds_what_a_workdir_holds_with_parts_for_what_grows(bucket, local):
  found = gcs.objects(bucket)
  names = {re.sub(r"^run/|/[^/]*tfevents.*", "", name) for name in found}
  top = {name for name in names if "checkpoints/" not in name}
  assert top == {
    "config.json", "metrics-00000.jsonl", "metrics-00001.jsonl", "predictions/val.jsonl",
    "report.html", "runs-00000.jsonl", "runs-00001.jsonl", "tensorboard",
  }  # fmt: skip
  for name in ("config.json", "predictions/val.jsonl"):
    assert found[f"run/{name}"] == (local / name).read_bytes()
  assert b"<h1>run</h1>" in found["run/report.html"] and b"<svg" in found["run/report.html"]
  starts = [json.loads(found[f"run/runs-0000{i}.jsonl"])["step"] for i in (0, 1)]
  assert starts == [0, 6]  # where `val` was scored, which makes a checkpoint
  events = [name for name in found if "tfevents" in name]
  assert len(events) == 2 and all(len(found[name]) > 1000 for name in events)
  steps = {name.split("/")[2] for name in found if name.startswith("run/checkpoints/")}
  assert steps == {p.name for p in (local / "checkpoints").iterdir()}


def test_a_finished_run_is_reported_and_left_alone(bucket, data, capsys):
  before = gcs.generations(bucket)
  scores = loop.train(config(data), f"gs://{bucket}/run")
  assert f"gs://{bucket}/run is finished (12 steps)" in capsys.readouterr().out
  assert scores["val"].keys() >= {"exact_match"}
  assert gcs.generations(bucket) == before


def test_another_config_is_refused(bucket, data):
  with pytest.raises(errors.UserError, match=rf"gs://{bucket}/run/config.json was made with anoth"):
    loop.train(toy_run.config(data, steps=13), f"gs://{bucket}/run")


def test_a_step_that_was_cut_off_is_passed_over_and_written_again(data, bucket, local):
  copy = gcs.bucket()
  for name, content in gcs.objects(bucket).items():
    if name not in ("run/checkpoints/12/manifest.json", "run/report.html"):
      gcs.put(copy, name, content)
  loop.train(config(data), f"gs://{copy}/run")
  assert "run/checkpoints/12/manifest.json" in gcs.objects(copy)
  got, want = params(f"gs://{copy}/run"), params(local)
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def call(*argv) -> None:
  assert main.main([str(a) for a in argv]) == 0


def test_commands_read_it_as_any_other_workdir(bucket, data, tmp_path, capsys):
  url = f"gs://{bucket}/run"
  call("inspect", url)
  assert "step        12" in re.sub(r" +", lambda m: m[0][:8], capsys.readouterr().out)
  call("convert", f"{url}/checkpoints/12", tmp_path / "mine.npz")
  np.testing.assert_array_equal(
    formats.open(tmp_path / "mine.npz").read("llm/final_norm/scale"),
    formats.open(url).read("llm/final_norm/scale"),
  )
  lines = f"{data}/train.jsonl"
  keys = (
    "--config.evals.val.max_new_tokens=4",
    "--config.evals.val.batch_size=8",
    "--config.mesh=single",
  )
  source = f"transfers/forkme.py:train={lines},val={lines},init={url},text_len=16"
  settings = ("--config", source, *keys)
  call("eval", *settings, "--ckpt", url, "--workdir", f"{url}/eval")
  assert json.loads(gcs.objects(bucket)["run/eval/metrics.json"])["val"]
  assert gcs.objects(bucket)["run/eval/predictions/val.jsonl"].count(b"\n") == 8
  call("eval", *settings, "--ckpt", url, "--workdir", f"{url}/eval")
  assert "forkme: evaluated before, scores kept" in capsys.readouterr().out


def test_what_cannot_be_done_there_is_told_in_one_line(bucket, data, local, tmp_path):
  with pytest.raises(errors.UserError, match="gs://nowhere: there is no such bucket"):
    loop.train(toy_run.config(data), "gs://nowhere/run")
  with pytest.raises(errors.UserError, match="must be a path of this machine or gs://BUCKET"):
    loop.train(toy_run.config(data), "s3://bucket/run")
  with pytest.raises(errors.UserError, match="copy other checkpoints to this machine first"):
    formats.open(f"gs://{bucket}/pt_224.npz")
  with pytest.raises(errors.UserError, match="write to a folder of this machine"):
    formats.convert(local, f"gs://{bucket}/converted", to="orbax")
  assert os.listdir(tmp_path) == []
