import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_jax import errors
from paligemma_jax.metrics import tables

pytest.importorskip("apted")


def _table(*rows):
  return "<table>" + "".join(f"<tr>{''.join(row)}</tr>" for row in rows) + "</table>"


def _score(prediction, truth):
  return tables.teds([{"prediction": prediction, "suffix": truth}])


def _td(content, spans=""):
  return f"<td{spans}>{content}</td>"


TWO = _table([_td("ab"), _td("cd")], [_td("e"), _td("f")])  # 6 nodes below the table


@pytest.mark.parametrize(
  "prediction, teds, struct",
  [
    (TWO, 1, 1),
    (_table([_td("ab"), _td("cx")], [_td("e"), _td("f")]), 1 - 0.5 / 6, 1),  # half of one cell
    (_table([_td("ab"), _td("cd")], [_td("e")]), 1 - 1 / 6, 1 - 1 / 6),  # a cell is missing
    (_table([_td("ab"), _td("cd")]), 0.5, 0.5),  # a row with two cells is missing
    (_table([_td("ab", ' colspan="2"'), _td("cd")], [_td("e"), _td("f")]), 1 - 1 / 6, 1 - 1 / 6),
    (TWO.replace("<td>", '<td coords="<loc0001><loc0002>">'), 1, 1),  # places do not count
    ("no table", 0, 0),
    ("<table></table>", 0, 0),
    ("", 0, 0),
  ],
)
def test_trees(prediction, teds, struct):
  got = _score(prediction, TWO)
  assert got["teds"] == pytest.approx(teds)
  assert got["teds_struct"] == pytest.approx(struct)


def test_a_truth_that_is_no_table_is_an_error():
  with pytest.raises(errors.UserError, match="a truth is no <table> with rows: '<thead><tr>"):
    _score(TWO, TWO.removeprefix("<table>").replace("<tr>", "<thead><tr>", 1))


def test_grids():
  less = _table([_td("ab"), _td("cd")])
  got = _score(less, TWO)
  assert got["grits_con"] == pytest.approx(2 * 2 / 6)  # two cells of 2 and of 4 agree
  assert got["grits_top"] == pytest.approx(2 * 2 / 6)
  half = _score(_table([_td("ab"), _td("cx")], [_td("e"), _td("f")]), TWO)
  assert half["grits_con"] == pytest.approx(3.5 / 4)  # "cx" shares half of "cd"
  assert half["grits_top"] == 1


def test_cells_over_several_columns_are_told_apart():
  wide = _table([_td("a", ' colspan="2"')], [_td("b"), _td("c")])
  apart = _table([_td("a"), _td("")], [_td("b"), _td("c")])
  got = _score(apart, wide)
  assert got["grits_top"] == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)
  assert _score(wide, wide) == pytest.approx(dict.fromkeys(got, 1))


def test_tags_that_html_lets_one_leave_out():
  short = "<table><tr><td>ab<td>cd<tr><td>e<td>f</table>"
  assert _score(short, TWO) == pytest.approx(dict.fromkeys(_score(TWO, TWO), 1))


cells = st.builds(_td, st.text("ab<>&", max_size=3).map(lambda t: t.replace("<", "&lt;")))
rows = st.lists(st.lists(cells, min_size=1, max_size=3), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_bounds_and_symmetry(a, b):
  there, back = _score(_table(*a), _table(*b)), _score(_table(*b), _table(*a))
  for name in ("teds", "teds_struct"):  # which of equally good lines align may differ in GriTS
    assert there[name] == pytest.approx(back[name], abs=1e-9)
  assert all(-1 <= value <= 1 + 1e-9 for value in there.values())  # edits may outnumber nodes
  assert there["grits_top"] >= 0 and there["grits_con"] >= 0
  assert _score(_table(*a), _table(*a)) == pytest.approx(dict.fromkeys(there, 1))
