import math
import re
from xml.etree import ElementTree

import pytest

from paligemma_jax.evals import charts


def _points(svg):
  return [
    [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    for line in ElementTree.fromstring(svg).iter("polyline")
  ]


def test_a_chart_is_well_formed_and_hovering_tells_all_values():
  a = charts.Series("a<b", [0, 10, 20], [1.0, 2.0, 3.0])
  b = charts.Series("other", [10], [2.5], color=1)
  svg = charts.line_chart([a, b])
  titles = [t.text for t in ElementTree.fromstring(svg).iter("title")]
  assert titles == ["step 0\na<b: 1", "step 10\na<b: 2\nother: 2.5", "step 20\na<b: 3"]


def test_larger_values_are_higher_and_later_steps_further_right():
  ((first, second),) = _points(charts.line_chart([charts.Series("x", [1, 2], [5.0, 6.0])]))
  assert second[0] > first[0]
  assert second[1] < first[1]


def test_equal_ratios_are_equal_distances_on_a_log_axis():
  svg = charts.line_chart([charts.Series("x", [1, 2, 3], [0.1, 1.0, 10.0])], log=True)
  (line,) = _points(svg)
  assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.11)


def test_a_value_that_is_not_finite_leaves_a_gap():
  values = [1.0, math.nan, 2.0, math.inf, 3.0]
  assert [len(p) for p in _points(charts.line_chart([charts.Series("x", range(5), values)]))] == [
    1
  ] * 3


def test_long_series_are_thinned_and_keep_their_end():
  steps = list(range(10_000))
  (line,) = _points(charts.line_chart([charts.Series("x", steps, [float(s) for s in steps])]))
  assert len(line) < 300
  assert line[-1][0] == pytest.approx(560 - 12)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1e-9, 1e9], [1e-12, 2e-12]])
def test_any_range_has_an_axis(values):
  svg = charts.line_chart([charts.Series("x", range(len(values)), values)])
  ElementTree.fromstring(svg)
  assert not re.search(r"nan|inf", svg)


def _bars(svg):
  """(title, left edge, colour) of every bar."""
  return [
    (bar[0].text, float(bar.get("x")), bar.get("style"))
    for bar in ElementTree.fromstring(svg).iter("rect")
  ]


def test_a_histogram_counts_from_each_edge_up_to_the_next():
  bars = _bars(charts.histogram([3, 4, 4, 7, 8], 4, "tokens"))
  assert [title for title, _, _ in bars] == [
    "0 to 4 tokens: 1", "4 to 8 tokens: 3", "8 to 12 tokens: 1"
  ]  # fmt: skip


def test_bars_beyond_the_mark_are_of_another_colour_and_the_mark_is_on_the_axis():
  svg = charts.histogram([1, 2, 9], 1, "tokens", mark=8)
  colors = {title.split(":")[0]: style for title, _, style in _bars(svg)}
  assert colors["8 to 9 tokens"] != colors["7 to 8 tokens"] == colors["1 to 2 tokens"]
  (mark,) = [e for e in ElementTree.fromstring(svg).iter("line") if e.get("class") != "grid"]
  edges = {title: x for title, x, _ in _bars(svg)}
  assert float(mark.get("x1")) == pytest.approx(edges["8 to 9 tokens: 0"], abs=0.6)
  for value in (0.0, 0.5, 1.0):
    ElementTree.fromstring(charts.histogram([value], 0.05, "IoU"))


@pytest.mark.parametrize("lo, hi", [(0.0013, 7.2), (0.4, 0.5), (1.0, 1000.0), (5.0, 5.0)])
def test_log_ticks_enclose_the_values(lo, hi):
  ticks = charts._log_ticks(lo, hi)
  assert ticks[0] <= lo and ticks[-1] >= hi
  assert 2 <= len(ticks) <= 14


def test_a_smoothed_constant_is_that_constant_from_the_start():
  assert charts.smoothed([2.0, 2.0, math.nan, 2.0], 5) == pytest.approx([2.0] * 4)


@pytest.mark.parametrize(
  "value, want",
  [(0, "0"), (0.25, "0.25"), (1234.5, "1234"), (25000, "25k"), (2.5e6, "2.5M"), (3e-5, "3e-5")],
)
def test_numbers_for_people(value, want):
  assert charts.number(value) == want
