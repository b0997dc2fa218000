"""How far the score of a box can be believed: against its overlap with the truth."""

from collections.abc import Mapping, Sequence

import numpy as np

from paligemma_jax.evals import charts
from paligemma_jax.metrics import matching

_BINS = 10  # of the scores, of equal width
_OVERLAP = 0.5  # IoU from which a box counts as right


def points(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
  """Score and overlap of every box that has a score.

  Args:
    rows: with "objects" and "pred_objects", as predictions/NAME.jsonl holds them.

  Returns:
    float64[N] scores, 0..1, and float64[N] IoU with the best truth of the box's label, 0..1; 0
    where there is none.
  """
  scores, ious = [], []
  for row in rows:
    found = [o for o in row.get("pred_objects") or () if o.get("score") is not None]
    truths = [o for o in row.get("objects") or () if o.get("box") is not None]
    table = matching.overlaps(truths, found, matching.object_iou)
    scores += [o["score"] for o in found]
    ious += table.max(axis=0, initial=0.0).tolist()
  return np.array(scores, np.float64), np.array(ious, np.float64)


def binned(scores: np.ndarray, ious: np.ndarray) -> list[tuple[int, float, float, float]]:
  """(boxes, mean score, mean IoU, share of IoU >= 0.5) of every tenth of the scores that has boxes."""
  which = np.minimum((scores * _BINS).astype(int), _BINS - 1)
  parts = [which == k for k in range(_BINS) if (which == k).any()]
  return [
    (int(p.sum()), scores[p].mean(), ious[p].mean(), (ious[p] >= _OVERLAP).mean()) for p in parts
  ]


def error(scores: np.ndarray, ious: np.ndarray) -> float:
  """Expected calibration error: |mean score - share of IoU >= 0.5| over the tenths, by their boxes.

  Source: Guo et al., On Calibration of Modern Neural Networks (arXiv:1706.04599), section 2.
  """
  return sum(n * abs(score - right) for n, score, _, right in binned(scores, ious)) / len(scores)


def figures(rows: Mapping[str, Sequence[dict]]) -> str:
  """HTML: a chart for each evaluation whose boxes have scores; "" if there is none.

  Args:
    rows: of every evaluation, by name.
  """
  charted = [_figure(name, *points(of)) for name, of in rows.items() if any(map(_has_truths, of))]
  charted = "".join(charted)
  return f'<h2>Scores of boxes</h2><div class="charts">{charted}</div>' if charted else ""


def _has_truths(row: dict) -> bool:
  return bool(row.get("objects") and row.get("pred_objects"))


def _figure(name: str, scores: np.ndarray, ious: np.ndarray) -> str:
  if not len(scores):
    return ""
  _, at, overlap, right = zip(*binned(scores, ious))
  lines = [
    charts.Series("as sure as right", (0.0, 1.0), (0.0, 1.0), 5, dashed=True),
    charts.Series("mean IoU", at, overlap, 0),
    charts.Series("IoU ≥ 0.5", at, right, 1),
  ]
  keys = [
    f'<span class="key"><i style="background:var(--c{line.color})"></i>{line.name}</span>'
    for line in lines[1:]
  ]
  note = f"{len(scores):,} boxes by their score; calibration error {error(scores, ious):.3f}"
  keys.append(f'<span class="key">{note}</span>')
  chart = charts.line_chart(lines, bounds=(0.0, 1.0), unit="score")
  return charts.figure(name, "".join(keys), chart)
