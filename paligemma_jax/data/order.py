"""Which example stands where: a function of the seed and of the position alone.

Position p is row p mod B of step p div B. Every source is shuffled anew in each of its epochs and
repeated; a mixture takes from them in a fixed pattern, which is repeated too.
"""

import fractions
import functools
import math
import zlib
from collections.abc import Mapping, Sequence

import grain
import numpy as np

_PERIOD = 2**20  # most positions of a pattern; weights that need more are rounded to its parts


class Order:
  """Position -> (number of the source, record). Picklable."""

  def __init__(self, lengths: Sequence[int], sources: Mapping[str, Mapping], seed: int):
    """A source's own order depends on its name and the seed, not on the other sources.

    Args:
      lengths: records of every source.
      sources: name -> config with "weight", all of them `active`.
      seed: of the shuffling.
    """
    self._numbers, self._ranks, self._counts = _pattern(_weights(sources))
    self._streams, self._lengths = [], list(lengths)
    for length, name in zip(lengths, sources, strict=True):
      ds = grain.MapDataset.range(length).seed(zlib.crc32(f"{seed}/{name}".encode()))
      self._streams.append(ds.shuffle().repeat())

  def __getitem__(self, position: int) -> tuple[int, int]:
    number, taken = self._taken(position)
    return number, int(self._streams[number][taken])

  def visit(self, position: int) -> int:
    """How often the record at this position has stood at earlier ones."""
    number, taken = self._taken(position)
    return taken // self._lengths[number]

  def _taken(self, position: int) -> tuple[int, int]:
    """(number of the source, how many positions before this one are its own)."""
    turn, place = divmod(position, len(self._numbers))
    number = int(self._numbers[place])
    return number, turn * self._counts[number] + int(self._ranks[place])


def active(sources: Mapping[str, Mapping]) -> dict[str, Mapping]:
  """The sources that take part in a mixture: those with a weight."""
  return {name: c for name, c in sources.items() if c.get("weight", 1.0) > 0}


def source_numbers(sources: Mapping[str, Mapping], start: int, stop: int) -> np.ndarray:
  """int32[stop - start]: the number of the source of every position, which needs no seed."""
  numbers, _, _ = _pattern(_weights(sources))
  return numbers[np.arange(start, stop) % len(numbers)]


def _weights(sources: Mapping[str, Mapping]) -> tuple[float, ...]:
  return tuple(float(c.get("weight", 1.0)) for c in sources.values())


@functools.lru_cache(maxsize=8)
def _pattern(weights: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, list[int]]:
  """Numbers int32[P] of the sources, int32[P] of their own positions so far, and their counts in P.

  Every source's positions are spread evenly: its k-th of n in a period is due at (k + 1/2) / n.
  """
  counts = _counts(weights)
  due = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
  numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  ranks = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
  order = np.lexsort((numbers, due))
  return numbers[order], ranks[order], counts


def _counts(weights: tuple[float, ...]) -> list[int]:
  """The smallest whole numbers in the proportion of the weights as they are written."""
  exact = [fractions.Fraction(str(w)) for w in weights]
  common = math.lcm(*(f.denominator for f in exact))
  counts = [int(f * common) for f in exact]
  shared = math.gcd(*counts)
  counts = [n // shared for n in counts]
  if sum(counts) > _PERIOD:
    counts = [max(1, round(n * _PERIOD / sum(counts))) for n in counts]
  return counts
