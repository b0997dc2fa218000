"""COCO's detection scores: average precision and recall over overlaps, sizes and numbers of boxes."""

import functools

import numpy as np

from paligemma_jax.metrics import matching, scores, targets

MOST = 100  # boxes of a picture and label that count, the surest first
_OVERLAPS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_SHAPE = len(_OVERLAPS), len(_RECALLS)
_SIZES = {  # pixels²
  "all": (0, 1e10),
  "small": (0, 32**2),
  "medium": (32**2, 96**2),
  "large": (96**2, 1e10),
}
_EPS = np.spacing(1)


class _Detection(scores.Score):
  """A score whose terms are curves of precision over recall."""

  most_samples = 100  # of a bootstrap: each sorts out precision and recall anew

  def per_row(self, rows: list[dict]) -> list[scores.Scores]:
    """AP of every picture alone; {} where there is nothing to find."""
    values = [_average(_curves([row], ("all",)), np.ones(1))["AP"] for row in rows]
    return [{} if np.isnan(value) else {"AP": float(value)} for value in values]

  def weighted(self, rows: list[dict]):
    """As `scores.Score.weighted`; a picture that is drawn twice counts twice."""
    curves = self.terms(rows)

    def weigh(weights):
      found = [_average(curves, w) for w in weights]
      return {name: np.array([one[name] for one in found]) for name in found[0]}

    return len(rows), weigh


@functools.partial(_Detection, target=targets.OBJECTS)
def detection(rows: list[dict]) -> dict[str, list["_Curve"]]:
  """COCO's twelve scores of boxes.

  Args:
    rows: with "objects" and "pred_objects", lists of {"label", "box": [x0, y0, x1, y1]} in pixels; a
      truth may have "iscrowd" (1: a group, which any number of boxes may hit) and "area" (of its
      mask, pixels²; else of the box); a prediction "score", how sure it is. Without scores those
      that were written first are the surest.

  Returns:
    "AP" (mean over IoU 0.5 to 0.95 of the mean over labels), "AP50", "AP75", "APs", "APm", "APl" (by
    size of the truth), and the highest recall "AR1", "AR10", "AR100" (boxes a picture and label),
    "ARs", "ARm", "ARl". One without truths (no large objects) is left out; COCO's tool says -1.

  Source: pycocotools, cocoeval.py.
  """
  return _curves(rows, tuple(_SIZES))


class _Curve:
  """All that counts for one label and one range of sizes.

  Attributes:
    tp, fp: bool[10, D] for the overlaps, in order of falling score; a box may be neither.
    row, rank: int[D], its picture, and its place among the picture's boxes of this label.
    truths: float64[N], boxes to find in each picture.
  """

  def __init__(self, matches, truths):
    def join(i, empty):
      return np.concatenate([m[i] for m in matches], axis=-1) if matches else empty

    flat = np.zeros(0)
    order = np.argsort(-join(0, flat), kind="stable")
    self.row, self.rank = (join(i, flat).astype(int)[order] for i in (1, 2))
    none = np.zeros((len(_OVERLAPS), 0), bool)
    self.tp, self.fp = join(3, none)[:, order], join(4, none)[:, order]
    self.truths = truths

  def precision(self, weights: np.ndarray) -> np.ndarray:
    """Interpolated precision float64[10, 101] at every recall; NaN without truths."""
    total = weights @ self.truths
    if not total:
      return np.full(_SHAPE, np.nan)
    w = weights[self.row]
    tp, fp = (np.cumsum(x * w, axis=1) for x in (self.tp, self.fp))
    with np.errstate(invalid="ignore"):
      precision = tp / (tp + fp + _EPS)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    out = np.zeros(_SHAPE)
    for i, recall in enumerate(tp / total):
      at = np.searchsorted(recall, _RECALLS, side="left")
      reached = at < len(recall)
      out[i, reached] = precision[i, at[reached]]
    return out

  def recall(self, weights: np.ndarray, most: int) -> np.ndarray:
    """Highest recall float64[10] with `most` boxes a picture; NaN without truths."""
    total = weights @ self.truths
    if not total:
      return np.full(len(_OVERLAPS), np.nan)
    return (self.tp * (weights[self.row] * (self.rank < most))).sum(axis=1) / total


