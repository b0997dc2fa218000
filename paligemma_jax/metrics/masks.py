"""Scores of segmentation: do the masks of an answer cover what they should?"""

import numpy as np

from paligemma_jax.metrics import matching, scores, targets


@scores.of_terms(alone=("mask_iou", "box_at_0.5", "box_at_0.75"), target=targets.MASKS)
def score(rows: list[dict]) -> scores.Terms:
  """Mean IoU of masks at the resolution of the picture, 0..1, over all true masks of all rows.

  A row with one truth is read as the reference reads it: the first predicted object counts, the
  rest is ignored. With n truths the first n count, paired by label so that the summed mask IoU is
  largest.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label", "box": [x0, y0, x1, y1] in pixels,
      "mask": bool[H, W]}; "mask" is None for an object whose text is invalid (no codes, or a box
      without pixels).

  Returns:
    "mask_iou": mean over the truths that have a mask, 0 without a valid partner; "box_at_0.5",
    "box_at_0.75": share of truths whose box has at least that IoU with its partner's; "invalid":
    share of the rows with truths that have no valid mask.

  Source: big_vision, evaluators/proj/paligemma/transfers/segmentation.py.
  """
  columns = np.array([_row_terms(row) for row in rows], np.float64).reshape(-1, 6).T
  iou, half, three_quarters, invalid, masked, total = columns
  return {
    "mask_iou": (iou, masked),
    "box_at_0.5": (half, total),
    "box_at_0.75": (three_quarters, total),
    "invalid": (invalid, (total > 0).astype(np.float64)),
  }


def _row_terms(row: dict) -> tuple[float, int, int, bool, int, int]:
  """Summed mask IoU, boxes above 0.5 and 0.75, no mask at all, true masks and truths of a row."""
  wanted = row["objects"]
  guesses = [o for o in row["pred_objects"][: len(wanted)] if o.get("mask") is not None]
  masks = matching.assign(matching.overlaps(wanted, guesses, _mask_iou)).sum()
  boxes = matching.assign(matching.overlaps(wanted, guesses, _box_iou))
  masked = sum(o.get("mask") is not None for o in wanted)
  invalid = bool(wanted) and not guesses
  return masks, (boxes >= 0.5).sum(), (boxes >= 0.75).sum(), invalid, masked, len(wanted)


def _mask_iou(a: dict, b: dict) -> float:
  return matching.mask_iou(a.get("mask"), b["mask"])


def _box_iou(a: dict, b: dict) -> float:
  return matching.box_iou(a["box"], b["box"])
