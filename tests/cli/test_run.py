"""train, eval, data show, inspect and convert on one small run: a fine-tune of the toy checkpoint."""

import json

import pytest
from PIL import Image

from paligemma_jax.cli import main
from tests.checkpoint import test_added_rows


@pytest.fixture(scope="module")
def examples(tmp_path_factory, pictures):
  """A JSONL file with eight questions."""
  path = tmp_path_factory.mktemp("data") / "examples.jsonl"
  lines = [
    {"image": pictures[i % 2], "prefix": "answer en what colour?", "suffix": ["red", "dark red"]}
    for i in range(8)
  ]
  path.write_text("\n".join(map(json.dumps, lines)))
  return str(path)


@pytest.fixture(scope="module")
def settings(ckpt, examples):
  """The config's part of the command line, the same for train, eval and data show."""
  config = f"transfers/forkme.py:train={examples},val={examples},init={ckpt},text_len=32"
  keys = ("train.steps=2", "train.batch_size=8", "evals.val.max_new_tokens=4", "log_every=1")
  return ("--config", config, *(f"--config.{key}" for key in keys))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, settings):
  """A finished run of two steps."""
  path = tmp_path_factory.mktemp("runs") / "workdir"
  assert main.main(["train", *settings, "--workdir", str(path)]) == 0
  return path


def test_train_leaves_what_the_readme_promises(workdir):
  found = {p.name for p in workdir.iterdir()}
  assert found >= {"config.json", "metrics.jsonl", "checkpoints", "predictions", "report.html"}
  assert len((workdir / "predictions/val.jsonl").read_text().splitlines()) == 8
  losses = [json.loads(x).get("loss") for x in (workdir / "metrics.jsonl").open()]
  assert len([x for x in losses if x]) >= 2


def test_a_finished_workdir_is_reported_and_left_alone(workdir, settings, capsys):
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
  assert main.main(["train", *settings, "--workdir", str(workdir)]) == 0
  said = capsys.readouterr()
  assert "is finished (2 steps)" in said.out + said.err
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()} == before


def test_a_config_that_changes_the_result_is_shown_as_a_table(workdir, settings, capsys):
  argv = ["train", *settings, "--config.train.lr=0.5", "--workdir", str(workdir)]
  assert main.main(argv) == 2
  said = capsys.readouterr().err
  assert "train.lr" in said and "0.5" in said and "--config.resume=override" in said


def test_eval_scores_as_training_did(workdir, settings, run, tmp_path):
  shown = run("eval", *settings, "--ckpt", workdir, "--workdir", tmp_path, "--evals", "v.l")
  scores = json.loads((tmp_path / "metrics.json").read_text())
  assert "exact_match" in shown and set(scores) == {"val"}
  predictions = [workdir / "predictions/val.jsonl", tmp_path / "predictions/val.jsonl"]
  trained, again = ([json.loads(x)["prediction"] for x in p.open()] for p in predictions)
  assert trained == again


@pytest.mark.parametrize("published, status, word", [(0.0, 0, "pass"), (2.0, 1, "FAIL")])
def test_eval_compares_with_the_published_scores_of_the_config(
  ckpt, examples, tmp_path, capsys, published, status, word
):
  config = tmp_path / "mine.py"
  config.write_text(
    "from paligemma_jax.transfers import forkme\n"
    "def get_config(arg):\n"
    "  c = forkme.get_config(arg)\n"
    f"  mine = dict(value={published}, std=None, source='a paper')\n"
    "  c.expect = {'em': dict(scores=('val/exact_match',), **mine),\n"
    "              'server': dict(scores=('test/acc',), **mine)}\n"
    "  return c\n"
  )
  spec = f"{config}:train={examples},val={examples},init={ckpt},text_len=32"
  args = ["eval", "--config", spec, "--ckpt", ckpt, "--expect"]
  assert main.main([*args, "--config.evals.val.max_new_tokens=2"]) == status
  printed = capsys.readouterr()
  rows = {line.split()[0]: line for line in printed.out.splitlines() if line.strip()}
  assert word in rows["em"] and "not scored" in rows["server"]
  assert ("1 of 2 published scores not reached: em" in printed.err) == bool(status)


