"""The whole loop on toy data: what a workdir holds, and that stopping leaves no trace."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.data import pipeline
from paligemma_jax.evals import runner
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop, settings
from tests.train import toy_run

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return toy_run.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
  """(workdir, what the callback saw, returned scores) of a run from beginning to end."""
  workdir, seen = tmp_path_factory.mktemp("run") / "workdir", []
  scores = loop.train(
    toy_run.config(data), workdir, callbacks=[lambda step, values: seen.append((step, values))]
  )
  return workdir, seen, scores


def final_params(workdir):
  source = formats.open(workdir)
  assert source.meta["step"] == 12
  return {name: source.read(name) for name in source.shapes}


def assert_same_run(workdir, wanted):
  got, want = final_params(workdir), final_params(wanted)
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)
  losses = lambda d: [(x["step"], x["loss"]) for x in logs.read_metrics(d) if "loss" in x]
  assert losses(workdir) == losses(wanted)
  scores = lambda d: [
    {k: v for k, v in x.items() if k == "step" or k.startswith("eval/")}
    for x in logs.read_metrics(d)
    if "loss" not in x
  ]
  assert scores(workdir) == scores(wanted)


def test_a_workdir_holds_everything(undisturbed):
  workdir, seen, scores = undisturbed
  assert [step for step, _ in seen] == list(range(1, 13))
  losses = [values["loss"] for _, values in seen]
  assert losses[-1] < 0.5 * losses[0]
  assert seen[0][1]["lr"] == 0.0  # the first step of the warmup

  lines = logs.read_metrics(workdir)
  assert [x["step"] for x in lines if "loss" in x] == list(range(1, 13))
  assert [x["step"] for x in lines if "eval/val/exact_match" in x] == [6, 12]
  compiled = [x["compilations"] for x in lines if "loss" in x]
  assert 0 < compiled[0] == compiled[2] < compiled[-1]  # the evaluation's programs come later
  assert scores["val"]["exact_match"] == lines[-1]["eval/val/exact_match"]
  assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"5", "10", "12"}
  predictions = (workdir / "predictions/val.jsonl").read_text().splitlines()
  assert len(predictions) == 8 and "prediction" in json.loads(predictions[0])
  assert "<svg" in (workdir / "report.html").read_text()
  assert json.loads((workdir / settings.CONFIG).read_text())["train"]["optimizer"] == "adam"
  assert "tokenizer.model" in formats.open(workdir).assets


def test_a_finished_workdir_is_left_alone(undisturbed, data, capsys):
  workdir, _, scores = undisturbed
  files = lambda: {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
  before = files()
  assert loop.train(toy_run.config(data), workdir) == scores
  assert "is finished (12 steps)" in capsys.readouterr().out
  assert files() == before


@pytest.mark.parametrize("step", [7, *(pytest.param(s, marks=pytest.mark.slow) for s in (3, 12))])
def test_going_on_after_an_interruption_repeats_the_undisturbed_run(
  undisturbed, data, tmp_path, step
):
  def interrupt(done, values):
    if done == step:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(toy_run.config(data), tmp_path, callbacks=[interrupt])
  loop.train(toy_run.config(data), tmp_path)
  assert_same_run(tmp_path, undisturbed[0])


@pytest.mark.slow
def test_going_on_with_another_mesh_gives_the_same_curve(undisturbed, data, tmp_path):
  workdir, seen, _ = undisturbed
  shutil.copytree(workdir, tmp_path / "copy")
  shutil.rmtree(tmp_path / "copy/checkpoints/12")
  got = []
  config = toy_run.config(data, mesh="single")
  loop.train(config, tmp_path / "copy", callbacks=[lambda step, x: got.append((step, x["loss"]))])
  assert [step for step, _ in got] == [11, 12]
  want = [values["loss"] for _, values in seen[10:]]
  np.testing.assert_allclose([loss for _, loss in got], want, rtol=1e-5)


def test_sigterm_saves_and_asks_to_be_run_again(undisturbed, data, tmp_path):
  ask = lambda done, values: os.kill(os.getpid(), signal.SIGTERM) if done == 7 else None
  with pytest.raises(SystemExit) as e:
    loop.train(toy_run.config(data), tmp_path, callbacks=[ask])
  assert e.value.code == 75
  assert formats.open(tmp_path).meta["step"] in (8, 9)
  loop.train(toy_run.config(data), tmp_path)
  assert_same_run(tmp_path, undisturbed[0])


@pytest.mark.slow
def test_sigterm_amid_an_evaluation_saves_and_leaves_it_to_the_next_start(
  undisturbed, data, tmp_path, monkeypatch
):
  def asked(*args, **options):
    os.kill(os.getpid(), signal.SIGTERM)  # before the first batch
    return pipeline.eval_batches(*args, **options)

  with monkeypatch.context() as patch:
    patch.setattr(runner, "pipeline", types.SimpleNamespace(eval_batches=asked))
    with pytest.raises(SystemExit) as e:
      loop.train(toy_run.config(data), tmp_path)
  assert e.value.code == 75
  assert formats.open(tmp_path).meta["step"] == 6
  assert logs.read_metrics(tmp_path)[-1]["step"] == 6
  assert not any("eval/" in key for line in logs.read_metrics(tmp_path) for key in line)
  loop.train(toy_run.config(data), tmp_path)
  assert_same_run(tmp_path, undisturbed[0])


@pytest.mark.slow
def test_sigterm_between_the_last_evaluations_keeps_the_scores_of_the_first(
  data, tmp_path, monkeypatch
):
  config = toy_run.config(data, steps=2)
  config.evals.val_again = config.evals.val.copy_and_resolve_references()
  opened = []

  def asked(source, *args, **options):
    opened.append(len(opened))
    if len(opened) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return pipeline.eval_batches(source, *args, **options)

  monkeypatch.setattr(runner, "pipeline", types.SimpleNamespace(eval_batches=asked))
  config.evals.val.every = config.evals.val_again.every = 1.0
  with pytest.raises(SystemExit) as e:
    loop.train(config, tmp_path)
  assert e.value.code == 75
  kept = logs.read_metrics(tmp_path)[-1]
  assert kept["step"] == 2 and "eval/val/exact_match" in kept
  scores = loop.train(config, tmp_path)
  assert scores.keys() == {"val", "val_again"} and len(opened) == 3  # "val" is not done again
  assert scores["val"] == scores["val_again"]


def spoil(step, how):
  """Damages the largest file of a checkpoint's arrays."""
  path = max(
    (p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
  )
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 16
  if how == "missing":
    path.unlink()
  else:
    path.write_bytes(data if how == "flipped" else data[: len(data) // 2])


def contents(folder):
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
  undisturbed, data, tmp_path, how, caplog
):
  workdir = shutil.copytree(undisturbed[0], tmp_path / "copy")
  shutil.rmtree(workdir / "checkpoints/12")
  spoil(workdir / "checkpoints/10", how)
  loop.train(toy_run.config(data), workdir)
  assert "checkpoints/10 cannot be used" in caplog.text and "Using step 5" in caplog.text
  assert_same_run(workdir, undisturbed[0])


def test_without_an_undamaged_checkpoint_the_run_stops_and_changes_nothing(
  undisturbed, data, tmp_path, caplog
):
  workdir = shutil.copytree(undisturbed[0], tmp_path / "copy")
  for step in (5, 10, 12):
    spoil(workdir / f"checkpoints/{step}", "flipped")
  before = contents(workdir)
  with pytest.raises(errors.UserError, match="every checkpoint in .* is damaged"):
    loop.train(toy_run.config(data), workdir)
  assert all(f"checkpoints/{step} cannot be used" in caplog.text for step in (5, 10, 12))
  assert contents(workdir) == before


@pytest.mark.slow
def test_an_evaluation_that_was_cut_off_is_done_again(undisturbed, data, tmp_path):
  loop.train(toy_run.config(data), tmp_path)
  lines = (tmp_path / logs.METRICS).read_text().splitlines(keepends=True)
  (tmp_path / logs.METRICS).write_text("".join(lines[:-1]))  # without the scores of step 12
  (tmp_path / "report.html").unlink()
  loop.train(toy_run.config(data), tmp_path)
  assert_same_run(tmp_path, undisturbed[0])
  assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_diverging_run_stops_and_keeps_its_last_good_checkpoint(data, tmp_path):
  changes = {"train.optimizer": "sgd", "train.lr": 1e30, "train.grad_clip_norm": 0.0}
  with pytest.raises(errors.UserError, match=r"step \d+: .* is (nan|inf), the training diverged"):
    loop.train(toy_run.config(data, **changes, **{"checkpoint.every": 1}), tmp_path)
  source = formats.open(tmp_path)
  assert all(np.isfinite(source.read(name)).all() for name in source.shapes)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"train.batch_size": 12}, "batch_size 12 is not divisible by 8 devices"),
    ({"train.data.mine.path": "nowhere.jsonl"}, "nowhere.jsonl"),
    ({"input.tokenizer": "nowhere"}, "nowhere"),
    ({"input.text_len": 4}, "text_len"),
    ({"model.init": "nowhere.npz"}, "nowhere.npz does not exist"),
    ({"checkpoint.best": "vall/exact_match"}, 'did you mean "val"'),
    ({"train.patience": 2}, "train.patience needs checkpoint.best"),
    ({"train.freeze": ("image/.*",)}, '"image/.*" matches no whole parameter name'),
  ],
)
def test_mistakes_stop_before_anything_is_written(data, tmp_path, changes, message):
  with pytest.raises(errors.UserError, match=re.escape(message)):
    loop.train(toy_run.config(data, **changes), tmp_path / "workdir")
  assert not (tmp_path / "workdir").exists()


