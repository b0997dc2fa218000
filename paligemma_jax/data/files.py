"""Local paths and URLs alike: gs://, s3://, hf://, http(s):// and whatever else fsspec knows."""

import contextlib
import glob as globbing
import hashlib
import os
import pathlib
import posixpath
import secrets
from collections.abc import Iterable, Iterator

from paligemma_jax import cache, errors

_PIECE = 2**24  # bytes copied at a time


def is_url(path: str) -> bool:
  """Whether `path` names a file of another file system than the local one."""
  return "://" in path


def join(folder: str, path: str) -> str:
  """`path` as seen from `folder`; absolute paths and URLs stay as they are.

  Args:
    folder: local folder or URL.
    path: relative to the folder, absolute, or a URL.
  """
  if is_url(path):
    return path
  if is_url(folder):
    return path if path.startswith("/") else posixpath.join(folder, path)
  return os.path.join(folder, path)


def folder(path: str) -> str:
  """The local folder or the URL that `path` lies in."""
  return posixpath.dirname(path) if is_url(path) else os.path.dirname(os.path.abspath(path))


def exists(path: str) -> bool:
  """Whether there is a file; a URL whose file system does not answer counts as missing."""
  if not is_url(path):
    return os.path.isfile(path)
  fs, inside = _file_system(path)
  try:
    return fs.isfile(inside)
  except Exception:  # clients of object stores have errors of their own
    return False


def read_bytes(path: str, where: str = "") -> bytes:
  """Content of a file.

  Args:
    path: local or URL.
    where: what an error begins with: the place that names the file, e.g. "data.jsonl:17".

  Raises:
    errors.UserError: the file cannot be read.
  """
  with _told(path, where):
    if is_url(path):
      fs, inside = _file_system(path)
      return fs.cat_file(inside)
    with open(path, "rb") as f:
      return f.read()


def glob(pattern: str) -> list[str]:
  """Files that a pattern with `*`, `?` or `[…]` names, sorted; a path without them names itself."""
  if not any(c in pattern for c in "*?["):
    return [pattern]
  if not is_url(pattern):
    return sorted(globbing.glob(pattern))
  with _told(pattern):
    fs, inside = _file_system(pattern)
    return sorted(fs.unstrip_protocol(found) for found in fs.glob(inside))


def stamp(path: str) -> str:
  """Changes when the file does: its time and size, or what its store says (version, checksum).

  Raises:
    errors.UserError: there is no such file.
  """
  with _told(path):
    if is_url(path):
      fs, inside = _file_system(path)
      return fs.ukey(inside)
    found = os.stat(path)
    return f"{found.st_mtime_ns} {found.st_size}"


def fetched(path: str) -> str:
  """A local file with the content of `path`: itself, or a copy of the URL in the cache.

  The copy keeps its name and is made anew when the original changes.
  """
  if not is_url(path):
    return os.path.abspath(path)
  return _copied([path], posixpath.dirname(path))[0]


def fetched_folder(url: str, is_wanted) -> str:
  """A local folder with those files directly in `url` whose names `is_wanted(name)` accepts."""
  with _told(url):
    fs, inside = _file_system(url)
    found = sorted(fs.unstrip_protocol(p) for p in fs.ls(inside, detail=False))
  copies = _copied([p for p in found if is_wanted(posixpath.basename(p))], url)
  return os.path.dirname(copies[0]) if copies else ""


def _copied(urls: list[str], folder: str) -> list[str]:
  """Copies of the files in one folder of the cache, which is another one when one of them changes."""
  stamps = [f"{posixpath.basename(url)} {stamp(url)}" for url in urls]
  key = hashlib.blake2b("\n".join([folder, *stamps]).encode(), digest_size=16).hexdigest()
  targets = [cache.directory("data", key, posixpath.basename(url)) for url in urls]
  for url, target in zip(urls, targets):
    if not target.exists():
      with _told(url):
        fs, inside = _file_system(url)
        with fs.open(inside, "rb") as f:
          write_whole(target, iter(lambda: f.read(_PIECE), b""))  # noqa: B023 - used at once
  return [str(target) for target in targets]


def write_whole(target: pathlib.Path, data: bytes | Iterable[bytes]) -> pathlib.Path:
  """Writes a file, given whole or in pieces, so that it is there whole or not at all.

  Returns:
    Its path.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  # Another machine may write it as well, into the same cache and under the same process id.
  beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
  try:
    with open(beside, "wb") as f:
      f.writelines([data] if isinstance(data, bytes) else data)
    os.replace(beside, target)
  finally:
    beside.unlink(missing_ok=True)
  return target


@contextlib.contextmanager
def _told(path: str, where: str = "") -> Iterator[None]:
  """Makes a UserError of what reading `path` raises; `where` is the place that names the file."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as e:
    if not isinstance(e, OSError | ValueError) and not is_url(path):  # the latter: a zero byte
      raise
    reason = getattr(e, "strerror", None) or type(e).__name__  # stores have errors of their own
    hint = "correct the path" if isinstance(e, FileNotFoundError) else "check the file"
    place = f"{where}: " if where else ""
    raise errors.UserError(f"{place}cannot read {path} ({reason}); {hint}") from None


def _file_system(url: str):
  import fsspec  # comes with huggingface_hub; 0.1 s that local files need not pay

  try:
    return fsspec.core.url_to_fs(url)
  except (ImportError, ValueError) as e:
    raise errors.UserError(f"{url}: no access to this file system ({e})") from None
