"""How sure a score is: bootstrap confidence intervals."""

from collections.abc import Callable

import numpy as np

_SLOW_SAMPLES = 100  # of a user's function, which is called for every one
_CHUNK = 2**22  # weights at a time


def interval(
  score: Callable[[list[dict]], dict[str, float]],
  rows: list[dict],
  level: float = 0.95,
  samples: int = 1000,
  seed: int = 0,
) -> dict[str, tuple[float, float]]:
  """Percentile bootstrap: what the scores of equally many examples, drawn again, would be.

  What the examples give to a score is worked out once and summed with other weights for each
  sample; so CIDEr keeps the document frequencies of all rows, and BLEU sums its counts again. Samples
  where nothing counts for a name are left out of its interval. Numbers of rows ("num/…", "total")
  have none.

  Args:
    score: a metric of `METRICS`, or any function from rows to {name: value}: that one is called for
      every sample, at most 100 of them.
    level: share of the samples inside, 0..1.
    samples: how many.
    seed: of the draws; the same rows and seed give the same interval.

  Returns:
    {name: (low, high)}.

  Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
  """
  rng = np.random.default_rng(seed)
  if hasattr(score, "weighted"):
    units, weigh = score.weighted(rows)
    samples = min(samples, getattr(score, "most_samples", samples))
    step = max(1, _CHUNK // max(units, 1))
    parts = [
      weigh(_weights(rng, min(step, samples - done), units)) for done in range(0, samples, step)
    ]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  else:
    values = _called(score, rows, rng, min(samples, _SLOW_SAMPLES))
  tail = (1 - level) / 2
  found = {}
  for name, value in values.items():
    value = value[~np.isnan(value)]
    if len(value) and name != "total" and not name.startswith("num/"):
      found[name] = tuple(float(q) for q in np.quantile(value, (tail, 1 - tail)))
  return found


def _weights(rng: np.random.Generator, samples: int, units: int) -> np.ndarray:
  """float64[samples, units]: how often each unit is drawn."""
  drawn = rng.integers(units, size=(samples, units)) + np.arange(samples)[:, None] * units
  return np.bincount(drawn.ravel(), minlength=samples * units).reshape(samples, units).astype(float)


def _called(score, rows, rng, samples) -> dict[str, np.ndarray]:
  drawn = [
    score([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(samples)
  ]
  names = dict.fromkeys(name for one in drawn for name in one)
  return {name: np.array([one.get(name, np.nan) for one in drawn]) for name in names}