def test_a_fine_tune_starts_from_a_checkpoint_and_trains_what_the_recipe_says(
  undisturbed, data, tmp_path
):
  changes = {"model.init": str(undisturbed[0]), "model.preset": "", "input.tokenizer": ""}
  # On one device: all-gathers of frozen parameters can wait for each other for ever on simulated ones.
  changes |= {"train.recipe": "head_only", "train.lr": 0.0, "mesh": "single"}
  loop.train(toy_run.config(data, **changes), tmp_path)
  before, after = final_params(undisturbed[0]), final_params(tmp_path)
  moved = {name for name in before if not np.array_equal(before[name], after[name])}
  assert moved == {"img/head/kernel", "img/head/bias"}


def test_a_picture_that_breaks_off_weighs_nothing_is_counted_and_has_a_bound(
  data, tmp_path, capsys
):
  shutil.copytree(data, tmp_path / "data")
  picture = tmp_path / "data/3.png"
  picture.write_bytes(picture.read_bytes()[:-200])
  changes = {"train.steps": 2, "evals": {}}
  loop.train(toy_run.config(tmp_path / "data", **changes), tmp_path / "run")
  assert logs.read_metrics(tmp_path / "run")[-1]["unreadable"] == 2  # records that show it
  assert "weight 0 for an unreadable picture: " in capsys.readouterr().err
  changes["input.max_unreadable"] = 0
  with pytest.raises(errors.UserError, match="more than input.max_unreadable=0 allows"):
    loop.train(toy_run.config(tmp_path / "data", **changes), tmp_path / "stopped")


