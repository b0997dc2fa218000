"""Scores of table structure: HTML tables as trees (TEDS) and as grids (GriTS)."""

import dataclasses
import difflib
import functools
import html.parser
import itertools
import re

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import matching, scores, targets, text

_SPANS = ("colspan", "rowspan")
_CELLS = ("td", "th")
_PARTS = ("thead", "tbody", "tfoot")
_ENDS = dict.fromkeys(_CELLS, _CELLS) | {"tr": (*_CELLS, "tr")}  # what else a new one ends
_ENDS |= dict.fromkeys(_PARTS, (*_CELLS, "tr", *_PARTS))
_VOID = ("br", "hr", "img", "wbr")  # have no end tag
_MAX_SPAN = 100  # of a grid: an answer of a few tokens must not ask for a million cells


@scores.of_terms(
  alone=("teds", "teds_struct", "grits_top", "grits_con"), check=lambda row: _true_table(row)
)
def teds(rows: list[dict]) -> scores.Terms:
  """How like the predicted HTML table is to the true one, 1 at best, mean over the tables.

  A prediction without a table scores 0; edits can outnumber nodes, then TEDS is negative. Of the
  attributes colspan and rowspan count.

  Returns:
    "teds": 1 - tree edit distance / nodes of the larger tree, the texts of cells compared by their
    normalised Levenshtein distance; "teds_struct": the same without texts; "grits_top" and
    "grits_con": F-score of the most similar sub-grids, cells compared by their spans and by text.

  Raises:
    errors.UserError: apted is not installed, or a truth is no table.

  Source: TEDS: Zhong et al., arXiv:1911.10683, section 5, and ibm-aur-nlp/PubTabNet, src/metric.py;
  GriTS: Smock et al., arXiv:2203.12555, and microsoft/table-transformer, src/grits.py:
  grits_from_html.
  """
  terms = {"teds": [], "teds_struct": [], "grits_top": [], "grits_con": []}
  for row in rows:
    wanted = _true_table(row)
    values = (None,) * 4 if wanted is None else _compare(parse(row["prediction"]), wanted)
    for column, value in zip(terms.values(), values):
      column.append(value)
  return {name: scores.array(column) for name, column in terms.items()}


@dataclasses.dataclass
class Node:
  """An element of a table.

  Attributes:
    tag: "table", "tr", "td", "b" and so on.
    spans: its columns and rows, (1, 1) for most.
    content: of a cell, its characters, and the tags inside it as whole items.
    children: the elements in it.
  """

  tag: str
  spans: tuple[int, int] = (1, 1)
  content: list[str] = dataclasses.field(default_factory=list)
  children: list["Node"] = dataclasses.field(default_factory=list)

  def size(self) -> int:
    """Elements below this one, those in the texts of cells included."""
    return sum(1 + child.size() for child in self.children)


def _true_table(row: dict) -> Node | None:
  """The true table of a row; None: it has no truth."""
  for truth in targets.answers(row)[:1]:
    found = parse(truth)
    if found is None:
      raise errors.UserError(f"teds: a truth is no <table> with rows: {truth[:80]!r}")
    return found
  return None


def parse(source: str) -> Node | None:
  """The first table of an HTML text; None if there is none or it has no rows."""
  parser = _Parser()
  parser.feed(re.sub("<[^<>]*$", "", source))  # an answer may be cut off within a tag
  parser.close()
  table = parser.table
  return table if table is not None and table.size() else None


