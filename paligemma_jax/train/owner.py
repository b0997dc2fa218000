"""One run at a time in a workdir: who is at work there is known, and gives way when it dies.

On this machine and on file systems with locks the owner holds a lock on WORKDIR/owner.json, which
the system takes back from a process that is dead, whatever killed it and whoever has its number
now. Where there are no locks (`gs://`, some network file systems) it writes the file anew every
few seconds: one that stays as it is for a minute belongs to nobody. Clocks are not compared.
"""

import contextlib
import datetime
import errno
import fcntl
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from paligemma_jax import errors, exchange, storage
from paligemma_jax.train import processes

OWNER = "owner.json"
_BEAT, _PATIENCE = 10, 60  # seconds (chosen): between two writes; a file that old is nobody's
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def claimed(workdir: storage.Path, wait: Callable[[float], None] = time.sleep) -> Iterator[None]:
  """The workdir is this run's while the block runs; the folder is made, and goes if it stays empty.

  Of several processes of one run the first owns it for all.

  Args:
    workdir: of the run.
    wait: for so many seconds; for tests.

  Raises:
    UserError: another run is at work there, or nothing can be written there; in all processes.
  """
  several = processes.are_several()
  with contextlib.ExitStack() as stack:
    refusal = ""
    if not several or processes.is_first():
      try:
        stack.enter_context(_owned(workdir, wait))
      except errors.UserError as e:
        refusal = str(e)
    refusal = exchange.of_first(refusal) if several else refusal
    if refusal:
      raise errors.UserError(refusal)
    yield


@contextlib.contextmanager
def _owned(workdir: storage.Path, wait: Callable[[float], None]) -> Iterator[None]:
  path, is_remote = workdir / OWNER, storage.is_remote(workdir)
  with contextlib.ExitStack() as stack:
    with storage.told(workdir):
      made = [] if is_remote else [p for p in (workdir, *workdir.parents) if not p.exists()]
      stack.callback(_remove_empty, made)
      workdir.mkdir(parents=True, exist_ok=True)
      try:
        stack.enter_context(_beating(path, wait) if is_remote else _locked(path))
      except OSError as e:
        if e.errno not in _NO_LOCKS:
          raise
        stack.enter_context(_beating(path, wait))
    yield


@contextlib.contextmanager
def _locked(path: storage.Path) -> Iterator[None]:
  """Holds a lock on the file, which the system ends with the process; removes the file after."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if _is_at(path, file):
        break
    except BlockingIOError:
      os.close(file)
      raise _busy(path) from None
    except OSError:
      os.close(file)
      raise
    os.close(file)  # its owner has just removed it
  try:
    os.truncate(file, 0)
    os.write(file, _card())
    yield
  finally:
    path.unlink(missing_ok=True)  # while it is still locked
    os.close(file)


def _is_at(path: storage.Path, file: int) -> bool:
  try:
    return os.path.samestat(os.stat(path), os.fstat(file))
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def _beating(path: storage.Path, wait: Callable[[float], None]) -> Iterator[None]:
  """Writes the file every few seconds; removes it after."""
  before = _read(path)
  if before:  # an empty one was made by who found no locks
    print(
      f"{path.parent}: {_who(path)} was at work here; is it alive?", file=sys.stderr, flush=True
    )
    wait(_PATIENCE)
    if _read(path) not in (None, before):
      raise _busy(path)
  ended, card = threading.Event(), _card()

  def beat():
    for number in itertools.count(1):
      if ended.wait(_BEAT):
        return
      with contextlib.suppress(Exception):  # of clients and networks; the next one may get through
        storage.write_whole(path, card + b"beat %d\n" % number)

  storage.write_whole(path, card)
  thread = threading.Thread(target=beat, name="owner", daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    path.unlink(missing_ok=True)


def _card() -> bytes:
  card = {
    "host": socket.gethostname(),
    "process": os.getpid(),
    "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }
  return json.dumps(card).encode() + b"\n"


def _read(path: storage.Path) -> bytes | None:
  try:
    return path.read_bytes()
  except FileNotFoundError:
    return None


def _who(path: storage.Path) -> str:
  try:
    card = json.loads((_read(path) or b"").partition(b"\n")[0])
    return f"host {card['host']}, process {card['process']}, since {card['since']}"
  except (ValueError, KeyError, TypeError):
    return "host and process unknown"  # it has just begun


def _busy(path: storage.Path) -> errors.UserError:
  return errors.UserError(
    f"{path.parent}: another run is at work in this workdir ({_who(path)}); wait for its end, stop"
    " it, or choose another workdir"
  )


def _remove_empty(folders: list[storage.Path]) -> None:
  with contextlib.suppress(OSError):
    for folder in folders:  # from the innermost on
      folder.rmdir()
