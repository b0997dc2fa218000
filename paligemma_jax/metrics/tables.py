"""Scores of table structure: HTML tables as trees (TEDS) and as grids (GriTS)."""

import dataclasses
import difflib
import functools
import html.parser
import itertools

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import matching, scores, text

_SPANS = ("colspan", "rowspan")
_CELLS = ("td", "th")


@scores.of_terms(alone=("teds", "teds_struct", "grits_top", "grits_con"))
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

  Source: TEDS: Zhong et al., arXiv:1911.10683, section 5; GriTS: Smock et al., arXiv:2203.12555.
  """
  terms = {"teds": [], "teds_struct": [], "grits_top": [], "grits_con": []}
  for row in rows:
    values = (None,) * 4
    for truth in text.answers(row)[:1]:
      wanted = parse(truth)
      if wanted is None:
        raise errors.UserError(f"teds: a truth is no <table> with rows: {truth[:80]!r}")
      values = _compare(parse(row["prediction"]), wanted)
    for column, value in zip(terms.values(), values):
      column.append(value)
  return {name: scores.array(column) for name, column in terms.items()}


@dataclasses.dataclass
class Node:
  """An element of a table.

  Attributes:
    tag: "table", "tr", "td" and so on.
    spans: its columns and rows, (1, 1) for most.
    content: of a cell, its characters, and tags inside it as whole items.
    children: what stands in it; of a cell nothing.
  """

  tag: str
  spans: tuple[int, int] = (1, 1)
  content: list[str] = dataclasses.field(default_factory=list)
  children: list["Node"] = dataclasses.field(default_factory=list)

  def size(self) -> int:
    """Elements below this one, tags in the texts of cells included."""
    inside = sum(len(item) > 1 and item[1] != "/" for item in self.content)
    return inside + sum(1 + child.size() for child in self.children)


def parse(source: str) -> Node | None:
  """The first table of an HTML text; None if there is none or it has no rows."""
  parser = _Parser()
  parser.feed(source)
  parser.close()
  table = parser.table
  return table if table is not None and table.size() else None


class _Parser(html.parser.HTMLParser):
  """Builds the tree of the first table."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.table, self.open = None, []

  def handle_starttag(self, tag, attrs):
    if tag == "table" and self.table is None:
      self.table = Node(tag)
      self.open = [self.table]
    elif self.open and self.open[-1].tag in _CELLS and tag not in (*_CELLS, "tr"):
      self.open[-1].content.append(f"<{tag}>")
    elif self.open:
      closed_by = {"td": _CELLS, "th": _CELLS, "tr": (*_CELLS, "tr")}.get(tag, ())
      while self.open[-1].tag in closed_by:
        self.open.pop()
      values = dict(attrs)
      spans = tuple(int(v) if (v := values.get(s) or "").isdecimal() else 1 for s in _SPANS)
      self.open[-1].children.append(Node(tag, spans))
      self.open.append(self.open[-1].children[-1])

  def handle_endtag(self, tag):
    if tag in [node.tag for node in self.open]:
      while self.open.pop().tag != tag:
        pass
    elif self.open and self.open[-1].tag in _CELLS:
      self.open[-1].content.append(f"</{tag}>")

  def handle_data(self, data):
    if self.open and self.open[-1].tag in _CELLS:
      self.open[-1].content.extend(data)


def _compare(found: Node | None, wanted: Node) -> tuple[float, float, float, float]:
  """teds, teds_struct, grits_top and grits_con of two tables."""
  if found is None:
    return (0.0,) * 4
  nodes = max(found.size(), wanted.size())
  trees = [1 - _tree_distance(found, wanted, has_text) / nodes for has_text in (True, False)]
  a, b = _grid(found), _grid(wanted)
  return *trees, _grits(a, b, _span_overlap), _grits(a, b, _text_similarity)


def _tree_distance(found: Node, wanted: Node, has_text: bool) -> float:
  try:
    import apted
  except ImportError:
    raise errors.UserError(
      "teds needs apted, which is not installed; pip install paligemma_jax[metrics]"
    ) from None

  class Costs(apted.Config):
    valuecls = float

    def rename(self, a, b):
      if a.tag != b.tag or a.spans != b.spans:
        return 1.0
      longest = max(len(a.content), len(b.content))
      if not has_text or a.tag != "td" or not longest:
        return 0.0
      return text.distance(a.content, b.content) / longest

  return apted.APTED(found, wanted, Costs()).compute_edit_distance()


def _grid(table: Node) -> list[list[tuple]]:
  """The cells of every row and column: (x0, y0, x1, y1 as seen from there, text)."""
  rows, taken = [], {}
  for y, row in enumerate(_rows(table)):
    x = 0
    for cell in row.children:
      while (y, x) in taken:
        x += 1
      width, height = (max(1, min(n, 1000)) for n in cell.spans)
      content = "".join(item for item in cell.content if len(item) == 1).strip()
      for i, j in itertools.product(range(height), range(width)):
        taken.setdefault((y + i, x + j), (-j, -i, width - j, height - i, content))
      x += width
    rows.append(y)
  columns = max((x + 1 for y, x in taken), default=0)
  empty = (0, 0, 1, 1, "")
  return [[taken.get((y, x), empty) for x in range(columns)] for y in rows]


def _rows(node: Node) -> list[Node]:
  if node.tag == "tr":
    return [node]
  return [row for child in node.children for row in _rows(child)]


def _span_overlap(a: tuple, b: tuple) -> float:
  return matching.box_iou(a[:4], b[:4])


def _text_similarity(a: tuple, b: tuple) -> float:
  return difflib.SequenceMatcher(None, a[4], b[4]).ratio()


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
