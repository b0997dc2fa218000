import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
  "prediction, target, want",
  [
    ("21", "20", True),
    ("1.05", "1", False),  # 0.05000000000000004
    ("3.15", "3", True),
    ("14.8", "14", False),
    ("0.0", "0", False),  # nothing is relative to zero
    ("0.05", "5%", True),
    ("5", "5%", False),
    ("1000", "1,000", False),  # not a number
    ("nan", "nan", False),
  ],
)
def test_relaxed_match(prediction, target, want):
  assert text.relaxed_match(prediction, target) is want


def test_golden_relaxed_accuracy():
  data = golden.load("relaxed_accuracy")
  for case in data["cases"]:
    assert text.relaxed_match(case["prediction"], case["target"]) is case["relaxed"], case
    want = case["to_float_target"]  # "nan" and "inf" are strings there
    assert text.number(case["target"]) == pytest.approx(want and float(want), nan_ok=True)
  run = data["evaluator_lowercased"]
  rows = [{"prediction": p, "suffix": a} for p, a in zip(run["predictions"], run["answers"])]
  got = text.relaxed_accuracy(rows)
  assert got == pytest.approx({name: run["metrics"][name] for name in got}, abs=1e-6)


def test_relaxed_accuracy_ignores_case():
  assert text.relaxed_accuracy([{"prediction": "yes", "suffix": "Yes"}])["relaxed_acc"] == 1


@pytest.mark.parametrize(
  "target, prediction, want",
  [
    ("harvard", "havard", 6 / 7),
    ("9:33 p.m.", "9:33 pm", 7 / 9),
    ("kitten", "sitting", 4 / 7),
    ("abcd", "abcx", 0.75),
    ("abcd", "abxx", 0),  # half is too much
    ("", "", 1),
    ("", "x", 0),
    ("x", "", 0),
  ],
)
def test_anls(target, prediction, want):
  assert text.anls(prediction, target) == pytest.approx(want)


def test_golden_anls():
  for case in golden.load("anls")["cases"]:
    assert text.anls(case["prediction"], case["target"]) == pytest.approx(case["anls"], abs=1e-6)


def _distance(a, b):
  """By its definition, letter by letter."""
  if not a or not b:
    return len(a) + len(b)
  replaced = _distance(a[1:], b[1:]) + (a[0] != b[0])
  return min(replaced, _distance(a[1:], b) + 1, _distance(a, b[1:]) + 1)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_distance_is_the_shortest_way(a, b):
  assert text.distance(a, b) == _distance(a, b) == text.distance(list(b), list(a))


@given(st.text(max_size=20), st.text(max_size=20))
def test_anls_is_at_least_exact_match_and_at_most_one(a, b):
  assert float(a == b) <= text.anls(a, b) <= 1
