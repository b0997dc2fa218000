"""Tables of published scores as data."""

import pytest

from paligemma_jax.configs import published

TABLE = """eval/cider        224  141.9±0.3 141.3±0.5 143.7±0.2
           tune:minival/acc  448  84.6@t15 - 85.8±0.0
           both={a,b}/acc    448  57.3
           -val/cer          448  1.6"""


def read(res, variant="", final=False):
  return published.scores(TABLE, res, variant, final)


def test_a_number_is_of_one_resolution_and_family_in_units_of_the_metric():
  assert read(224) == {
    "eval/cider": {
      "scores": ("eval/cider",), "value": 1.419, "std": 0.003, "source": published.PAPERS[0],
    }
  }  # fmt: skip
  assert read(224, "pg2_10b")["eval/cider"]["value"] == 1.437
  assert read(224, "pg2_28b") == {}


def test_scores_of_splits_that_a_final_run_trains_on_are_left_out():
  assert "minival/acc" in read(448) and "minival/acc" not in read(448, final=True)


def test_a_place_is_named_and_no_deviation_is_none_but_zero_is_zero():
  found = read(448)["minival/acc"]
  assert (found["std"], found["source"]) == (None, published.PLACES["t15"])
  assert read(448, "pg2_10b")["minival/acc"]["std"] == 0.0


@pytest.mark.parametrize("name, scores", [("both", ("a/acc", "b/acc")), ("-val/cer", ("val/cer",))])
def test_a_name_stands_for_a_mean_or_tells_that_lower_is_better(name, scores):
  assert read(448)[name]["scores"] == scores
