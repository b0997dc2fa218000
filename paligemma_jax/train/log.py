"""What a training says while it runs: a progress line, metrics.jsonl and TensorBoard events.

Knows no JAX: values arrive as plain floats, after they were fetched.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from paligemma_jax import storage

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
EVAL = "eval/"  # a score's key in metrics.jsonl is eval/NAME/METRIC


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns the whole lines of `workdir`/metrics.jsonl or its parts, in order; no torn last line."""
  path = storage.path(workdir) / METRICS
  return [storage.of_step(line, path) for line in storage.read_lines(path)]


def truncate_metrics(workdir: str | os.PathLike, step: int) -> None:
  """Drops the lines of steps after `step`: the run goes on from there and writes them again."""
  path = storage.path(workdir) / METRICS
  storage.keep_lines(path, lambda line: storage.of_step(line, path)["step"] <= step)


class Log:
  """Writes metrics of numbered steps and keeps one line about the progress.

  Args:
    workdir: where metrics.jsonl and the TensorBoard events go; None writes neither.
    total_steps: of the whole training.
    batch_size: examples a step, over all processes.
    start_step: steps done before; lines of later steps must have been dropped already.
    others: more places for the lines of metrics.jsonl, with `write(line)` and `close()`.
    stream: of the progress line; on a terminal it is rewritten in place, elsewhere a new line
      comes every `interval` seconds. None is silent.
    interval: seconds between progress lines; None for 0.2 on a terminal, else 5.
    clock: seconds, monotonic; for tests.
  """

  def __init__(
    self,
    workdir: str | os.PathLike | None,
    total_steps: int,
    batch_size: int,
    start_step: int = 0,
    *,
    others: Sequence[Any] = (),
    stream: TextIO | None = sys.stderr,
    interval: float | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total, self._batch_size, self._clock = total_steps, batch_size, clock
    self._others, self._stream = others, stream
    self._tty = stream is not None and stream.isatty()
    self._interval = (0.2 if self._tty else 5.0) if interval is None else interval
    self._open_line = False  # the cursor stands behind a progress line
    self._lines = self._board = None
    if workdir is not None:
      import tensorboardX

      path = storage.path(workdir)
      self._lines = storage.Lines(path / METRICS, clock)
      self._events = storage.LocalFolder(path / TENSORBOARD)
      self._board = tensorboardX.SummaryWriter(
        str(self._events.path), purge_step=start_step + 1, flush_secs=10
      )
    self._seconds_per_step: float | None = None
    self.restart(start_step)

  def restart(self, step: int) -> None:
    """Times the steps from here on, where `step` steps are done."""
    self._from, self._since = step, self._clock()
    self._waited = self._device = self._outside = 0.0

  def say(self, text: str) -> None:
    """Prints a line of its own, above the progress line."""
    if self._stream is None:
      return
    if self._open_line:
      self._stream.write("\r\x1b[K" if self._tty else "\n")
      self._open_line = False
    print(text, file=self._stream, flush=True)

  @contextlib.contextmanager
  def outside(self) -> Iterator[Callable[[], float]]:
    """What happens inside (compiling, evaluating, saving) does not count as time of the steps.

    Yields a function that returns the seconds since then.
    """
    start = self._clock()
    try:
      yield lambda: self._clock() - start
    finally:
      self._outside += self._clock() - start

  @contextlib.contextmanager
  def device(self) -> Iterator[None]:
    """What happens inside is waiting for the devices."""
    start = self._clock()
    try:
      yield
    finally:
      self._device += self._clock() - start

  def waited(self, seconds: float) -> None:
    """Adds to the time in which the device had to wait for data."""
    self._waited += seconds

  def write(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
    """Appends one whole line {"step", PREFIX + name: value} and the TensorBoard scalars."""
    line = {"step": step} | {prefix + name: value for name, value in values.items()}
    if self._lines is not None:
      self._lines.append(json.dumps(line))
    if self._board is not None:
      for name, value in line.items():
        if name != "step" and isinstance(value, (int, float)):
          self._board.add_scalar(name, value, step)
    for other in self._others:
      other.write(line)

  def flush(self) -> None:
    """Puts into an object store what it does not have yet; files have it already."""
    if self._lines is not None:
      self._lines.flush()
      self._events.copy()

  def progress(self, step: int, loss: float) -> dict[str, float]:
    """Shows the state after `step` steps, if it is time to.

    Returns:
      {"seconds_per_step", "examples_per_second", "data_wait", "device_wait" (shares, 0..1)} of the
      steps since the last line was shown; empty before a step was done. What is left of the time
      the process itself needed; while it waits for neither, it holds the devices up.
    """
    now = self._clock()
    steps, elapsed = step - self._from, now - self._since - self._outside
    if steps <= 0:
      return {}
    elapsed = max(elapsed, 1e-9)
    speed = {
      "seconds_per_step": elapsed / steps,
      "examples_per_second": steps * self._batch_size / elapsed,
      "data_wait": min(self._waited / elapsed, 1.0),
      "device_wait": min(self._device / elapsed, 1.0),
    }
    if now - self._since >= self._interval or step == self._total:
      self._show(step, loss, speed)
      self.restart(step)
    return speed

  def _show(self, step: int, loss: float, speed: Mapping[str, float]) -> None:
    if self._stream is None:
      return
    mean, last = self._seconds_per_step, speed["seconds_per_step"]
    self._seconds_per_step = mean = last if mean is None else 0.7 * mean + 0.3 * last
    text = (
      f"step {step}/{self._total}  loss {loss:.4f}  {_seconds(last)}/step"
      f"  {speed['data_wait']:.0%} waiting for data"
      f"  {speed['examples_per_second']:.1f} examples/s"
      f"  ETA {_clock_time((self._total - step) * mean)}"
    )
    if self._tty:
      self._stream.write("\r" + text + "\x1b[K")
      self._stream.flush()
      self._open_line = True
    else:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Ends the progress line and flushes what was written."""
    if self._stream is not None and self._open_line:
      print(file=self._stream, flush=True)
      self._open_line = False
    if self._lines is not None:
      self._lines.close()
      self._board.close()
      self._events.close()
      self._lines = self._board = None
    for other in self._others:
      other.close()
    self._others = ()


def _seconds(s: float) -> str:
  return f"{s:.2f} s" if s >= 1 else f"{s * 1e3:.0f} ms"


def _clock_time(seconds: float) -> str:
  minutes, s = divmod(round(seconds), 60)
  h, m = divmod(minutes, 60)
  return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"
