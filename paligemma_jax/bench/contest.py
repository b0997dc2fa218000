"""Contenders that do the same work in turns, each in a process of its own."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROUNDS = 5
SECONDS = 1.0  # of one measurement, at least; one job may take longer
LONG = 5.0  # seconds of a job from which 3 rounds are enough


class Failed(Exception):
  """A contender cannot do its work; the message is its own."""


class Contender:
  """A worker that has its model loaded and its jobs compiled.

  Args:
    who: "ours", "eager", "compiled" or "machine"; what follows a space is only a name.
    task: function of the module of that name, see `worker`.
    args: of that function.

  Raises:
    Failed: it cannot.
  """

  def __init__(self, who: str, task: str, args: Sequence[Any] = ()):
    argv = [sys.executable, "-m", "paligemma_jax.bench.worker"]
    self._process = subprocess.Popen(
      argv,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
      | os.environ,  # as `paligemma train`, for all
    )
    opened = self._ask({"who": who, "task": task, "args": list(args)})
    self.name: str = opened["name"]
    self.first: dict[str, Any] = opened["jobs"]  # job -> what it returned at first

  def run(self, job: str, times: int = 1) -> float:
    """Seconds of one of `times` times."""
    return self._ask({"job": job, "times": times})["seconds"]

  def peak(self, job: str) -> dict[str, int]:
    """Bytes while it does the job: {"bytes": of the process, "own": without the libraries}."""
    return self._ask({"peak": job})

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()

  def _ask(self, question: dict) -> dict:
    try:
      self._process.stdin.write(json.dumps(question) + "\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      pass
    answer = self._process.stdout.readline()
    found = json.loads(answer) if answer else {"error": "the process ended"}
    if "error" in found:
      self.close()
      raise Failed(found["error"])
    return found


def race(
  contenders: Mapping[str, Contender],
  jobs: Sequence[str],
  *,
  rounds: int = ROUNDS,
  seconds: float = SECONDS,
) -> dict[str, dict[str, list[float]]]:
  """Lets the contenders do their jobs in turns.

  Args:
    contenders: by name.
    jobs: what each of them does in every round; those it does not know are left out.
    rounds: how often; at most 3 times where a job is `LONG`.
    seconds: that a measurement takes at least: short jobs are done several times, after once that
      is not counted.

  Returns:
    contender -> job -> seconds of one time, round by round.
  """
  taken: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
  times, longest = {}, 0.0
  for name, c in contenders.items():
    for job in (j for j in jobs if j in c.first):
      taken[name][job] = []
      longest = max(longest, once := c.run(job))
      times[name, job] = max(1, math.ceil(seconds / once))
  for _ in range(rounds if longest < LONG else min(rounds, 3)):
    for name, job in times:
      if longest < LONG:  # not counted: the one before still spins, and its data fill the caches
        contenders[name].run(job)
      taken[name][job].append(contenders[name].run(job, times[name, job]))
  return taken


@contextlib.contextmanager
def opened(
  whos: Mapping[str, Sequence[Any]], task: str
) -> Iterator[tuple[dict[str, Contender], dict[str, str]]]:
  """(contenders that are ready, reason of each one that is not), closed at the end.

  Args:
    whos: name of each, as `Contender` takes it -> arguments of its task.
    task: of all.
  """
  ready, failed = {}, {}
  try:
    for who, args in whos.items():
      try:
        ready[who] = Contender(who, task, args)
      except Failed as e:
        failed[who] = str(e)
    yield ready, failed
  finally:
    for c in ready.values():
      c.close()


def spread(seconds: Sequence[float]) -> dict[str, float]:
  """{"median", "lowest", "highest"}."""
  return {
    "median": statistics.median(seconds),
    "lowest": min(seconds),
    "highest": max(seconds),
  }
