"""Scores of detection: do the boxes of an answer lie where they should?"""

from paligemma_jax.metrics import matching

_THRESHOLD = (
  0.5  # IoU from which a box counts as found, as in PASCAL VOC (doi:10.1007/s11263-009-0275-4)
)


def score(rows: list[dict]) -> dict[str, float]:
  """Mean overlap, recall and precision of boxes, 0..1, over all objects of all rows.

  Within a row, boxes of the same label are paired one to one so that their summed IoU is largest.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label", "box": [x0, y0, x1, y1]} in pixels
      of the same picture. Other rows must not be mixed in.

  Returns:
    "box_iou": mean over the true boxes of the IoU with their partner, 0 without one;
    "recall_at_0.5": share of true boxes whose partner has IoU >= 0.5;
    "precision_at_0.5": share of predicted boxes that are such partners. No truths and nothing
    predicted scores 1: nothing was there to find, nothing was made up.
  """
  total = found = predicted = 0
  overlap = 0.0
  for row in rows:
    truths, guesses = row["objects"], row["pred_objects"]
    best = matching.assign(matching.overlaps(truths, guesses, _iou))
    overlap += best.sum()
    found += int((best >= _THRESHOLD).sum())
    total += len(truths)
    predicted += len(guesses)
  nothing = float(predicted == 0)
  return {
    "box_iou": float(overlap / total) if total else nothing,
    "recall_at_0.5": found / total if total else nothing,
    "precision_at_0.5": found / predicted if predicted else float(total == 0),
  }


def _iou(a: dict, b: dict) -> float:
  return matching.box_iou(a["box"], b["box"])
