"""Scores of text spotting: words found at their place and read without a mistake."""

import numpy as np

from paligemma_jax.metrics import matching, scores

_THRESHOLD = 0.5  # IoU from which a word counts as found


@scores.of_terms(alone=("f1", "precision", "recall"))
def text_spotting(rows: list[dict]) -> scores.Terms:
  """Word-level precision, recall and F1 over all pictures.

  A word is right when its box has IoU >= 0.5 with a true one and its text is exactly the same; each
  counts once. A prediction that has such a place but falls on an illegible word counts neither way.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label": the text, "box": [x0, y0, x1, y1]}
      in pixels; a truth with "ignore" true is illegible.

  Returns:
    "f1", "precision", "recall"; one without denominator is left out.

  Source: HierText (arXiv:2203.15143), as PaliGemma 2 (arXiv:2412.03555) counts it.
  """
  table = np.array([_row(row) for row in rows], np.float64).reshape(-1, 3).T
  right, found, wanted = table
  return {"f1": (2 * right, found + wanted), "precision": (right, found), "recall": (right, wanted)}


def _row(row: dict) -> tuple[int, int, int]:
  """Right words, predicted words and true words that count."""
  truths = [o for o in row["objects"] if not o.get("ignore")]
  unread = [o for o in row["objects"] if o.get("ignore")]
  table = np.array(
    [
      [matching.object_iou(t, g) * (t["label"] == g["label"]) for g in row["pred_objects"]]
      for t in truths
    ]
  ).reshape(len(truths), len(row["pred_objects"]))
  right = int(matching.assign((table >= _THRESHOLD).astype(np.float64)).sum())
  free = [g for g, column in zip(row["pred_objects"], table.T) if not (column >= _THRESHOLD).any()]
  spared = sum(any(matching.object_iou(t, g) >= _THRESHOLD for t in unread) for g in free)
  return right, len(row["pred_objects"]) - spared, len(truths)
