"""Batches that are read ahead, and what may break on the way: a picture, a worker process."""

import multiprocessing
import re
import signal
from collections.abc import Iterator
from typing import Any

import grain
from absl import flags

from paligemma_jax import errors

_THREADS, _AHEAD = 2, 4  # that read without workers; batches read in advance
_SHOWN = 5  # unreadable pictures named in the message
# What a batch brings along: place and message of each of its pictures that could not be read.
Unreadable = list[tuple[str, str]]


class Batches:
  """An iterator that holds threads or processes: close it in a `finally`, or use `with`.

  Attributes:
    unreadable: place -> what is wrong, of the pictures that could not be read so far.
  """

  def __init__(self, elements: grain.MapDataset, workers: int = 0, max_unreadable: int = 0):
    """Starts reading.

    Args:
      elements: of (value, `Unreadable`), in the order in which they are wanted.
      workers: processes that read; 0 reads in threads of this one.
      max_unreadable: different pictures that may be unreadable before iterating raises.
    """
    self.unreadable: dict[str, str] = {}
    self._workers, self._max_unreadable = workers, max_unreadable
    self._others = multiprocessing.active_children()
    self._processes = []
    self._iterator = _started(elements, workers)

  def __iter__(self):
    return self

  def __next__(self) -> Any:
    """The next value.

    Raises:
      errors.UserError: a record cannot be used, or too many pictures cannot be read.
      errors.RunError: a worker process has died.
    """
    if self._iterator is None:
      raise StopIteration
    try:
      value, unreadable = next(self._iterator)
    except RuntimeError as e:
      if not self._workers or "terminated unexpectedly" not in str(e):
        raise
      raise errors.RunError(self._death(str(e))) from None
    if self._workers and not self._processes:  # they start with the first element
      children = multiprocessing.active_children()
      self._processes = [p for p in children if p not in self._others]
    self._count(unreadable)
    return value

  def _count(self, unreadable: Unreadable) -> None:
    self.unreadable.update(unreadable)
    count, limit = len(self.unreadable), self._max_unreadable
    if count > limit:
      shown = list(self.unreadable.values())[:_SHOWN]
      more = [f"… and {count - _SHOWN} more"] if count > _SHOWN else []
      todo = (
        f"{count} unreadable, more than input.max_unreadable={limit} allows; replace them, or"
        " set --config.input.max_unreadable to go on with weight 0 in their places"
      )
      raise errors.UserError("\n".join([*shown, *more, todo]))

  def _death(self, words: str) -> str:
    """What is said about a worker that is gone; grain's words hold its exit code."""
    found = re.search(r"exit code (-?\d+)", words)
    code = int(found[1]) if found else 1
    pids = [str(p.pid) for p in self._processes if p.exitcode not in (None, 0)]
    end = f"was killed by signal {-code} ({signal.Signals(-code).name})"
    if code >= 0:
      end = f"ended with exit status {code}"
    why = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
    name = f"data worker {pids[0]}" if pids else "a data worker"
    return (
      f"{name} (of {self._workers}) {end}{why}. Checkpoints are whole: run the same command again"
      " to go on; if it happens again, with a lower --config.train.workers"
    )

  def close(self) -> None:
    """Stops reading; may be called twice."""
    iterator, self._iterator = self._iterator, None
    if iterator is not None:
      iterator.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def _started(ds: grain.MapDataset, workers: int) -> Iterator:
  """A grain iterator over the elements in order, read ahead by threads or processes."""
  if not workers:
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    return iter(ds.to_iter_dataset(options))
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which a library has no say in
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
  return iter(ds.to_iter_dataset(options).mp_prefetch(processes))
