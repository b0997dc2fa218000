"""What counts as right: pure scores on rows of plain Python and numpy; no JAX, no files.

A row is one example: "prediction" (str, what the model wrote), "suffix" (the truth: a string, or a
list of answers) and, for boxes and masks, "objects" and "pred_objects": lists of {"label",
"box": [x0, y0, x1, y1] in pixels, end-exclusive, "mask": bool[H, W] of the whole picture}.
A score is a function from rows to {name: value}: 0..1, but CIDEr 0..10, perplexity in nats, error
rates from 0 on (lower is better), and numbers of rows, "num/…", "invalid" and "total".
"""

from collections.abc import Callable

from paligemma_jax import errors
from paligemma_jax.metrics import (
  boxes,
  caption,
  choice,
  counting,
  detection,
  likelihood,
  masks,
  molecules,
  music,
  radiology,
  refseg,
  scores,
  spotting,
  tables,
  text,
  vqa,
)
from paligemma_jax.metrics.intervals import interval

__all__ = ["METRICS", "interval", "resolve", "with_scores"]

METRICS = {
  "exact_match": text.exact_match,
  "perplexity": likelihood.perplexity,  # the runner generates nothing for it
  "vqa_v2": vqa.vqa_v2,
  "vqa": vqa.vqa,
  "vqa_lower": vqa.vqa_lower,
  "relaxed_accuracy": text.relaxed_accuracy,
  "cider": caption.cider,
  "caption": caption.caption,
  "nocaps": caption.nocaps,
  "pope": choice.pope,
  "pope_official": choice.pope_official,
  "mmvp": choice.mmvp,
  "rsvqa": vqa.rsvqa,
  "tallyqa": counting.tallyqa,
  "science_qa": choice.science_qa,
  "boxes": boxes.score,
  "masks": masks.score,
  "detection": detection.detection,
  "boxes_ap": scores.Joined(boxes.score, detection.detection),
  "refseg": refseg.refseg,
  "text_spotting": spotting.text_spotting,
  "teds": tables.teds,
  "molecules": molecules.molecules,
  "music": music.music,
  "radgraph": radiology.radgraph,
}


def resolve(metric: str | Callable | None, where: str = "metric") -> Callable[[list[dict]], dict]:
  """The function that a name stands for; a function is its own; None or "" scores nothing.

  Args:
    metric: a key of `METRICS`, or rows -> {name: value}.
    where: how the error calls the place, e.g. "evals.minival.metric".

  Raises:
    errors.UserError: the name is unknown.
  """
  if callable(metric):
    return metric
  if not metric:
    return lambda rows: {}
  if metric not in METRICS:
    hint = errors.did_you_mean(metric, METRICS)
    raise errors.UserError(f"{where}: {metric!r} is unknown{hint}")
  return METRICS[metric]


def with_scores(score: Callable[[list[dict]], dict], rows: list[dict]) -> list[dict]:
  """The rows, each with "scores": {name: value} that say how good it is; {} of a user's function."""
  per_row = score.per_row(rows) if hasattr(score, "per_row") else [{}] * len(rows)
  return [{**row, "scores": dict(own)} for row, own in zip(rows, per_row)]
