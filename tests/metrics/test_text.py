import pytest

from paligemma_jax.metrics import text
from tests.metrics import golden


@pytest.mark.parametrize(
  "prediction, suffix, want",
  [
    ("cat", "cat", {"exact_match": 1}),
    ("cat ", "cat", {"exact_match": 0}),  # as it stands: no strip
    ("Cat", "cat", {"exact_match": 0}),  # no lower-casing
    ("", "", {"exact_match": 1}),
    ("red", ["red", "dark red"], {"exact_match": 1, "exact_match_any": 1}),
    ("dark red", ["red", "dark red"], {"exact_match": 0, "exact_match_any": 1}),
    ("blue", ["red"], {"exact_match": 0, "exact_match_any": 0}),
    ("blue", [], {}),  # nothing to compare with
    ("blue", None, {}),
  ],
)
def test_exact_match_of_one_row(prediction, suffix, want):
  assert text.exact_match([{"prediction": prediction, "suffix": suffix}]) == want


def test_rows_without_truth_do_not_count():
  rows = [("a", "a"), ("a", "b"), ("a", None)]
  rows = [{"prediction": p, "suffix": s} for p, s in rows]
  assert text.exact_match(rows) == {"exact_match": 0.5}


def test_golden_single_answers():
  data = golden.load("vqa_simple")["raw"]
  rows = [{"prediction": c["prediction"], "suffix": c["answer"]} for c in data["single"]]
  want = data["single_aggregate"]["acc"]
  assert text.exact_match(rows)["exact_match"] == pytest.approx(want, abs=1e-6)


def test_golden_lists_of_answers():
  data = golden.load("vqa_simple")["raw"]
  rows = [{"prediction": c["prediction"], "suffix": c["answers"]} for c in data["multi"]]
  want = data["multi_aggregate"]["acc_any"]
  assert text.exact_match(rows)["exact_match_any"] == pytest.approx(want, abs=1e-6)
