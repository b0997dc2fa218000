"""Scores of referring segmentation: one expression, one mask (RefCOCO and its like)."""

import re

import numpy as np

from paligemma_jax.metrics import matching, scores, targets

_BINS = 1023
_GRAMMAR = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>(?:<seg\d{3}>){16}")


@scores.of_terms(alone=("miou",), target=targets.MASKS)
def refseg(rows: list[dict]) -> scores.Terms:
  """Mean mask IoU of expressions, as big_vision scores the RefCOCO family.

  The prediction must begin with four locations and sixteen codes, y0 x0 y1 x1 with y1 > y0 and
  x1 > x0; what follows is ignored. Else, or if its box has no pixel, it is invalid and scores 0.

  Args:
    rows: with "objects": the one true object, {"box": [x0, y0, x1, y1] in pixels, "mask":
      bool[H, W]} (without a mask, for the box alone, "height" and "width" of the picture); and
      "pred_objects", whose first has the "mask" of the prediction at the picture's size, None if
      there is none. Rows without a true object are not counted.

  Returns:
    "miou"; "boxacc/0.5" and "boxacc/0.75": share of boxes with at least that IoU; "invalid" and
    "total": numbers of rows.

  Source: big_vision, evaluators/proj/paligemma/transfers/segmentation.py.
  """
  found = [_row(row) if row["objects"] else (np.nan,) * 3 for row in rows]
  mask, box, invalid = np.array(found, np.float64).reshape(-1, 3).T
  counts = ~np.isnan(box)
  return {
    "miou": mask,
    "boxacc/0.5": scores.only(box >= 0.5, counts),
    "boxacc/0.75": scores.only(box >= 0.75, counts),
    "invalid": (np.where(counts, invalid, 0) * len(rows), scores.count(counts)[1]),
    "total": scores.count(counts),
  }


def _row(row: dict) -> tuple[float, float, bool]:
  """Mask IoU, NaN without a true mask, box IoU and whether it is invalid."""
  truth = row["objects"][0]
  has_mask = truth.get("mask") is not None
  size = truth["mask"].shape if has_mask else (row["height"], row["width"])
  box = _box(row["prediction"], *size)
  mask = row["pred_objects"][0].get("mask") if box and row["pred_objects"] else None
  box_iou = matching.box_iou(truth["box"], box) if box else 0.0
  mask_iou = matching.mask_iou(truth["mask"], mask) if has_mask else np.nan
  return mask_iou, box_iou, mask is None


def _box(prediction: str, height: int, width: int) -> list[float] | None:
  match = _GRAMMAR.match(prediction)
  if not match:
    return None
  y0, x0, y1, x1 = (int(v) / _BINS for v in match.groups())
  if y1 <= y0 or x1 <= x0 or max(y1, x1) > 1:
    return None
  return [x0 * width, y0 * height, x1 * width, y1 * height]
