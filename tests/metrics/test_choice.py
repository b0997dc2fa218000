import pytest

from paligemma_jax import errors
from paligemma_jax.metrics import choice
from tests.metrics import golden

POPE = [
  ("yes", "yes"),
  ("No, there is not.", "no"),
  ("Yes, a cat, no dog", "no"),
  ("maybe", "no"),
]


def _rows(pairs):
  return [{"prediction": prediction, "suffix": suffix} for prediction, suffix in pairs]


def test_pope_reads_free_text_in_two_ways():
  got = choice.pope_official(_rows(POPE))
  want = {"accuracy": 0.75, "precision": 0.5, "recall": 1, "f1": 2 / 3, "yes_ratio": 0.5}
  assert got == pytest.approx(want)
  assert choice.pope(_rows(POPE)) == {"acc": 0.25, "valid_percent": 0.25}


def test_golden_pope():
  data = golden.load("pope")
  rows = _rows((case["prediction"], case["label"]) for case in data["cases"])
  for row, parsed in zip(rows, data["official_repo"]["parsed"], strict=True):
    assert choice.says_yes(row["prediction"]) is (parsed == "yes")
  for score, part in ((choice.pope, "big_vision"), (choice.pope_official, "official_repo")):
    got = score(rows)
    assert got == pytest.approx({name: data[part][name] for name in got}, abs=1e-6)
    assert len(got) == {"big_vision": 2, "official_repo": 5}[part]


def test_a_constant_yes_on_pope():
  got = choice.pope_official(_rows([("yes", "yes"), ("yes", "no")] * 5))
  want = {"accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": 2 / 3, "yes_ratio": 1}
  assert got == pytest.approx(want)


def test_never_a_yes_has_no_precision():
  got = choice.pope_official(_rows([("no", "yes"), ("no", "no")]))
  assert got == {"accuracy": 0.5, "recall": 0, "f1": 0, "yes_ratio": 0}


def test_pope_wants_yes_or_no():
  with pytest.raises(errors.UserError, match='\'cat\', wanted "yes" or "no"'):
    choice.pope(_rows([("yes", "cat")]))


def test_golden_mmvp():
  data = golden.load("mmvp_paired")
  got = choice.mmvp(_rows(("a", "a" if right else "b") for right in data["correct_in_csv_order"]))
  assert got["paired_acc"] == pytest.approx(data["paired_accuracy"], abs=1e-6)
  assert got["acc"] == pytest.approx(data["individual_accuracy"], abs=1e-6)


def test_mmvp_pairs():
  rows = _rows(("x", "x" if right else "y") for right in (1, 1, 1, 0, 0, 0, 1, 1))
  assert choice.mmvp(rows) == {"paired_acc": 0.5, "acc": 0.625}
  assert [own["acc"] for own in choice.mmvp.per_row(rows)] == [1, 1, 1, 0, 0, 0, 1, 1]
  named = [{**row, "pair": i // 2} for i, row in enumerate(rows)]
  assert choice.mmvp(named[::2] + named[1::2]) == choice.mmvp(rows)  # then the order is free
  with pytest.raises(errors.UserError, match="pair 3 has 1 questions"):
    choice.mmvp(rows[:-1])


@pytest.mark.parametrize(
  "prediction, acc, parsefail",
  [
    ("The answer is B. Because", 1, 0),
    ("the answer is b", 0, 1),
    ("Answer: B", 0, 1),
    ("The answer is C.", 0, 0),
  ],
)
def test_science_qa(prediction, acc, parsefail):
  got = choice.science_qa(_rows([(prediction, "The answer is B.")]))
  assert got == {"acc": acc, "parsefail": parsefail}


def test_golden_science_qa():
  data = golden.load("science_qa")
  for case in data["cases"]:
    assert (choice.letter(case["prediction"]) or "failed") == case["parsed_prediction"]
    assert (choice.letter(case["answer"]) or "failed") == case["parsed_answer"]
  rows = _rows((case["prediction"], case["answer"]) for case in data["cases"])
  got = choice.science_qa(rows)
  assert got == pytest.approx({name: data["aggregate"][name] for name in got}, abs=1e-6)
