"""What counts as right: pure scores on rows of plain Python and numpy; no JAX, no files.

A row is one example: "prediction" (str, what the model wrote), "suffix" (the truth: a string, or a
list of answers) and, for boxes and masks, "objects" and "pred_objects": lists of {"label",
"box": [x0, y0, x1, y1] in pixels, end-exclusive, "mask": bool[H, W] of the whole picture}.
A score is a function from rows to {name: value}, 0..1 except for perplexity, which is in nats.
"""

from collections.abc import Callable

from paligemma_jax import errors
from paligemma_jax.metrics import boxes, likelihood, masks, text

METRICS = {
  "exact_match": text.exact_match,
  "boxes": boxes.score,
  "masks": masks.score,
  "perplexity": likelihood.perplexity,  # the runner generates nothing for it
}
# Those whose score of a single row says how good that row is; galleries sort by it.
PER_ROW = frozenset(METRICS.values())


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
  """The rows, each with "scores": {name: value} of that row alone, {} where that says nothing."""
  return [{**row, "scores": dict(score([row])) if score in PER_ROW else {}} for row in rows]
