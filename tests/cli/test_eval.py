"""`paligemma eval` of several configs: one table, a page of all and a page of each; going on."""

import contextlib
import json
import shutil
import sys

import pytest

from paligemma_jax import errors, metrics
from paligemma_jax.checkpoint import formats
from paligemma_jax.cli import eval as command
from paligemma_jax.cli import main
from paligemma_jax.evals import runner
from paligemma_jax.train import provenance, settings
from paligemma_jax.transfers import common
from tests.train import toy_run

CONFIG = """
from paligemma_jax.transfers import common

def get_config(arg=None):
  c = common.base(0, text_len=32)
  c.evals.val = common.evaluate(common.jsonl({data!r}), "exact_match", max_new_tokens=2, batch_size=8)
  source = {{"scores": ("val/exact_match",), "std": None, "source": "a paper"}}
  c.expect = {{"val/exact_match": {{"value": {published}, **source}}}} if arg != "none" else {{}}
  return c
"""


@pytest.fixture
def configs(tmp_path, pictures):
  """Paths of two configs on the same eight questions; the second's published score is out of reach."""
  data = tmp_path / "data.jsonl"
  line = {"image": pictures[0], "prefix": "answer en what colour?", "suffix": "red"}
  data.write_text("".join(json.dumps({**line, "id": f"q{i}"}) + "\n" for i in range(8)))
  paths = []
  for name, published in (("first", 0.0), ("second", 2.0)):
    path = tmp_path / f"{name}.py"
    path.write_text(CONFIG.format(data=str(data), published=published))
    paths.append(str(path))
  return paths


def test_several_configs_make_one_table_and_a_page_of_each(configs, ckpt, tmp_path, capsys):
  first, second = configs
  args = ["eval", "--config", first, "--config", second, "--ckpt", ckpt, "--expect"]
  assert main.main([*args, "--workdir", str(tmp_path / "out")]) == 1
  said = capsys.readouterr()
  head, *rows = said.out.splitlines()
  assert head.split()[:3] == ["transfer", "score", "value"]
  assert [row.split()[:2] for row in rows] == [[n, "val/exact_match"] for n in ("first", "second")]
  assert "pass" in rows[0] and "FAIL" in rows[1]
  assert "1 of 2 published scores not reached: second val/exact_match" in said.err
  assert said.err.count("parameters split over fsdp 8: ") == 2  # of each config once

  lines = json.loads((tmp_path / "out/results.json").read_text())
  assert [(x["transfer"], x["config"], x["ckpt"]) for x in lines] == [
    ("first", first, ckpt),
    ("second", second, ckpt),
  ]
  assert "./second/results.html" in (tmp_path / "out/results.html").read_text()
  for name in ("first", "second"):
    page = (tmp_path / f"out/{name}/results.html").read_text()
    assert page.count("<img") == 8 and "picture not found" not in page
    assert len((tmp_path / f"out/{name}/predictions/val.jsonl").read_text().splitlines()) == 8
    assert "val" in json.loads((tmp_path / f"out/{name}/metrics.json").read_text())


def test_one_config_has_all_in_the_workdir_itself(configs, ckpt, tmp_path, run):
  out = tmp_path / "out"
  run("eval", "--config", configs[0], "--ckpt", ckpt, "--workdir", out)
  names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
  assert names == {
    "metrics.json", "results.json", "results.html", "predictions/val.jsonl", "evaluated.json"
  }  # fmt: skip


def test_a_mistake_in_the_last_config_is_told_before_anything_is_evaluated(
  configs, ckpt, tmp_path, refuse
):
  both = ("--config", configs[0], "--config", configs[1])
  out = ("--workdir", tmp_path / "out")
  assert "3 checkpoints for 2 configs" in refuse("eval", *both, *("--ckpt", ckpt) * 3, *out)
  assert "first is given twice" in refuse("eval", *both[:2] * 2, "--ckpt", ckpt, *out)
  gone = refuse("eval", *both, "--ckpt", ckpt, "--ckpt", tmp_path / "gone", *out)
  assert "gone" in gone
  none = f"{configs[1]}:none"
  message = refuse("eval", *both[:2], "--config", none, "--ckpt", ckpt, "--expect", *out)
  assert f"{none} has no published scores" in message
  assert not (tmp_path / "out").exists()