class _Parser(html.parser.HTMLParser):
  """Builds the tree of the first table; what is left open ends where HTML says."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.table, self.open = None, []

  def handle_starttag(self, tag, attrs):
    if tag == "table" and self.table is None:
      self.table = Node(tag)
      self.open = [self.table]
    elif self.open:
      while self._end(_ENDS.get(tag, ())):
        pass
      values = dict(attrs)
      spans = tuple(int(v) if (v := values.get(s) or "").isdecimal() else 1 for s in _SPANS)
      self._note(f"<{tag}>")
      self.open[-1].children.append(Node(tag, spans))
      self.open.append(self.open[-1].children[-1])
      if tag in _VOID:
        self._end([tag])

  def handle_endtag(self, tag):
    self._end([tag])

  def handle_data(self, data):
    self._note(*data)

  def _note(self, *items):
    """Adds to the content of the cell that is open, if one is."""
    cells = [node for node in self.open if node.tag in _CELLS]
    if cells:
      cells[-1].content.extend(items)

  def _end(self, tags) -> bool:
    """Ends the innermost element with one of these tags and all that is open in it."""
    if not any(node.tag in tags for node in self.open):
      return False
    ended = None
    while ended is None or ended.tag not in tags:
      ended = self.open.pop()
      self._note(f"</{ended.tag}>")  # nothing where the cell itself ended
    return True


def _compare(found: Node | None, wanted: Node) -> tuple[float, float, float, float]:
  """teds, teds_struct, grits_top and grits_con of two tables."""
  if found is None:
    return (0.0,) * 4
  nodes = max(found.size(), wanted.size())
  trees = [1 - _tree_distance(found, wanted, has_text) / nodes for has_text in (True, False)]
  grids = _grid(wanted), _grid(found)  # in this order: texts and ties are not symmetric
  return *trees, _grits(*grids, _span_overlap), _grits(*grids, _text_similarity)


def _tree_distance(found: Node, wanted: Node, has_text: bool) -> float:
  try:
    import apted
  except ImportError:
    raise errors.UserError(
      "teds needs apted, which is not installed; pip install paligemma_jax[metrics]"
    ) from None

  class Costs(apted.Config):
    valuecls = float

    def children(self, node):
      return () if node.tag == "td" else node.children

    def rename(self, a, b):
      if a.tag != b.tag:
        return 1.0
      if a.tag != "td":  # spans and texts of other elements do not count, those of th neither
        return 0.0
      if a.spans != b.spans:
        return 1.0
      longest = max(len(a.content), len(b.content))
      return text.distance(a.content, b.content) / longest if has_text and longest else 0.0

  return apted.APTED(found, wanted, Costs()).compute_edit_distance()


def _grid(table: Node) -> list[list[tuple]]:
  """The cells of every row and column: (x0, y0, x1, y1 as seen from there, text).

  Where cells overlap the later one lies on top, and rows may reach below the last `tr`.
  """
  grid = {}
  for y, row in enumerate(_rows(table)):
    for cell in (child for child in row.children if child.tag in _CELLS):
      x = next(x for x in itertools.count() if (y, x) not in grid)
      width, height = (max(1, min(n, _MAX_SPAN)) for n in cell.spans)
      content = _words(cell)
      for i, j in itertools.product(range(height), range(width)):
        grid[y + i, x + j] = (-j, -i, width - j, height - i, content)
  if not grid:
    return []
  height, width = (1 + max(axis) for axis in zip(*grid))
  empty = (0, 0, 1, 1, "")
  return [[grid.get((y, x), empty) for x in range(width)] for y in range(height)]


def _words(cell: Node) -> str:
  """The text of a cell, with a space where a tag stands between two texts."""
  runs = itertools.groupby(cell.content, key=lambda item: len(item) == 1)
  return " ".join("".join(run) for is_text, run in runs if is_text)


def _rows(node: Node) -> list[Node]:
  if node.tag == "tr":
    return [node]
  return [row for child in node.children for row in _rows(child)]


def _span_overlap(a: tuple, b: tuple) -> float:
  """What two cells share of the smallest box around both, as the authors' code has it."""
  around = [f(x, y) for f, x, y in zip((min, min, max, max), a, b)]
  return matching.intersection(a[:4], b[:4]) / matching.area(around)


def _text_similarity(wanted: tuple, found: tuple) -> float:
  return difflib.SequenceMatcher(None, wanted[4], found[4]).ratio()


def _grits(a: list[list[tuple]], b: list[list[tuple]], similarity) -> float:
  """2 · summed similarity of aligned cells / cells of both; rows and columns align on their own."""
  cells = [len(grid) * len(grid[0]) if grid else 0 for grid in (a, b)]
  if not all(cells):
    return 0.0
  known = functools.cache(similarity)
  table = np.array([[[[known(p, q) for q in s] for p in r] for s in b] for r in a])
  table = table.transpose(0, 2, 1, 3)  # rows and columns of a, rows and columns of b
  rows = _align(table.transpose(0, 2, 1, 3))
  columns = _align(table.transpose(1, 3, 0, 2))
  total = sum(table[i, k, j, m] for i, j in rows for k, m in columns)
  return float(2 * total / sum(cells))


def _align(table: np.ndarray) -> list[tuple[int, int]]:
  """Which lines of two grids belong together, in order, by how well their cells align.

  Args:
    table: float[A, B, K, M], similarity of cell k of line a with cell m of line b.
  """
  gains = np.zeros((table.shape[0] + 1, table.shape[1] + 1, *(n + 1 for n in table.shape[2:])))
  for k, m in itertools.product(*map(range, table.shape[2:])):
    both = gains[1:, 1:, k, m] + table[:, :, k, m]
    one = np.maximum(gains[1:, 1:, k, m + 1], gains[1:, 1:, k + 1, m])
    gains[1:, 1:, k + 1, m + 1] = np.maximum(both, one)
  lines = gains[1:, 1:, -1, -1]
  best = np.zeros((lines.shape[0] + 1, lines.shape[1] + 1))
  for i, j in itertools.product(*map(range, lines.shape)):
    best[i + 1, j + 1] = max(best[i, j] + lines[i, j], best[i, j + 1], best[i + 1, j])
  pairs, (i, j) = [], lines.shape
  while i and j:
    if best[i, j] == best[i - 1, j - 1] + lines[i - 1, j - 1]:
      i, j = i - 1, j - 1
      pairs.append((i, j))
    elif best[i, j] == best[i - 1, j]:
      i -= 1
    else:
      j -= 1
  return pairs
