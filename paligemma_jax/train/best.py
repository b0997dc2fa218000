"""Which step of a run was the best by one of its scores, and whether the run still gets better."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

from paligemma_jax.train import log as logs

Scores = Sequence[tuple[int, float]]  # (step, score), in the order of the steps


class Criterion(NamedTuple):
  """A score to go by."""

  name: str  # of the evaluation
  metric: str
  sign: int  # 1: higher is better; -1: lower

  @classmethod
  def of(cls, text: str) -> "Criterion":
    """ "val/exact_match", or "-val/perplexity" where lower is better."""
    name, _, metric = text.removeprefix("-").partition("/")
    return cls(name, metric, -1 if text.startswith("-") else 1)


def scores(workdir: str | os.PathLike, criterion: Criterion) -> list[tuple[int, float]]:
  """All of a run so far, from its metrics.jsonl."""
  key = f"{logs.EVAL}{criterion.name}/{criterion.metric}"
  return [(line["step"], line[key]) for line in logs.read_metrics(workdir) if key in line]


def first_best(found: Scores, sign: int) -> tuple[int, float] | None:
  """The first of the best; None if no score is finite: nan and infinities are never the best."""
  finite = _finite(found)
  return max(finite, key=lambda pair: (sign * pair[1], -pair[0])) if finite else None


def stalled(found: Scores, sign: int, patience: int) -> bool:
  """Whether the last `patience` finite scores brought nothing better; never with 0."""
  finite = _finite(found)
  if not patience or len(finite) <= patience:
    return False
  return first_best(finite, sign) in finite[:-patience]


def _finite(found: Scores) -> list[tuple[int, float]]:
  return [pair for pair in found if math.isfinite(pair[1])]
