"""When evaluations run, and the table at the end."""

import json

from paligemma_jax.train import log as logs
from paligemma_jax.train import run


def test_evaluations_run_at_their_fractions_and_at_the_end():
  evals = {"often": {"every": 0.3}, "last": {"every": 1.0}}
  found = {done: run.due(evals, done, 10) for done in range(11)}
  assert {done: names for done, names in found.items() if names} == {
    3: ["often"],
    6: ["often"],
    9: ["often"],
    10: ["often", "last"],
  }


def test_an_evaluation_that_was_cut_off_is_due_again(tmp_path):
  lines = [{"step": 5, "eval/a/accuracy": 0.5}, {"step": 10, "eval/b/accuracy": 0.7}]
  (tmp_path / logs.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert run.unscored(tmp_path, ["a", "b"], 5) == ["b"]
  assert run.unscored(tmp_path, ["a", "b"], 10) == ["a"]
  assert run.last_scores(tmp_path) == {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.7}}


def test_the_table_has_ceilings_beside_their_metrics():
  scores = {"segment": {"mask_iou": 0.5, "mask_iou_ceiling": 0.9}, "count": {"accuracy": 1.0}}
  assert run.table(scores) == [
    "evaluation  metric     value  ceiling",
    "segment     mask_iou  0.5000   0.9000",
    "count       accuracy  1.0000",
  ]
