"""What a run writes, on this machine or in Google Cloud Storage (`gs://`).

An object of a store cannot be appended to, and renaming is copying; but what is put there is whole.
So files are put in one piece, and one that grows is a row of numbered parts: metrics-00000.jsonl,
metrics-00001.jsonl, … instead of metrics.jsonl. Readers take both.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from paligemma_jax import errors

Path = Any  # pathlib.Path or etils.epath.Path, which has the same methods
_PART = 2**20  # bytes (chosen); beyond them a new part is begun
_OF_THE_PLACE = (
  errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOENT,
  errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
)  # fmt: skip
_SECONDS = 30  # between two puts of a part that grows (chosen)


def is_remote(place: str | os.PathLike) -> bool:
  """Whether a path is a URL, not one of this machine."""
  return "://" in os.fspath(place)


def path(place: str | os.PathLike) -> Path:
  """The path as an object with the methods of pathlib, wherever it is.

  Raises:
    UserError: a URL other than `gs://`, a bucket that cannot be listed, or gcsfs is not installed.
  """
  place = os.fspath(place)
  if not is_remote(place):
    return pathlib.Path(place)
  scheme, _, rest = place.partition("://")
  bucket = rest.split("/")[0]
  if scheme != "gs" or not bucket:
    raise errors.UserError(f"{place}: must be a path of this machine or gs://BUCKET/…")
  _connect(bucket)
  from etils import epath

  return epath.Path(place)


@functools.cache
def _connect(bucket: str) -> None:
  """Prepares the client, and asks the store once, since gcsfs calls missing what it may not see."""
  os.environ.setdefault("EPATH_USE_TF", "false")  # etils takes gcsfs, TensorFlow installed or not
  try:
    import fsspec
    import gcsfs  # noqa: F401
  except ImportError as e:
    raise errors.UserError(
      f"gs://{bucket}: needs gcsfs ({e}); pip install 'paligemma_jax[gcs]'"
    ) from None
  # TensorStore writes there as well: what was listed before must not be remembered.
  fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
  try:
    fsspec.filesystem("gcs").ls(bucket, max_results=1)
  except FileNotFoundError:
    raise errors.UserError(f"gs://{bucket}: there is no such bucket; make it first") from None
  except Exception as e:  # the client and its credentials have errors of many kinds
    reason = (str(e).strip() or repr(e)).splitlines()[0]
    raise errors.UserError(
      f"gs://{bucket} cannot be listed ({reason}); sign in (gcloud auth application-default login)"
      " or ask for access"
    ) from None


@contextlib.contextmanager
def told(place: str | os.PathLike) -> Iterator[None]:
  """Turns what the system says about a place that cannot be written to into a UserError.

  A full disk and a lack of locks are left as they are: they are no fault of the place.
  """
  try:
    yield
  except OSError as e:
    if e.errno not in _OF_THE_PLACE:
      raise
    where = f": {e.filename}" if e.filename else ""
    raise errors.UserError(
      f"{place}: nothing can be written there ({e.strerror}{where}); choose another place"
    ) from e


def write_whole(target: Path, content: str | bytes) -> None:
  """Puts the content into a file at once: a reader finds the old or all of the new; makes folders."""
  data = content.encode() if isinstance(content, str) else content
  if is_remote(target):
    target.write_bytes(data)
    return
  target.parent.mkdir(parents=True, exist_ok=True)
  temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
  try:
    temporary.write_bytes(data)
    os.replace(temporary, target)
  finally:
    temporary.unlink(missing_ok=True)


class Lines:
  """Appends whole lines to a file, or to the next part of it in an object store.

  Args:
    path: of the file; its folder exists.
    clock: seconds, monotonic; for tests.
  """

  def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
    self._path, self._clock, self._file = path, clock, None
    if is_remote(path):
      self._number = max(_files(path), default=-1) + 1
      self._data, self._is_put, self._since = b"", True, clock()
    else:
      self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

  def append(self, line: str) -> None:
    """Writes a line to the file at once, to a store not later than `_SECONDS` after the last put."""
    data = (line + "\n").encode()
    if self._file is not None:
      os.write(self._file, data)  # one call: a kill leaves at most one torn line
      return
    self._data, self._is_put = self._data + data, False
    if self._clock() - self._since >= _SECONDS:
      self.flush()

  def flush(self) -> None:
    """Puts into a store what it does not have yet; a file has it already."""
    if self._file is not None or self._is_put:
      return
    name = f"{self._path.stem}-{self._number:05}{self._path.suffix}"
    write_whole(self._path.with_name(name), self._data)
    self._is_put, self._since = True, self._clock()
    if len(self._data) >= _PART:
      self._number, self._data = self._number + 1, b""

  def close(self) -> None:
    """Flushes; nothing can be appended any more."""
    self.flush()
    if self._file is not None:
      os.close(self._file)


def read_lines(path: Path) -> list[bytes]:
  """The whole lines of a file and of its parts, in order; a torn last one is left out."""
  files = _files(path)
  return [line for number in sorted(files) for line in _whole(files[number].read_bytes())]


def of_step(line: bytes, path: Path) -> dict[str, float]:
  """What a line of metrics.jsonl says: its "step" and other numbers, by name.

  Raises:
    errors.UserError: something else; `path` is where it stands.
  """
  try:
    found = json.loads(line)
    if found["step"] >= 0 and [value + 0.0 for value in found.values()]:
      return found
  except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
    pass
  shown = line[:60].decode(errors="replace")
  raise errors.UserError(f'{path}: a line is no object of numbers, "step" among them: {shown}')


def keep_lines(path: Path, is_kept: Callable[[bytes], bool]) -> None:
  """Drops the other lines, and a torn one; a kill leaves a beginning of what was there."""
  files = _files(path)
  for number in sorted(files, reverse=True):
    data = files[number].read_bytes()
    kept = b"".join(line + b"\n" for line in _whole(data) if is_kept(line))
    if kept != data:
      write_whole(files[number], kept)


def _whole(data: bytes) -> list[bytes]:
  lines = data.split(b"\n")[:-1]  # what follows the last newline is no whole line
  return [line for line in lines if line.strip()]


def _files(path: Path) -> dict[int, Path]:
  """Number -> part; the file itself, which a copied workdir may have as well, comes first as -1."""
  name = re.compile(rf"{re.escape(path.stem)}(?:-(\d{{5,}}))?{re.escape(path.suffix)}")
  try:
    here = [p for p in path.parent.iterdir() if name.fullmatch(p.name)]
  except (FileNotFoundError, NotADirectoryError):
    return {}
  return {int(name.fullmatch(p.name)[1] or -1): p for p in here}


class LocalFolder:
  """A folder for writers that know no object stores, e.g. of TensorBoard's events.

  Attributes:
    path: where to write: the folder itself, or a temporary one that is copied to it.
  """

  def __init__(self, target: Path):
    self._target, self._temporary = target, None
    if is_remote(target):
      self._temporary = tempfile.TemporaryDirectory()
    self.path = pathlib.Path(target if self._temporary is None else self._temporary.name)

  def copy(self) -> None:
    """Puts all files to where they belong, each whole; those that are there already stay."""
    if self._temporary is not None:
      for file in self.path.rglob("*"):
        if file.is_file():
          write_whole(self._target / file.relative_to(self.path).as_posix(), file.read_bytes())

  def close(self) -> None:
    """Copies a last time and removes the temporary folder."""
    self.copy()
    if self._temporary is not None:
      self._temporary.cleanup()
