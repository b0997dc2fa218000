"""Which example stands where: a function of the seed and of the position alone.

Position p is row p mod B of step p div B. Every source is shuffled anew in each of its epochs and
repeated; a mixture takes from them in a fixed pattern that keeps to their weights at every length.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence

import grain
import numpy as np


def active(sources: Mapping[str, Mapping]) -> dict[str, Mapping]:
  """The sources that take part in a mixture: those with a weight."""
  return {name: c for name, c in sources.items() if c.get("weight", 1.0) > 0}


def order(lengths: Sequence[int], sources: Mapping[str, Mapping], seed: int) -> grain.MapDataset:
  """Position -> (number of the source, record). A source's own order depends on its name alone.

  Args:
    lengths: records of every source.
    sources: name -> config with "weight", all of them `active`.
    seed: of the shuffling.
  """
  streams = []
  for number, (length, name) in enumerate(zip(lengths, sources, strict=True)):
    ds = grain.MapDataset.range(length).map(functools.partial(_tagged, number))
    ds = ds.seed(zlib.crc32(f"{seed}/{name}".encode())).shuffle()
    streams.append(ds.repeat())  # a finite source would end the mixture
  return _mixed(streams, _shares(sources))


def source_numbers(sources: Mapping[str, Mapping], start: int, stop: int) -> np.ndarray:
  """int32[stop - start]: the number of the source of every position, which needs no seed."""
  pattern = _pattern(_shares(sources))
  return np.array([pattern[p] for p in range(start, stop)], np.int32)


@functools.lru_cache(maxsize=8)
def _pattern(shares: tuple[float, ...]) -> grain.MapDataset:
  return _mixed([grain.MapDataset.source([k]).repeat() for k in range(len(shares))], shares)


def _shares(sources: Mapping[str, Mapping]) -> tuple[float, ...]:
  weights = [float(c.get("weight", 1.0)) for c in sources.values()]
  return tuple(w / sum(weights) for w in weights)


def _mixed(streams: list[grain.MapDataset], shares: Sequence[float]) -> grain.MapDataset:
  return streams[0] if len(streams) == 1 else grain.MapDataset.mix(streams, shares)


def _tagged(number: int, i: int) -> tuple[int, int]:
  return number, int(i)
