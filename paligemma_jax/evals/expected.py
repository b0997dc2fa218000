"""Scores beside the published ones: reproduced or not."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_POINT = 0.01  # that a single run may lose: one point of per cent, one of CIDEr
_DEVIATIONS = 3  # of the published runs


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One published score and what was found."""

  name: str
  value: float | None  # None: one of its evaluations did not run or has no such score
  published: float
  std: float | None  # of the published runs; None: not published
  tolerance: float  # how much worse is still as published
  passed: bool | None  # None where there is no value
  source: str


def compare(
  expect: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Mapping[str, float]]
) -> list[Comparison]:
  """One for every published score.

  A score passes unless it is worse than the published one by more than three of its standard
  deviations, or a point (0.01) where that is more; being better is no failure.

  Args:
    expect: a config's `expect`: name -> "scores" ("EVALUATION/METRIC", …, their mean counts),
      "value", "std", "source"; lower is better where the name begins with "-".
    scores: evaluation -> {metric: value}.
  """
  return [_compared(name, e, scores) for name, e in expect.items()]


def _compared(name, e, scores) -> Comparison:
  values = [_value(score, scores) for score in e["scores"]]
  value = None if None in values else float(np.mean(values))
  tolerance, passed = max(_POINT, _DEVIATIONS * (e["std"] or 0.0)), None
  if value is not None:
    lost = value - e["value"] if name.startswith("-") else e["value"] - value
    passed = bool(lost <= tolerance)
  return Comparison(name, value, e["value"], e["std"], tolerance, passed, e["source"])


def _value(score: str, scores) -> float | None:
  evaluation, _, metric = score.partition("/")
  return scores.get(evaluation, {}).get(metric)
