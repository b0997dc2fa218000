"""Which prediction stands for which truth: overlaps of boxes and masks, and the best assignment."""

import numpy as np


def intersection(a, b) -> float:
  """Area that two boxes x0 y0 x1 y1 share, pixels²; with an empty or inverted one it is 0."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return float(width * height) if width > 0 and height > 0 else 0.0


def box_iou(a, b) -> float:
  """Intersection over union of two boxes x0 y0 x1 y1, 0..1; an empty or inverted box has none."""
  inside = intersection(a, b)
  return float(inside / (area(a) + area(b) - inside)) if inside else 0.0


def object_iou(a: dict, b: dict) -> float:
  """`box_iou` of two objects, {"box"}."""
  return box_iou(a["box"], b["box"])


def mask_iou(a: np.ndarray | None, b: np.ndarray | None) -> float:
  """Intersection over union of two masks bool[H, W], 0..1; 0 where one is missing or both empty."""
  if a is None or b is None:
    return 0.0
  union = np.count_nonzero(a | b)
  return float(np.count_nonzero(a & b) / union) if union else 0.0


def overlaps(truths: list[dict], found: list[dict], iou) -> np.ndarray:
  """float64[len(truths), len(found)]: `iou(truth, found)`, 0 where the labels differ.

  A missing or empty label agrees with every label: a segment answer need not repeat its name.
  """
  table = np.zeros((len(truths), len(found)))
  for i, truth in enumerate(truths):
    for j, other in enumerate(found):
      a, b = truth.get("label"), other.get("label")
      if not a or not b or a == b:
        table[i, j] = iou(truth, other)
  return table


def assign(table: np.ndarray) -> np.ndarray:
  """Pairs rows with columns, each at most once, so that the sum of the pairs' entries is largest.

  Hungarian method with potentials, O(rows² · columns); entries are not negative.

  Args:
    table: float[R, C].

  Returns:
    float64[R]: the entry of each row's pair, 0 for a row without one.
  """
  if table.shape[0] > table.shape[1]:  # the method below gives every row a column
    table = np.pad(table, ((0, 0), (0, table.shape[0] - table.shape[1])))
  rows, columns = table.shape
  cost = -np.asarray(table, np.float64)
  row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
  owner = np.full(columns + 1, -1)  # which row has the column; the extra column starts a search
  for row in range(rows):
    owner[columns], at = row, columns
    slack, came_from = np.full(columns, np.inf), np.full(columns, columns)
    seen = np.zeros(columns + 1, bool)
    while owner[at] >= 0:  # grow the tree of tight pairs until it reaches a free column
      seen[at] = True
      open_ = ~seen[:columns]
      reduced = cost[owner[at]] - row_price[owner[at]] - column_price[:columns]
      better = open_ & (reduced < slack)
      slack[better], came_from[better] = reduced[better], at
      nearest = int(np.argmin(np.where(open_, slack, np.inf)))
      step = slack[nearest]
      row_price[owner[seen]] += step
      column_price[seen] -= step
      slack[open_] -= step
      at = nearest
    while at != columns:  # hand every column on the way to the row that came before
      owner[at] = owner[came_from[at]]
      at = came_from[at]
  entries = np.zeros(rows)
  for column in np.flatnonzero(owner[:columns] >= 0):
    entries[owner[column]] = table[owner[column], column]
  return entries


def area(box) -> float:
  """Of a box x0 y0 x1 y1, in pixels²."""
  return (box[2] - box[0]) * (box[3] - box[1])
