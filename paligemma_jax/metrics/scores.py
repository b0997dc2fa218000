"""What a score is made of: terms of every row, so that one row, all rows and samples of them count.

A metric is written as a function from rows to terms: for each name an array float64[N], NaN where a
row does not count, or a pair (numerators, denominators), each float64[N]. The score is the mean of
the array, or the quotient of the pair's sums. Both are weighted sums, so a bootstrap of thousands of
samples is one product of matrices (`intervals`).
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import targets

Terms = dict[str, np.ndarray | tuple[np.ndarray, np.ndarray]]
Sums = dict[str, tuple[np.ndarray, np.ndarray]]
Scores = dict[str, float]


class Score:
  """A metric: rows -> {name: value}.

  Args:
    terms: rows -> terms, see above. Its docstring is the metric's. Arrays may be longer or shorter
      than the rows (pairs of questions): their places are what a bootstrap draws.
    finish: {name: (summed numerators, summed denominators)}, float64[S] each, of S samples -> what
      to report, {name: float64[S]}; None: the quotients.
    alone: names that say how good a single row is, best first; none: {} for every row.
    target: what it compares predictions with.
    check: raises a UserError for a row, without prediction, that cannot be scored.
  """

  def __init__(
    self,
    terms: Callable[[list[dict]], Terms],
    finish: Callable[[Sums], dict[str, np.ndarray]] | None = None,
    alone: Sequence[str] = (),
    target: targets.Target = targets.ANSWERS,
    check: Callable[[dict], object] = lambda row: None,
  ):
    self.terms, self.finish, self.alone = terms, finish or quotients, alone
    self.target, self.check = target, check
    functools.update_wrapper(self, terms)

  def __call__(self, rows: list[dict]) -> Scores:
    """The scores of all rows; a name that no row counts for is left out.

    Raises:
      errors.UserError: no row has a truth to compare with, or one has another kind of truth.
    """
    if not any([self.target.of(row) for row in rows]):  # a list: each row is looked at
      raise errors.UserError(self.target.missing(len(rows)))
    units, weigh = self.weighted(rows)
    values = weigh(np.ones((1, units)))
    return {name: float(v[0]) for name, v in values.items() if not np.isnan(v[0])}

  def per_row(self, rows: list[dict]) -> list[Scores]:
    """For each row the scores that say how good it is, seen as one of all these rows."""
    values = self.finish({name: _pair(term) for name, term in self.terms(rows).items()})
    out = [{} for _ in rows]
    for name in self.alone:
      for scores, value in zip(out, values.get(name, ())):
        if not np.isnan(value):
          scores[name] = float(value)
    return out

  def weighted(self, rows: list[dict]) -> tuple[int, Callable[[np.ndarray], dict]]:
    """How many units a sample draws from, and weights float64[S, units] -> {name: float64[S]}.

    A value is NaN where nothing counts.
    """
    terms = self.terms(rows)
    pairs = np.array([_pair(term) for term in terms.values()], np.float64)
    units = pairs.shape[-1]
    columns = pairs.reshape(-1, units)

    def weigh(weights):
      sums = (columns @ weights.T).reshape(len(terms), 2, -1)
      return self.finish(dict(zip(terms, map(tuple, sums))))

    return units, weigh


class Joined(Score):
  """Scores of several metrics under one name: answers are generated once.

  Args:
    *parts: metrics that compare with the same kind of truth and draw whole rows in a bootstrap; their
      names differ. The first is the headline.
  """

  def __init__(self, *parts: Score):
    self.parts, self.target, self.check = parts, parts[0].target, parts[0].check
    self.most_samples = min(getattr(part, "most_samples", 10**9) for part in parts)

  def per_row(self, rows: list[dict]) -> list[Scores]:
    """As `Score.per_row`."""
    return [_merged(found) for found in zip(*(part.per_row(rows) for part in self.parts))]

  def weighted(self, rows: list[dict]):
    """As `Score.weighted`."""
    weigh = [part.weighted(rows)[1] for part in self.parts]
    return len(rows), lambda weights: _merged(one(weights) for one in weigh)


def _merged(found) -> dict:
  return {name: value for one in found for name, value in one.items()}


def of_terms(**about) -> Callable[..., Score]:
  """Makes a `Score` of a function from rows to terms: `@scores.of_terms(alone=("acc",))`."""
  return lambda terms: Score(terms, **about)


def array(values: Sequence[float | bool | None]) -> np.ndarray:
  """float64[N] with NaN for None."""
  return np.array([np.nan if v is None else v for v in values], np.float64)


def only(values: np.ndarray, counts: Sequence[bool]) -> np.ndarray:
  """The values where `counts`, NaN elsewhere."""
  return np.where(np.asarray(counts, bool), values, np.nan)


def count(counts: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
  """Terms whose score is the number of rows that count; with none the name is left out."""
  counts = np.asarray(counts, np.float64)
  return counts * len(counts), np.full(len(counts), float(counts.any()))


def mean(values: Sequence[np.ndarray]) -> np.ndarray:
  """Mean of K values float64[S] in every sample, over those that are not NaN; NaN if none is."""
  seen = ~np.isnan(values)
  return quotient(np.where(seen, values, 0.0).sum(axis=0), seen.sum(axis=0))


def quotient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
  """top / bottom, NaN where bottom is 0."""
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(bottom == 0, np.nan, top / bottom)


def quotients(sums: Sums) -> dict[str, np.ndarray]:
  """The quotient of every pair."""
  return {name: quotient(*pair) for name, pair in sums.items()}


def _pair(term) -> tuple[np.ndarray, np.ndarray]:
  if isinstance(term, tuple):
    return term
  counts = ~np.isnan(term)
  return np.where(counts, term, 0.0), counts.astype(np.float64)
