"""Batches on their way to the devices, one step ahead of the step that needs them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Feed:
  """Runs `put` over `batches` in a thread, so that the device does not wait for copies.

  Use as an iterator; `close()` ends the thread and closes `batches`. An exception in the thread
  arrives where the batch would have.

  Args:
    batches: iterator, e.g. of numpy batches; closed at the end if it can be.
    put: what is done with every batch in the thread, e.g. copying it to the devices.
    depth: batches that are ready at a time.
  """

  def __init__(self, batches: Iterator, put: Callable[[Any], Any], depth: int = 2):
    self._batches, self._put = batches, put
    self._queue: queue.Queue = queue.Queue(depth)
    self._stop = threading.Event()
    self._error: BaseException | None = None
    self.waited = 0.0  # seconds that the last `next` had to wait
    self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
    self._thread.start()

  def _run(self):
    try:
      for batch in self._batches:
        if not self._offer((self._put(batch), None)):
          return
      self._offer((None, StopIteration()))
    except BaseException as e:  # belongs to whoever waits for the batch
      self._offer((None, e))

  def _offer(self, item) -> bool:
    """Waits for room, but not longer than until `close`."""
    while not self._stop.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def __iter__(self):
    return self

  def __next__(self):
    if self._error is not None:
      raise self._error
    start = time.monotonic()
    batch, self._error = self._queue.get()
    self.waited = time.monotonic() - start
    if self._error is not None:
      raise self._error
    return batch

  def close(self):
    """Ends the thread, then closes the batches."""
    self._stop.set()
    self._thread.join(timeout=60)
    if hasattr(self._batches, "close"):
      self._batches.close()
