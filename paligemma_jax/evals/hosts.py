"""What processes that evaluate together give each other: rows, and arrays that lie on all devices."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from paligemma_jax import errors, sharding


def counted(batches: Iterable[tuple], sizes: list[int]) -> Iterator[tuple]:
  """The batches; `sizes` grows by the number of rows of each."""
  for batch, rows in batches:
    sizes.append(len(rows))
    yield batch, rows


def gathered(rows: list[dict], sizes: Sequence[int]) -> list[dict]:
  """The rows of all processes in the order of the data, which gives each a share of every batch.

  Args:
    rows: of this process.
    sizes: how many of them are of each batch.
  """
  left = iter(rows)
  parts = [(number, list(itertools.islice(left, size))) for number, size in enumerate(sizes)]
  parts = sorted(sharding.gather_rows(parts), key=lambda part: part[0])
  rows = [row for _, part in parts for row in part]
  if not rows:
    raise errors.UserError("nothing to evaluate: no examples")
  return rows


def local(x: jax.Array, size: int) -> np.ndarray:
  """This process's `size` rows of a global array."""
  if jax.process_count() == 1:
    return np.asarray(x)
  x = multihost_utils.process_allgather(x, tiled=True)
  return x[jax.process_index() * size :][:size]


def whole(x: jax.Array) -> np.ndarray:
  """All rows of a global array, on every process."""
  several = jax.process_count() > 1
  return multihost_utils.process_allgather(x, tiled=True) if several else np.asarray(x)
