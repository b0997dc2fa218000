import pytest

from paligemma_jax.evals import expected


def entry(value, std=None, scores=("val/acc",)):
  return {"scores": scores, "value": value, "std": std, "source": "a paper"}


@pytest.mark.parametrize(
  "name, value, std, found, passed",
  [
    ("val/acc", 0.8, None, 0.7901, True),  # within a point
    ("val/acc", 0.8, None, 0.7899, False),
    ("val/acc", 0.8, 0.01, 0.7701, True),  # within three deviations
    ("val/acc", 0.8, 0.01, 0.7699, False),
    ("val/acc", 0.8, 0.001, 0.95, True),  # better
    ("-val/acc", 0.02, None, 0.029, True),  # lower is better
    ("-val/acc", 0.02, None, 0.031, False),
    ("-val/acc", 0.02, None, 0.0, True),
  ],
)
def test_a_score_may_be_worse_by_a_point_or_three_deviations(name, value, std, found, passed):
  (one,) = expected.compare({name: entry(value, std)}, {"val": {"acc": found}})
  assert one.passed is passed and one.value == found


def test_the_mean_of_several_evaluations_counts():
  expect = {"xgqa": entry(0.5, scores=("de/acc", "ko/acc"))}
  (one,) = expected.compare(expect, {"de": {"acc": 0.4}, "ko": {"acc": 0.6}})
  assert (one.value, one.passed) == (0.5, True)


@pytest.mark.parametrize("scores", [{}, {"de": {"acc": 0.4}}, {"de": {}, "ko": {"acc": 1.0}}])
def test_what_was_not_scored_neither_passes_nor_fails(scores):
  (one,) = expected.compare({"xgqa": entry(0.5, scores=("de/acc", "ko/acc"))}, scores)
  assert one.value is None and one.passed is None


def test_a_metric_may_hold_a_slash():
  expect = {"simple": entry(0.8, scores=("eval/acc/simple",))}
  (one,) = expected.compare(expect, {"eval": {"acc/simple": 0.8}})
  assert one.passed
