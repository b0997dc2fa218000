"""Scores of detection: do the boxes of an answer lie where they should?"""

import numpy as np

from paligemma_jax.metrics import matching, scores, targets

# IoU from which a box counts as found, as in PASCAL VOC (doi:10.1007/s11263-009-0275-4).
_THRESHOLD = 0.5


def _with_nothing(sums: scores.Sums) -> dict[str, np.ndarray]:
  """What has no denominator is 1 where there is nothing at all, else 0."""
  values = scores.quotients(sums)
  nothing = np.isnan(values["box_iou"]) & np.isnan(values["precision_at_0.5"])
  return {name: np.where(np.isnan(v), nothing, v) for name, v in values.items()}


@scores.of_terms(
  alone=("box_iou", "recall_at_0.5", "precision_at_0.5"),
  finish=_with_nothing,
  target=targets.OBJECTS,
)
def score(rows: list[dict]) -> scores.Terms:
  """Mean overlap, recall and precision of boxes, 0..1, over all objects of all rows.

  Within a row, boxes of the same label are paired one to one so that their summed IoU is largest.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label", "box": [x0, y0, x1, y1]} in pixels
      of the same picture. Other rows must not be mixed in. A truth with "iscrowd" or "ignore" is
      not to be found, for answers never name it; nor is what lies by half on it made up.

  Returns:
    "box_iou": mean over the true boxes of the IoU with their partner, 0 without one;
    "recall_at_0.5": share of true boxes whose partner has IoU >= 0.5;
    "precision_at_0.5": share of predicted boxes that are such partners. A row alone, without
    truths and with nothing predicted, has 1: nothing was there to find, nothing was made up.
  """
  columns = np.array([_row_terms(row) for row in rows], np.float64).reshape(-1, 4).T
  overlap, found, total, predicted = columns
  return {
    "box_iou": (overlap, total),
    "recall_at_0.5": (found, total),
    "precision_at_0.5": (found, predicted),
  }


def _row_terms(row: dict) -> tuple[float, int, int, int]:
  """Summed IoU, boxes found, true boxes and predicted boxes of a row."""
  ignored = [o for o in row["objects"] if targets.is_ignored(o)]
  truths = [o for o in row["objects"] if not targets.is_ignored(o)]
  table = matching.overlaps(truths, row["pred_objects"], matching.object_iou)
  on_ignored = matching.overlaps(ignored, row["pred_objects"], _covered).max(axis=0, initial=0)
  counts = (on_ignored < _THRESHOLD) | (table.max(axis=0, initial=0) >= _THRESHOLD)
  best = matching.assign(table[:, counts])
  return best.sum(), int((best >= _THRESHOLD).sum()), len(truths), int(counts.sum())


def _covered(region: dict, guess: dict) -> float:
  """The share of a predicted box that lies on a region."""
  inside = matching.intersection(region["box"], guess["box"])
  return inside / matching.area(guess["box"]) if inside else 0.0
