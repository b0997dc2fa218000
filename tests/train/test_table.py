"""Several workdirs side by side, worked out by hand."""

import json
import math

import pytest

from paligemma_jax import errors
from paligemma_jax.cli import main
from paligemma_jax.train import table


def make(folder, seed, lr, losses, accuracies, best=""):
  """A workdir as a training leaves it, as far as the table reads it."""
  folder.mkdir()
  config = {"seed": seed, "train": {"lr": lr, "steps": 20}, "checkpoint": {"best": best}}
  (folder / "config.json").write_text(json.dumps(config))
  lines = []
  for i, loss in enumerate(losses, 1):
    lines.append({"step": 10 * i, "loss": loss, "examples_per_second": 4.0 + i})
  for i, accuracy in enumerate(accuracies, 1):
    lines.append({"step": 10 * i, "eval/val/accuracy": accuracy, "eval/val/accuracy_ceiling": 1.0})
  text = "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda x: x["step"]))
  (folder / "metrics.jsonl").write_text(text + '{"step": 30, "lo')  # killed in the middle
  return folder


@pytest.fixture
def sweep(tmp_path):
  return [
    make(tmp_path / "a0", 0, 0.1, [3.0, 1.0], [0.2, 0.5]),
    make(tmp_path / "a1", 1, 0.1, [3.0, 3.0], [0.2, 0.7]),
    make(tmp_path / "b0", 0, 0.5, [3.0], []),
  ]


def test_a_row_for_each_run_and_one_for_runs_that_differ_in_the_seed_alone(sweep):
  a0, a1, b0 = map(str, sweep)
  assert table.rows([table.read(workdir) for workdir in sweep]) == [
    ("workdir", "seed", "train.lr", "step", "loss", "val/accuracy", "examples/s"),
    (a0, "0", "0.1", "20", "1", "0.5", "5.5"),
    (a1, "1", "0.1", "20", "3", "0.7", "5.5"),
    (b0, "0", "0.5", "10", "3", "", "5"),
    # mean and deviation of 1 and 3; of 0.5 and 0.7, over n - 1
    ("2 seeds", "", "0.1", "20", "2 ± 1.4", "0.6 ± 0.14", "5.5 ± 0"),
  ]


@pytest.mark.parametrize(
  "best, column", [("val/accuracy", ["0.9"]), ("-val/accuracy", ["0.2"]), ("", [])]
)
def test_the_best_score_stands_beside_the_newest_where_the_config_names_it(tmp_path, best, column):
  runs = [
    table.read(make(tmp_path / str(seed), seed, 0.1, [1.0], [0.2, 0.9, 0.5], best))
    for seed in (0, 1)
  ]
  rows = table.rows(runs)
  assert rows[1][-1 - len(column) :] == (*column, "5")
  assert ("best val/accuracy" in rows[0]) == bool(best)


def test_a_run_that_has_not_begun_has_no_figures(tmp_path, sweep):
  new = tmp_path / "new"
  new.mkdir()
  (new / "config.json").write_text((sweep[0] / "config.json").read_text())
  assert table.rows([table.read(w) for w in (new, sweep[1])])[1][1:] == ("0", "0", "", "", "")


def test_inspect_compares_several_workdirs(sweep, capsys):
  assert main.main(["inspect", *map(str, sweep)]) == 0
  shown = capsys.readouterr().out.splitlines()
  assert len(shown) == 5 and shown[-1].startswith("2 seeds ")


def test_seeds_that_diverged_have_no_mean(tmp_path):
  runs = [make(tmp_path / f"{seed}", seed, 0.1, [seed / 0.5, math.inf], []) for seed in (0, 1)]
  assert table.rows([table.read(workdir) for workdir in runs])[-1][3] == "not finite"


def test_what_is_no_workdir_is_named(sweep, tmp_path):
  config = json.loads((sweep[0] / "config.json").read_text())
  for change in ({"seed": "none"}, {"checkpoint": {"best": ["val/accuracy"]}}):
    (sweep[0] / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(errors.UserError, match=f"{sweep[0]} is no workdir"):
      table.read(sweep[0])
  (tmp_path / "hf").mkdir()
  (tmp_path / "hf/config.json").write_text('{"model_type": "paligemma"}')  # of a checkpoint
  for path in (tmp_path / "hf", tmp_path / "nowhere"):
    with pytest.raises(errors.UserError, match=f"{path} is no workdir"):
      table.read(path)
