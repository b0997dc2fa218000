import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_jax import metrics
from paligemma_jax.metrics import choice, text


def _rows(right, wrong):
  return [{"prediction": "a", "suffix": s} for s in ["a"] * right + ["b"] * wrong]


def test_of_a_share_it_is_the_binomial_one():
  (low, high) = metrics.interval(text.exact_match, _rows(300, 100), samples=4000)["exact_match"]
  deviation = np.sqrt(0.75 * 0.25 / 400)
  assert low == pytest.approx(0.75 - 1.96 * deviation, abs=0.003)
  assert high == pytest.approx(0.75 + 1.96 * deviation, abs=0.003)


def test_weights_give_what_drawing_rows_would():
  rows = [
    {"prediction": p, "suffix": s}
    for p, s in [("yes", "yes"), ("no", "yes"), ("yes", "no"), ("no", "no"), ("yes", "yes")]
  ]
  units, weigh = choice.pope_official.weighted(rows)
  drawn = np.random.default_rng(0).integers(units, size=(30, units))
  weights = np.array([np.bincount(d, minlength=units) for d in drawn], float)
  got = weigh(weights)
  for i, d in enumerate(drawn):
    want = choice.pope_official([rows[j] for j in d])
    assert {k: v[i] for k, v in got.items() if not np.isnan(v[i])} == pytest.approx(want)


def test_pairs_are_drawn_as_pairs():
  rows = _rows(10, 0) + _rows(0, 10)
  units, _ = choice.mmvp.weighted(rows)
  assert units == 10


def test_a_wider_level_holds_the_narrower_one_and_the_score():
  rows = _rows(30, 20)
  low, high = metrics.interval(text.exact_match, rows, level=0.5)["exact_match"]
  lower, higher = metrics.interval(text.exact_match, rows, level=0.99)["exact_match"]
  assert lower <= low <= 0.6 <= high <= higher


def test_the_seed_decides():
  rows = _rows(30, 20)
  same = metrics.interval(text.exact_match, rows, seed=1)
  assert metrics.interval(text.exact_match, rows, seed=1) == same
  assert metrics.interval(text.exact_match, rows, samples=50, seed=2) != same


def test_a_function_of_the_user_is_called_on_drawn_rows():
  def share(rows):
    return {"share": sum(row["suffix"] == "a" for row in rows) / len(rows)}

  low, high = metrics.interval(share, _rows(50, 50))["share"]
  assert 0.35 < low < 0.5 < high < 0.65


@given(st.integers(0, 20), st.integers(1, 20))
def test_bounds(right, wrong):
  low, high = metrics.interval(text.exact_match, _rows(right, wrong), samples=20)["exact_match"]
  assert 0 <= low <= high <= 1
