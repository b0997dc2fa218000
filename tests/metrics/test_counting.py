import pytest

from paligemma_jax import errors
from paligemma_jax.metrics import counting
from tests.metrics import golden


@pytest.mark.parametrize(
  "truth, prediction, want",
  [("2", "Two", 1), ("3", "3 ", 0), ("10", "ten", 1), ("0", "none", 1), ("two", "2", 1)],
)
def test_words_count_as_numbers(truth, prediction, want):
  assert counting.tallyqa([{"prediction": prediction, "suffix": truth}])["acc"] == want


def test_golden_tallyqa():
  data = golden.load("tallyqa")
  for case in data["cases"]:
    assert counting.numeral(case["prediction"]) == case["numeral"]
  got = counting.tallyqa([{**case, "suffix": case["answer"]} for case in data["cases"]])
  want = {name: value for name, value in data["aggregate"].items() if name != "num"}
  assert got == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("truth", ["16", "many", ["2", "3"]])
def test_other_truths_are_an_error(truth):
  with pytest.raises(errors.UserError, match="wanted 0 to 15"):
    counting.tallyqa([{"prediction": "2", "suffix": truth}])