@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_early_and_keeps_its_best_checkpoint(data, tmp_path, capsys):
  changes = {"train.lr": 1e-12, "train.patience": 2, "evals.val.every": 0.25}  # every 3 steps
  changes |= {"checkpoint.best": "val/exact_match", "checkpoint.keep": 1, "checkpoint.every": 100}
  loop.train(toy_run.config(data, **changes), tmp_path)
  steps = lambda: sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert steps() == [3, 9]  # the first of the best, and the last
  said = capsys.readouterr().err
  assert "step 3 was the best" in said and said.count("parameters split over fsdp 8: ") == 1

  loop.train(toy_run.config(data, **changes), tmp_path)
  assert "is finished (9 steps)" in capsys.readouterr().out and steps() == [3, 9]


def test_a_workdir_that_cannot_be_served_is_refused_before_the_first_step(
  data, tmp_path, monkeypatch
):
  (tmp_path / "taken").mkdir()
  (tmp_path / "taken/checkpoints").touch()
  for name, words in (("taken", "Not a directory"), ("a\\b", "in a folder of this name")):
    with pytest.raises(errors.UserError, match=words):
      loop.train(toy_run.config(data), tmp_path / name)
  usage = types.SimpleNamespace(free=10_000_000)
  monkeypatch.setattr(loop.shutil, "disk_usage", lambda _: usage)
  words = r"No space left on device: a checkpoint takes up to 27.8 MB, 10.0 MB are free"
  with pytest.raises(errors.UserError, match=words):
    loop.train(toy_run.config(data), tmp_path / "full")
  assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == [
    "taken",
    "taken/checkpoints",
  ]


