"""What the processes of a run give each other; all of them call a function alike."""

import pickle
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def fetch(x: Any) -> np.ndarray:
  """The whole of an array on every process; all of them call it alike if it lies on several."""
  if getattr(x, "is_fully_addressable", True):
    return np.asarray(x)
  return multihost_utils.process_allgather(x, tiled=True)


def gather(rows: list) -> list:
  """Rows of this process -> rows of all processes, in process order, the same everywhere."""
  if jax.process_count() == 1:
    return rows
  data = np.frombuffer(pickle.dumps(rows), np.uint8)
  sizes = multihost_utils.process_allgather(np.array([len(data)])).reshape(-1)
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: len(data)] = data
  parts = multihost_utils.process_allgather(padded)
  return [row for part, n in zip(parts, sizes) for row in pickle.loads(part[:n].tobytes())]


def by_place(rows: Sequence, places: Sequence) -> list:
  """The rows of all processes in the order of their places; of one place one counts."""
  found = dict(gather(list(zip(places, rows, strict=True))))
  return [found[place] for place in sorted(found)]


def of_first(value: Any) -> Any:
  """The value of process 0, in every process; the others' are not looked at."""
  return gather([value] if jax.process_index() == 0 else [])[0]