def _average(curves: dict[str, list[_Curve]], weights: np.ndarray) -> scores.Scores:
  out = {}
  for size, letter in zip(curves, ("", "s", "m", "l")):
    precision = np.array([c.precision(weights) for c in curves[size]]).reshape(-1, *_SHAPE)
    out[f"AP{letter}"] = _mean(precision)
    if not letter:
      out |= {"AP50": _mean(precision[:, :1]), "AP75": _mean(precision[:, 5:6])}
  for most in (1, 10, MOST):
    out[f"AR{most}"] = _mean(np.array([c.recall(weights, most) for c in curves["all"]]))
  for size, letter in zip(curves, ("", "s", "m", "l")):
    if letter:
      out[f"AR{letter}"] = _mean(np.array([c.recall(weights, MOST) for c in curves[size]]))
  return out


def _mean(values: np.ndarray) -> float:
  seen = ~np.isnan(values)
  return float(values[seen].mean()) if seen.any() else np.nan


def _curves(rows: list[dict], sizes: tuple[str, ...]) -> dict[str, list[_Curve]]:
  """One curve for every size and every label that is to be found."""
  labels = dict.fromkeys(o.get("label", "") for row in rows for o in row["objects"])
  matches = {(size, label): ([], np.zeros(len(rows))) for size in sizes for label in labels}
  for i, row in enumerate(rows):
    truths, found = _by_label(row["objects"]), _by_label(_scored(row["pred_objects"]))
    for label in truths.keys() | (found.keys() & labels.keys()):
      wanted = truths.get(label, [])
      guesses = sorted(found.get(label, []), key=lambda o: -o["score"])[:MOST]
      ious = [[_iou(g, t) for t in wanted] for g in guesses]
      for size in sizes:
        parts, number = matches[size, label]
        tp, fp, number[i] = _match(wanted, guesses, ious, _SIZES[size])
        if guesses:
          points = np.array([g["score"] for g in guesses], np.float64)
          parts.append((points, np.full(len(guesses), i), np.arange(len(guesses)), tp, fp))
  return {size: [_Curve(*matches[size, label]) for label in labels] for size in sizes}


def _match(wanted, guesses, ious, size) -> tuple[np.ndarray, np.ndarray, int]:
  """Greedy matches of one picture and label: tp, fp bool[10, D], and how many truths count."""
  areas = [t["area"] if t.get("area") is not None else matching.area(t["box"]) for t in wanted]
  crowd = [bool(t.get("iscrowd")) for t in wanted]
  ignored = [c or not size[0] <= a <= size[1] for c, a in zip(crowd, areas)]
  order = sorted(range(len(wanted)), key=lambda j: ignored[j])
  outside = [not size[0] <= matching.area(g["box"]) <= size[1] for g in guesses]
  tp, fp = (np.zeros((len(_OVERLAPS), len(guesses)), bool) for _ in range(2))
  for t, least in enumerate(_OVERLAPS):
    taken = set()
    for d, own in enumerate(ious):
      best, partner = min(least, 1 - 1e-10), None
      for j in order:
        if j in taken and not crowd[j]:
          continue
        if partner is not None and not ignored[partner] and ignored[j]:
          break  # a truth that counts goes before those that do not
        if own[j] >= best:
          best, partner = own[j], j
      if partner is None:
        fp[t, d] = not outside[d]
      else:
        taken.add(partner)
        tp[t, d] = not ignored[partner]
  return tp, fp, ignored.count(False)


def _scored(objects: list[dict]) -> list[dict]:
  """The objects, each with a "score"; the earlier the higher where there is none."""
  return [
    o if o.get("score") is not None else {**o, "score": 1 / (1 + rank)}
    for rank, o in enumerate(objects)
  ]


def _by_label(objects: list[dict]) -> dict[str, list[dict]]:
  groups = {}
  for o in objects:
    groups.setdefault(o.get("label", ""), []).append(o)
  return groups


def _iou(guess: dict, truth: dict) -> float:
  """Overlap of two boxes; over the guess's own area where the truth is a crowd."""
  if not truth.get("iscrowd"):
    return matching.object_iou(guess, truth)
  inside = matching.intersection(guess["box"], truth["box"])
  return inside / matching.area(guess["box"]) if inside else 0.0
