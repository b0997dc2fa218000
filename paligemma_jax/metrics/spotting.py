"""Scores of text spotting: words found at their place and read without a mistake."""

import numpy as np

from paligemma_jax.metrics import matching, scores, targets

_THRESHOLD = 0.5  # IoU from which a word counts as found
_EPSILON = 1e-5  # pixels² that the reference adds to what it divides by


@scores.of_terms(alone=("f1", "precision", "recall"), target=targets.OBJECTS)
def text_spotting(rows: list[dict]) -> scores.Terms:
  """Word-level precision, recall and F1 over all pictures.

  A prediction that lies by half or more on an illegible word does not count. Of the others a word
  is right when it and a true one have their highest IoU with each other, that is at least 0.5, and
  its text is exactly the same.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label": the text, "box": [x0, y0, x1, y1]}
      in pixels; a truth with "ignore" true is illegible.

  Returns:
    "f1", "precision", "recall"; one without denominator is left out.

  Source: HierText (arXiv:2203.15143), google-research-datasets/hiertext, evaluator/evaluator.py
  (its E2E scores, for boxes), as PaliGemma 2 (arXiv:2412.03555) counts it.
  """
  table = np.array([_row(row) for row in rows], np.float64).reshape(-1, 3).T
  right, found, wanted = table
  return {"f1": (2 * right, found + wanted), "precision": (right, found), "recall": (right, wanted)}


def _row(row: dict) -> tuple[int, int, int]:
  """Right words, predicted words and true words that count."""
  truths = [o for o in row["objects"] if not o.get("ignore")]
  unread = [o for o in row["objects"] if o.get("ignore")]
  found = [g for g in row["pred_objects"] if all(_lies_on(g, t) < _THRESHOLD for t in unread)]
  if not truths or not found:
    return 0, len(found), len(truths)
  iou = np.array([[matching.object_iou(t, g) for g in found] for t in truths])
  mates = iou.argmax(axis=1)
  right = sum(
    iou[i, j] >= _THRESHOLD and iou[:, j].argmax() == i and found[j]["label"] == truths[i]["label"]
    for i, j in enumerate(mates)
  )
  return int(right), len(found), len(truths)


def _lies_on(found: dict, unread: dict) -> float:
  """The share of a box that lies on another."""
  shared = matching.intersection(found["box"], unread["box"])
  return shared / (matching.area(found["box"]) + _EPSILON)
