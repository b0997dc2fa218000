"""Scores of segmentation: do the masks of an answer cover what they should?"""

from paligemma_jax.metrics import matching


def score(rows: list[dict]) -> dict[str, float]:
  """Mean IoU of masks at the resolution of the picture, 0..1, over all true masks of all rows.

  A row with one truth is read as the reference reads it: the first predicted object counts, the
  rest is ignored. With n truths the first n count, paired by label so that the summed mask IoU is
  largest.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label", "box": [x0, y0, x1, y1] in pixels,
      "mask": bool[H, W]}; "mask" is None for an object whose text is invalid (no codes, or a box
      without pixels).

  Returns:
    "mask_iou": mean over the truths, 0 without a valid partner; "box_at_0.5", "box_at_0.75": share
    of truths whose box has at least that IoU with its partner's; "invalid": share of the rows with
    truths that have no valid mask. {} if no row has a truth.

  Source: big_vision, evaluators/proj/paligemma/transfers/segmentation.py.
  """
  ious, boxes, invalid, counted = [], [], 0, 0
  for row in rows:
    truths = row["objects"]
    if not truths:
      continue
    guesses = [o for o in row["pred_objects"][: len(truths)] if o.get("mask") is not None]
    ious += matching.assign(matching.overlaps(truths, guesses, _mask_iou)).tolist()
    boxes += matching.assign(matching.overlaps(truths, guesses, _box_iou)).tolist()
    counted += 1
    invalid += not guesses
  if not counted:
    return {}
  return {
    "mask_iou": sum(ious) / len(ious),
    "box_at_0.5": sum(iou >= 0.5 for iou in boxes) / len(boxes),
    "box_at_0.75": sum(iou >= 0.75 for iou in boxes) / len(boxes),
    "invalid": invalid / counted,
  }


def _mask_iou(a: dict, b: dict) -> float:
  return matching.mask_iou(a.get("mask"), b["mask"])


def _box_iou(a: dict, b: dict) -> float:
  return matching.box_iou(a["box"], b["box"])
