"""Runs inputs in a process of its own, which may crash, hang or take too much memory, and judges them.

An input is (kind, seed): the same pair is the same input. Right is an exit status of 0; refused is
status 2 with one line that begins with "paligemma: ", or the findings of `data check`, and a folder
in which nothing is new or changed. Everything else is a fault.
"""

import contextlib
import importlib
import io
import logging
import multiprocessing
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

RIGHT, REFUSED, FAULT = "right", "refused", "fault"
MEMORY = 2**30  # bytes that an input may take above what the process held before
_HEADROOM = 4 * MEMORY  # of address space: what asks for more gets a MemoryError


class Result(NamedTuple):
  """What became of one input."""

  kind: str
  seed: int
  outcome: str  # RIGHT, REFUSED, FAULT
  words: str  # the command and what it said
  seconds: float = 0.0
  memory: int = 0  # bytes above what the process held before


class Fault(Exception):
  """Something that must not be: a traceback, two voices, something half-written."""


def run(
  kind: str,
  seeds: Sequence[int],
  folder: pathlib.Path,
  timeout: float = 60,
  module: str = "tests.fuzz.kinds",
) -> Iterator[Result]:
  """Runs the inputs of a kind one after the other.

  Args:
    kind: a key of the module's `KINDS`.
    seeds: of the inputs.
    folder: gets the valid files, and keeps those of every fault in KIND-SEED.
    timeout: seconds until an input counts as hanging.
    module: where the kinds stand.
  """
  left = list(seeds)
  while left:
    here, process = _start(module, kind, folder)
    try:
      while left:
        here.send(left[0])
        if not here.poll(timeout):
          raise TimeoutError(f"no answer after {timeout:g} s")
        result = here.recv()
        left.pop(0)
        yield result
    except (EOFError, ConnectionError, TimeoutError) as e:
      seed = left.pop(0)
      if not isinstance(e, TimeoutError):
        process.join()
      why = str(e) or f"the process died, status {process.exitcode}"
      shutil.copytree(folder / f"{kind}.now", folder / f"{kind}-{seed}", dirs_exist_ok=True)
      yield Result(kind, seed, FAULT, why)
    finally:
      here.close()  # which ends it
      process.join(5)
      process.kill()


def _start(module: str, kind: str, folder: pathlib.Path):
  """A worker process that has accepted the valid files, and the pipe to it."""
  context = multiprocessing.get_context("spawn")
  here, there = context.Pipe()
  process = context.Process(target=_work, args=(there, module, kind, str(folder)), daemon=True)
  process.start()
  there.close()
  try:
    here.recv()
  except EOFError:
    raise RuntimeError(f"{kind}: its valid files are not accepted, see above") from None
  return here, process


def _work(pipe, module: str, kind: str, folder: str) -> None:
  """The life of a worker process."""
  os.environ["PALIGEMMA_CACHE"] = f"{folder}/cache"
  worker = Worker(kind, importlib.import_module(module).KINDS[kind], pathlib.Path(folder))
  pipe.send("ready")
  size = int(_status("VmSize") or 2**36)
  resource.setrlimit(resource.RLIMIT_AS, (size + _HEADROOM, resource.RLIM_INFINITY))
  while True:
    try:
      seed = pipe.recv()
    except EOFError:
      return
    pipe.send(worker.run(seed))


