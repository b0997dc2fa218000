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


@pytest.mark.parametrize(
  "truth, prediction, teds, struct",
  [
    (  # a tag is an item of the text and a node
      _table([_td("a<br>b"), _td("<b>Total</b>")], [_td("x<sup>2</sup>"), _td("1")]),
      _table([_td("a b"), _td("Total")], [_td("x2"), _td("<i>1</i>")]),
      0.7830687830687831,
      1,
    ),
    (  # texts and spans of <th> do not count, the tags in it do
      "<table><tr><th colspan='2'>net <b>income</b></th></tr><tr><td>1</td><td>2</td></tr></table>",
      "<table><tr><th>income</th><th></th></tr><tr><td>1</td><td>3</td></tr></table>",
      0.5,
      0.6666666666666667,
    ),
    (_table([_td("a"), _td("b")]), "<table><tr><td>a <b>c</td><td>b</i></td></table>", 0.8, 1),
  ],
)
def test_trees_as_the_authors_code_scores_them(truth, prediction, teds, struct):
  """Values of a transcription of ibm-aur-nlp/PubTabNet, src/metric.py: TEDS().evaluate."""
  got = _score(prediction, truth)
  assert got["teds"] == pytest.approx(teds, abs=1e-9)
  assert got["teds_struct"] == pytest.approx(struct, abs=1e-9)


def test_an_answer_that_is_cut_off_within_a_tag_ends_before_it():
  cut = TWO[: TWO.index("</td></tr></table>")]
  for rest in ("<", "</t", "</td", '<td colspan="2'):
    assert _score(cut + rest, TWO) == pytest.approx(dict.fromkeys(_score(TWO, TWO), 1))


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


@pytest.mark.parametrize(
  "truth, prediction, top, con",
  [
    (
      _table([_td("Year", ' colspan="2"'), _td("a", ' rowspan="2"')], [_td("1"), _td("2")]),
      _table([_td("Year", ' rowspan="2"'), _td("b"), _td("a")], [_td("1"), _td("2")]),
      0.5416666666666666,
      0.39999999999999997,
    ),
    (
      _table([_td("net <b>income</b>"), _td(" 10.5")], [_td("x<sup>2</sup> y"), _td("(3)")]),
      _table([_td("net income"), _td("10.5 ")], [_td("x2 y"), _td("3")], [_td(""), _td("(3)")]),
      0.8,
      0.6104761904761905,
    ),
    (  # rows below the last <tr>, and a cell over another
      _table([_td("a", ' rowspan="2"'), _td("b", ' rowspan="2"')]),
      _table([_td("a"), _td("b", ' rowspan="2"')], [_td("c", ' colspan="2"')]),
      0.5,
      0.5,
    ),
    (  # the other way round the texts share less
      _table([_td("bacbd")], [_td("x")]),
      _table([_td("dadcd")], [_td("x")]),
      1,
      0.8000000000000002,
    ),
  ],
)
def test_grids_as_the_authors_code_scores_them(truth, prediction, top, con):
  """Values of a transcription of microsoft/table-transformer, src/grits.py: grits_from_html."""
  got = _score(prediction, truth)
  assert got["grits_top"] == pytest.approx(top, abs=1e-9)
  assert got["grits_con"] == pytest.approx(con, abs=1e-9)


def test_a_span_of_a_million_is_not_a_million_cells():
  endless = _table([_td("ab", ' colspan="1000000" rowspan="1000000"'), _td("cd")])
  assert 0 <= _score(endless, TWO)["grits_top"] < 0.01


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