def test_a_second_start_is_refused_and_changes_nothing_while_the_first_lives(data, tmp_path):
  refused = []

  def again(done, values):
    if done == 2:
      files = lambda: {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
      before = files()
      with pytest.raises(errors.UserError) as e:
        loop.train(toy_run.config(data), tmp_path)
      refused.append(str(e.value))
      assert files() == before

  changes = {"train.steps": 2, "checkpoint.every": 1, "evals": {}}
  loop.train(toy_run.config(data, **changes), tmp_path, callbacks=[again])
  assert len(refused) == 1
  assert re.search(
    rf"another run is at work in this workdir .host .+, process {os.getpid()}, ", refused[0]
  )
  assert [x["step"] for x in logs.read_metrics(tmp_path)] == [1, 2]
  assert not (tmp_path / "owner.json").exists()


def test_data_that_changed_under_a_run_stop_it_unless_it_is_told_to_go_on(data, tmp_path):
  shutil.copytree(data, tmp_path / "data")
  changes = {"checkpoint.every": 1, "evals": {}, "train.steps": 3}
  config = lambda **more: toy_run.config(tmp_path / "data", **changes, **more)

  def interrupt(done, values):
    if done == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(config(), tmp_path / "run", callbacks=[interrupt])
  lines = (tmp_path / "data/train.jsonl").read_text().splitlines()
  (tmp_path / "data/train.jsonl").write_text("\n".join(lines[::-1]) + "\n")
  before = contents(tmp_path)
  with pytest.raises(errors.UserError, match="the data have changed; .*\n.*\n  train.data.mine"):
    loop.train(config(), tmp_path / "run")
  assert contents(tmp_path) == before
  loop.train(config(resume="override"), tmp_path / "run")
  assert logs.read_metrics(tmp_path / "run")[-1]["step"] == 3


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_its_last_checkpoint_and_more_room_continues_it(
  undisturbed, data, tmp_path
):
  mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", tmp_path]  # one checkpoint has 37 MB
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("a small disk can be mounted by root only")
  try:
    with pytest.raises(errors.UserError, match="no space left on the disk; step 5 is the newest"):
      loop.train(toy_run.config(data), tmp_path / "run")
    assert formats.open(tmp_path / "run").meta["step"] == 5
    subprocess.run(["mount", "-o", "remount,size=300m", tmp_path], check=True)
    loop.train(toy_run.config(data), tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed[0])
  finally:
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices_and_another_mesh(undisturbed, data, tmp_path):
  for devices, mesh, last in ((8, "fsdp", 6), (4, "fsdp", 9), (8, "data=2,fsdp=4", -1)):
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [
      sys.executable,
      "-m",
      "tests.train.toy_run",
      tmp_path,
      data,
      str(last),
      "SIGTERM",
      mesh,
    ]
    run = subprocess.run(command, env=os.environ | flags, stderr=subprocess.PIPE, text=True)
    assert run.returncode == (0 if last < 0 else 75), run.stderr
  made = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
  assert [line["devices"]["number"] for line in made] == [8, 4, 8]
  losses = lambda d: [x["loss"] for x in logs.read_metrics(d) if "loss" in x]
  assert len(losses(tmp_path)) == 12
  np.testing.assert_allclose(losses(tmp_path), losses(undisturbed[0]), rtol=1e-5)


@pytest.mark.slow
def test_killed_ten_times_ends_with_the_same_bits(undisturbed, data, tmp_path):
  rng = random.Random(0)
  reached = []
  for step in sorted(rng.choices(range(1, 12), k=10)):  # some while a checkpoint is being written
    command = [sys.executable, "-m", "tests.train.toy_run", str(tmp_path), str(data), str(step)]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    reached.append(max(x["step"] for x in logs.read_metrics(tmp_path)))
  assert reached == sorted(reached) and len(set(reached)) > 5
  loop.train(toy_run.config(data), tmp_path)
  assert_same_run(tmp_path, undisturbed[0])
