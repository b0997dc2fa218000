"""The best step, and when to stop waiting for a better one."""

import json

import pytest

from paligemma_jax.train import best
from paligemma_jax.train import log as logs

nan, inf = float("nan"), float("inf")


def test_a_criterion_names_evaluation_metric_and_direction():
  assert best.Criterion.of("val/exact_match") == ("val", "exact_match", 1)
  assert best.Criterion.of("-val/perplexity") == ("val", "perplexity", -1)


def test_scores_are_read_from_the_log(tmp_path):
  lines = [
    {"step": 1, "loss": 2.0},
    {"step": 5, "eval/val/acc": 0.5},
    {"step": 9, "eval/val/acc": 0.4},
  ]
  (tmp_path / logs.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert best.scores(tmp_path, best.Criterion.of("val/acc")) == [(5, 0.5), (9, 0.4)]
  assert best.scores(tmp_path, best.Criterion.of("val/f1")) == []


@pytest.mark.parametrize(
  "values, sign, want",
  [
    ((3, 5, 5), 1, (2, 5)),
    ((3, 5, 2), -1, (3, 2)),
    ((), 1, None),
    ((nan, 3, inf, 5, nan), 1, (4, 5)),
    ((nan, 5, -inf, 3, nan), -1, (4, 3)),
    ((nan, inf), 1, None),
  ],
)
def test_the_first_of_the_best_finite_scores_counts(values, sign, want):
  assert best.first_best([(i, v) for i, v in enumerate(values, 1)], sign) == want


@pytest.mark.parametrize(
  "values, patience, want",
  [((1, 2, 2), 1, True), ((1, 2, 3), 1, False), ((3, 1, 2), 2, True), ((3, 1), 2, False),
   ((3, 2, 1), 0, False), ((nan, 1, 2), 1, False), ((1, nan, nan), 1, False),
   ((nan, nan, nan), 1, False), ((2, nan, 1), 1, True)],
)  # fmt: skip
def test_a_run_has_stalled_when_the_last_scores_brought_nothing_better(values, patience, want):
  assert best.stalled([(i, v) for i, v in enumerate(values, 1)], 1, patience) is want