class Worker:
  """Runs inputs of a kind in this process."""

  def __init__(self, name: str, kind, folder: pathlib.Path):
    """Makes the valid files of a `kinds.Kind`, and checks that they are."""
    self.name, self.kind = name, kind
    self.valid, self.now, self.folder = folder / f"{name}.valid", folder / f"{name}.now", folder
    if not self.valid.exists():
      half = folder / f"{name}.making"
      shutil.rmtree(half, ignore_errors=True)
      half.mkdir(parents=True)
      with contextlib.chdir(half), _captured():
        self.kind.make()
      half.rename(self.valid)
    self._copy()
    with contextlib.chdir(self.now):
      for command in self.kind.commands:
        outcome, said = self._command(command)
        assert outcome == RIGHT, f"{command}: {said}"
        for path in pathlib.Path().glob("out*"):
          shutil.rmtree(path) if path.is_dir() else path.unlink()

  def run(self, seed: int) -> Result:
    """Runs one input."""
    self._copy()
    start, before = time.monotonic(), _reset_memory()
    command = "damage"
    with contextlib.chdir(self.now):
      commands = self.kind.damage(random.Random(f"{self.name} {seed}"))
      outcomes = []
      try:
        for command in commands:
          outcomes.append(self._command(command))
        command = "then"
        if outcomes[0][0] == RIGHT:
          self.kind.after()
        outcome, words = next((o for o in outcomes if o[0] == REFUSED), outcomes[-1])
      except Exception as e:
        outcome, words = FAULT, f"{command}: {_told(e)}"
    memory = max(0, (_status("VmHWM") or 0) - before)
    if memory > MEMORY:
      outcome, words = FAULT, f"{memory / 2**30:.1f} GiB; {words}"
    if outcome == FAULT:
      shutil.copytree(self.now, self.folder / f"{self.name}-{seed}", dirs_exist_ok=True)
    return Result(self.name, seed, outcome, words, time.monotonic() - start, memory)

  def _copy(self):
    shutil.rmtree(self.now, ignore_errors=True)
    shutil.copytree(self.valid, self.now, copy_function=os.link)

  def _command(self, command: str | list[str]) -> tuple[str, str]:
    """(outcome, what was said) of a command; raises Fault, or whatever the command raised."""
    from paligemma_jax.cli import main

    argv = shlex.split(command) if isinstance(command, str) else command
    before = _listing()
    with _captured() as said:
      status = main.main(argv)
      out, err = (stream.getvalue() for stream in said)
    if status == 2:
      is_check = argv[:2] == ["data", "check"] and out and not err
      if not is_check and not re.fullmatch(r"paligemma: (.+\n)+", err):
        raise Fault(f"status 2, said {err[-500:]!r}")
      if changed := sorted(set(_listing().items()) ^ set(before.items())):
        raise Fault(f"refused, yet new or changed: {changed[0][0]}")
      return REFUSED, err[11:300] or "findings"
    if status != 0:
      raise Fault(f"status {status}, said {err[-500:]!r}")
    for path in _listing().keys() - before.keys():
      if pathlib.PurePath(path).name.startswith(".") or str(os.getpid()) in path:
        raise Fault(f"ended right, yet left {path}")
    return RIGHT, ""


def _told(e: Exception) -> str:
  if isinstance(e, Fault):
    return str(e)
  frames = traceback.extract_tb(e.__traceback__)
  ours = [f for f in frames if "paligemma_jax" in f.filename and "tests" not in f.filename]
  place = f"{pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "tests"
  return f"{type(e).__name__} at {place}: {str(e)[:300]}"


def _listing() -> dict[str, tuple]:
  """Path -> size and time of all files of the current folder."""
  found = {}
  for path in pathlib.Path().rglob("*"):
    stat = path.lstat()
    found[str(path)] = () if path.is_dir() else (stat.st_size, stat.st_mtime_ns, stat.st_ino)
  return found


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
  """Yields what Python writes to stdout and stderr. Libraries in C are not heard."""
  logging.disable()  # warnings may precede the one line
  with open(os.devnull, "w") as null, io.StringIO() as out, io.StringIO() as err:
    kept = os.dup(2)
    try:
      os.dup2(null.fileno(), 2)
      with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err
    finally:
      os.dup2(kept, 2)
      os.close(kept)
      logging.disable(logging.NOTSET)


def _status(key: str) -> int | None:
  """Bytes that Linux tells of this process; None elsewhere."""
  try:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  except OSError:
    return None
  return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _reset_memory() -> int:
  """Forgets the peak of this process's memory; returns what it holds now, bytes."""
  with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
  return _status("VmRSS") or 0
