"""What processes that evaluate together give each other: rows, and arrays that lie on all devices.

A process answers the rows of a batch that its devices hold (`sharding.rows_here`), in whatever order
the mesh has them. Every row has its place in the order of the data, and what is given to the others
goes by place: a row that several processes hold counts once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from paligemma_jax import errors, exchange


def placed(
  batches: Iterable[tuple], places: list[int], rows_of: Callable[..., tuple[np.ndarray, int]]
) -> Iterator[tuple]:
  """The batches; `places` grows by that of each valid row.

  Args:
    batches: pairs (this process's Batch, its valid rows).
    places: in the order of the data.
    rows_of: Batch -> (which rows of the whole batch its rows are, size of the whole).
  """
  done = 0
  for batch, rows in batches:
    here, size = rows_of(batch)
    places += (done + here[np.asarray(batch.valid)]).tolist()
    done += size
    yield batch, rows


def gathered(rows: list[dict], places: Sequence[int]) -> list[dict]:
  """The rows of all processes in the order of the data.

  Args:
    rows: of this process.
    places: of each of them.
  """
  rows = exchange.by_place(rows, places)
  if not rows:
    raise errors.UserError("nothing to evaluate: no examples")
  return rows


def local(x: jax.Array, here: np.ndarray) -> np.ndarray:
  """The rows `here` of a global array, as numbered over all processes."""
  return exchange.fetch(x)[here]