@pytest.fixture
def trained(tmp_path, ckpt, pictures):
  """trained(**evaluations) -> the workdir of a run that was started in tmp_path/home with "my/val.jsonl"."""

  def make(**evals):
    home = tmp_path / "home"
    (home / "my").mkdir(parents=True)
    line = {"image": pictures[0], "prefix": "answer en what colour?", "suffix": "red"}
    (home / "my/val.jsonl").write_text((json.dumps(line) + "\n") * 3)
    source, workdir = formats.open(ckpt), home / "runs/mine"
    formats.save(workdir / "checkpoints", source.read, source.config, source.assets, format="orbax")
    c = common.base(0, text_len=32)
    c.model.init = "gone.npz"
    c.input.tokenizer = "gone.model"
    c.train.data.yours = common.jsonl("my/val.jsonl")
    for name, metric in evals.items():
      c.evals[name] = common.evaluate(c.train.data.yours, metric, max_new_tokens=2, batch_size=8)
    settings.store(settings.check(c), workdir)
    provenance.write(workdir, {"folder": str(home)})
    return workdir

  return make


def test_a_run_is_evaluated_as_its_own_config_says_from_any_directory(
  trained, run, tmp_path, monkeypatch
):
  workdir = trained(val="exact_match", other="vqa")
  monkeypatch.chdir(tmp_path)
  assert run("eval", "--ckpt", workdir).count("val/exact_match") == 1
  step = "home/runs/mine/checkpoints/0"
  assert "other/acc" in run("eval", "--ckpt", step, "--evals", "other")
  monkeypatch.chdir(workdir)
  changed = "--config.evals.val.limit=1", "--config.model.settings.final_logits_softcap=30"
  table = run("eval", "--ckpt", ".", "--evals", "val", "--workdir", tmp_path / "out", *changed)
  assert "val/exact_match" in table and "other" not in table
  assert len((tmp_path / "out/predictions/val.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_without_a_config_of_its_own_needs_one(ckpt, refuse, tmp_path):
  assert "no workdir with a config of its own; give --config" in refuse("eval", "--ckpt", ckpt)
  (tmp_path / "checkpoints").mkdir()
  (tmp_path / "config.json").write_text('{"model_type": "paligemma"}')
  assert "config.json is no config of a run, or damaged" in refuse("eval", "--ckpt", tmp_path)


def test_a_metric_of_the_configs_own_file_is_told(trained, refuse, run, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setitem(metrics.METRICS, "mine", lambda rows: {"mine": 1.0})
    workdir = trained(val="exact_match", own="mine")
  assert 'evals.own.metric "mine" is a function of the config' in refuse("eval", "--ckpt", workdir)
  assert "val/exact_match" in run("eval", "--ckpt", workdir, "--evals", "val")


@pytest.fixture
def evaluated(monkeypatch):
  """Names of the evaluations that were begun, of all commands; `stop_after` ends one like a kill."""

  class Begun(list):
    stop_after = None

  begun, run_config = Begun(), runner.run_config

  def counted(config, *parts, keep, **options):
    def keep_or_stop(name, scores, rows):
      begun.append(name)
      keep(name, scores, rows)
      if len(begun) == begun.stop_after:
        raise KeyboardInterrupt

    return run_config(config, *parts, keep=keep_or_stop, **options)

  monkeypatch.setattr(runner, "run_config", counted)
  return begun


def contents(folder):
  """Path -> bytes of all files."""
  return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_killed_command_goes_on_where_it_stopped(configs, ckpt, tmp_path, capsys, evaluated):
  args = ["eval", "--config", configs[0], "--config", configs[1], "--ckpt", ckpt, "--expect"]
  assert main.main([*args, "--workdir", str(tmp_path / "whole")]) == 1
  whole = capsys.readouterr()

  out, evaluated.stop_after = ["--workdir", str(tmp_path / "out")], 3
  assert main.main([*args, *out]) == 1
  assert "interrupted" in capsys.readouterr().err
  evaluated.clear()
  assert main.main([*args, *out]) == 1
  said = capsys.readouterr()
  assert evaluated == ["val"]  # of the second
  assert said.out == "first: evaluated before, scores kept\n" + whole.out
  assert said.err.splitlines()[-1] == whole.err.splitlines()[-1]
  assert contents(tmp_path / "out") == contents(tmp_path / "whole")

  assert main.main([*args, *out]) == 1
  assert evaluated == ["val"] and "second: evaluated before" in capsys.readouterr().out
  assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_sigterm_ends_it_between_two_batches_with_75(configs, ckpt, tmp_path, monkeypatch, run):
  before_batch = iter([False, True])  # of one batch each
  asked = contextlib.nullcontext(lambda: next(before_batch))
  args = ["eval", "--config", configs[0], "--config", configs[1], "--ckpt", ckpt]
  args += ["--workdir", str(tmp_path / "out")]
  with monkeypatch.context() as patch:
    patch.setattr("paligemma_jax.train.processes.asked_to_stop", lambda: asked)
    assert main.main(args) == 75
  assert len(json.loads((tmp_path / "out/results.json").read_text())) == 1
  assert "first: evaluated before, scores kept\n" in run(*args)


@pytest.fixture
def two(configs, tmp_path):
  """The first config with a second evaluation, on a copy of the questions."""
  text = (tmp_path / "first.py").read_text()
  copy = str(shutil.copy(tmp_path / "data.jsonl", tmp_path / "test.jsonl"))
  more = f"  c.evals.test = common.evaluate(common.jsonl({copy!r}), 'exact_match', max_new_tokens=2, batch_size=8)\n"
  (tmp_path / "two.py").write_text(text.replace("  source =", f"{more}  source ="))
  return str(tmp_path / "two.py")


def test_what_differs_is_evaluated_anew(two, ckpt, tmp_path, run, evaluated):
  own = shutil.copytree(ckpt, tmp_path / "ckpt")
  out = tmp_path / "out"

  def again(*more):
    evaluated.clear()
    shown = run("eval", "--config", two, "--ckpt", own, "--workdir", out, *more)
    assert all(f"{name}/exact_match" in shown for name in ("val", "test"))
    assert len((out / "results.html").read_text().split("<img")) == 17
    return list(evaluated), shown.partition(" evaluated before")[0]

  run("eval", "--config", two, "--ckpt", own, "--workdir", out, "--evals", "val")
  assert again() == (["test"], "two: val")
  assert again()[0] == []
  assert again("--config.train.lr=1", "--config.evals.val.every=0.5")[0] == []  # of training
  assert again("--config.evals.val.max_new_tokens=3") == (["val"], "two: test")
  assert again() == (["val"], "two: test")
  assert again("--config.seed=1")[0] == again()[0] == ["test", "val"]
  (out / "predictions/test.jsonl").write_text("")
  assert again() == (["test"], "two: val")
  with (tmp_path / "test.jsonl").open("a") as file:
    file.write("\n")
  assert again() == (["test"], "two: val")
  (weights,) = own.glob("*.safetensors")
  weights.write_bytes(weights.read_bytes())  # another training of the same name and size
  assert again()[0] == ["test", "val"]
  (out / "evaluated.json").write_text("{")
  assert again()[0] == ["test", "val"]


def test_a_published_score_that_changes_needs_no_evaluation(configs, ckpt, tmp_path, evaluated):
  args = ["eval", "--config", configs[0], "--ckpt", ckpt, "--workdir", str(tmp_path), "--expect"]
  assert main.main(args) == 0
  config = tmp_path / "first.py"
  config.write_text(config.read_text().replace('"value": 0.0', '"value": 3.0'))
  assert main.main(args) == 1
  assert evaluated == ["val"]
  assert "3.0000" in (tmp_path / "results.html").read_text()


@pytest.mark.parametrize(
  "specs, names",
  [
    (["transfers/vqav2.py:res=448,final"], ["vqav2"]),
    (["transfers/vqav2.py:res=448", "a.pyx/gqa.py"], ["vqav2", "gqa"]),
    (["x/vqav2.py:res=224,final", "x/vqav2.py"], ["vqav2_res=224_final", "vqav2"]),
    (["a/b.py", "/c/b.py"], ["a_b", "c_b"]),
  ],
)
def test_a_transfer_is_called_by_what_tells_it_from_the_others(specs, names):
  assert command._names(specs) == names


def test_processes_that_found_different_steps_are_stopped(monkeypatch):
  other = ["run/checkpoints/200"]
  monkeypatch.setattr("paligemma_jax.exchange.gather", lambda rows: [*rows, ["100"]])
  command._check_same(["run/checkpoints/100"])
  with pytest.raises(
    errors.UserError, match="different checkpoints .100, 200.; name the same step"
  ):
    command._check_same(other)


SAMPLED = """
from paligemma_jax.transfers import common

def get_config(arg=None):
  c = common.base(0, text_len=32)
  c.model.dtype = "float32"
  data = common.jsonl({data!r})
  c.evals.sampled = common.evaluate(
    data, "exact_match", sampler="temperature:1.0", max_new_tokens=3, batch_size=8)
  c.evals.likely = common.evaluate(data, "exact_match", answers=("red", "blue", "no"), batch_size=8)
  c.evals.nll = common.evaluate(data, "perplexity", batch_size=8)
  published = {{"scores": ("sampled/exact_match",), "value": 2.0, "std": None, "source": "a paper"}}
  c.expect = {{"sampled/exact_match": published}}
  return c
"""


def leaves(value) -> list:
  """The strings and numbers in JSON, in their order."""
  if isinstance(value, dict):
    value = list(value.values())
  return [x for one in value for x in leaves(one)] if isinstance(value, list) else [value]


@pytest.mark.slow
def test_two_processes_evaluate_as_one(pictures, ckpt, tmp_path, write_jsonl, capfd):
  lines = [
    {"id": i, "image": pictures[i % 2], "prefix": f"answer en {i}", "suffix": ["red", "no"][i % 2]}
    for i in range(21)  # the last batch is not full
  ]
  (tmp_path / "mine.py").write_text(SAMPLED.format(data=write_jsonl("data.jsonl", lines)))
  args = ["eval", "--config", str(tmp_path / "mine.py"), "--ckpt", ckpt, "--expect", "--workdir"]

  def told(lines):
    """Which of the lines were said, each as often as it was; Gloo's threads say theirs between."""
    said = capfd.readouterr()
    missed = said.err.count("1 of 1 published scores not reached: sampled/exact_match")
    return [line for line in said.out.splitlines() if line in lines], missed

  assert main.main([*args, str(tmp_path / "one")]) == 1
  table = capfd.readouterr().out.splitlines()
  together = [sys.executable, "-m", "paligemma_jax", *args, str(tmp_path / "two")]
  assert toy_run.run_as_two(together) == [1, 1]
  assert told(table) == (table, 2)

  for name in ("sampled", "likely", "nll"):
    paths = (tmp_path / f"{folder}/predictions/{name}.jsonl" for folder in ("one", "two"))
    one, two = ([json.loads(line) for line in path.read_text().splitlines()] for path in paths)
    assert [row["id"] for row in two] == list(range(21))
    for x, y in zip(leaves(one), leaves(two), strict=True):
      assert x == y if isinstance(x, str) else x == pytest.approx(y, rel=1e-5)  # sums differ
    assert name != "sampled" or len({row["prediction"] for row in two}) > 10

  before = contents(tmp_path / "two")
  assert toy_run.run_as_two(together) == [1, 1]
  kept = ["mine: evaluated before, scores kept", *table]
  assert told(kept) == (kept, 2)
  assert contents(tmp_path / "two") == before


SIGNALLED = """
import os, signal
from paligemma_jax import metrics
from paligemma_jax.transfers import common

def preempted(rows):
  if os.environ.get("JAX_PROCESS_ID") == "1":
    os.kill(os.getpid(), signal.SIGTERM)
  return {{"num": float(len(rows))}}

metrics.METRICS["preempted"] = preempted

def get_config(arg=None):
  c = common.base(0, text_len=32)
  data = common.jsonl({data!r})
  c.evals.a = common.evaluate(data, "exact_match", limit=8, max_new_tokens=1, batch_size=8)
  c.evals.b = common.evaluate(data, "preempted", limit=8, max_new_tokens=1, batch_size=8)
  c.evals.c = common.evaluate(data, "exact_match", max_new_tokens=32, batch_size=8)
  return c
"""


@pytest.mark.slow
def test_a_sigterm_to_one_of_two_processes_ends_both(pictures, ckpt, tmp_path, write_jsonl):
  line = {"image": pictures[0], "prefix": "answer en what colour?", "suffix": "red"}
  config = tmp_path / "mine.py"
  config.write_text(SIGNALLED.format(data=write_jsonl("data.jsonl", [line] * 10_000)))  # minutes
  args = ["eval", "--config", str(config), "--ckpt", ckpt, "--workdir", str(tmp_path / "out")]
  assert toy_run.run_as_two([sys.executable, "-m", "paligemma_jax", *args]) == [75, 75]
  assert set(json.loads((tmp_path / "out/evaluated.json").read_text())["evaluations"]) == {"a", "b"}