def test_expect_needs_published_scores(refuse, settings, ckpt):
  message = refuse("eval", *settings, "--ckpt", ckpt, "--expect")
  assert "no published scores" in message


def test_evals_that_match_nothing_are_named(refuse, settings, ckpt):
  assert '--evals "tset" matches none; known: val' in refuse(
    "eval", *settings, "--ckpt", ckpt, "--evals", "tset"
  )
  assert "no regular expression" in refuse("eval", *settings, "--ckpt", ckpt, "--evals", "(")


def test_data_show_draws_what_the_model_sees(settings, run, tmp_path):
  run("data", "show", *settings, "--out", tmp_path / "seen.png", "--count", "4")
  with Image.open(tmp_path / "seen.png") as picture:
    assert min(picture.size) > 300
  assert [p.name for p in tmp_path.iterdir()] == ["seen.png"]


def test_inspect_shows_what_a_checkpoint_is(workdir, ckpt, run):
  shown = run("inspect", workdir)
  assert "paligemma-custom-28" in shown and "28 px, 4 image tokens" in shown
  assert "step                  2" in shown and "tokenizer.model" in shown
  of = lambda text: [line.split()[0] for line in text.splitlines() if line.startswith("llm/")]
  assert of(shown) == of(run("inspect", ckpt))
  assert "llm/embedder/input_embedding" in of(shown)


@pytest.mark.parametrize(
  "alpha, words", [("drop", "dropped here"), ("white", "laid on white here")]
)
def test_a_folder_for_transformers_comes_with_a_word_about_transparency(
  ckpt, run, tmp_path, capsys, alpha, words
):
  for name, is_told in (("hf", True), ("x.npz", False)):
    assert main.main(["convert", ckpt, str(tmp_path / name), "--set", f"alpha={alpha}"]) == 0
    assert (words in capsys.readouterr().err) == is_told
  assert alpha in run("inspect", tmp_path / "hf")


def test_inspect_knows_a_part_of_a_model(ckpt, run, tmp_path):
  run("convert", ckpt, tmp_path / "whole.npz")
  shown = run("inspect", f"{tmp_path}/whole.npz:img")
  assert "a part: img" in shown and "llm/" not in shown


def test_inspect_names_added_tokens(run, tmp_path):
  test_added_rows.folder(tmp_path / "x", 1503, test_added_rows.with_tokens("<s_ok>", "<s_bad>"))
  assert "added tokens          <s_ok>, <s_bad>\n" in run("inspect", tmp_path / "x")


def test_convert_says_what_the_shapes_cannot_tell(ckpt, run, refuse, tmp_path):
  sets = ("--set", "final_logits_softcap=30", "--set", "resize=bilinear", "--set", "alpha=white")
  run("convert", ckpt, tmp_path / "a.npz", *sets)
  for path in (tmp_path / "a.npz", tmp_path / "b"):
    said = run("inspect", path)
    for row in (
      "final_logits_softcap  30.0",
      "resize                bilinear\n",
      "alpha                 white",
    ):
      assert row in said
    if path.name == "a.npz":
      run("convert", path, tmp_path / "b", "--to", "orbax")  # it travels on
  wrong = ("convert", ckpt, tmp_path / "c", "--set")
  assert "transformers' Gemma 1 has no final_logits_softcap" in refuse(
    *wrong, "final_logits_softcap=9"
  )
  assert 'resize "bicubik" is unknown; did you mean "bicubic"?' in refuse(*wrong, "resize=bicubik")
  assert 'did you mean "sliding_window"? Known:' in refuse(*wrong, "window=4")
  assert not (tmp_path / "c").exists()


def test_a_workdir_converts_to_a_folder_that_answers_the_same(workdir, run, tmp_path, pictures):
  run("convert", workdir, tmp_path / "hf")
  run("convert", tmp_path / "hf", tmp_path / "back.npz", "--dtype", "bfloat16")
  assert "bfloat16" in run("inspect", tmp_path / "back.npz")
  ask = ("--image", pictures[0], "--prompt", "answer en what colour?", "--json")
  ask += ("--max-new-tokens", "4", "--sampler", "temperature:2")
  answers = [run("generate", "--ckpt", path, *ask) for path in (workdir, tmp_path / "hf")]
  assert answers[0] == answers[1]
