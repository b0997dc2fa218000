"""Local paths and URLs alike: gs://, s3://, http(s):// and whatever else fsspec knows."""

import os
import pathlib
import posixpath

from paligemma_jax import errors


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
  except OSError:
    return False


def read_bytes(path: str, where: str = "") -> bytes:
  """Content of a file.

  Args:
    path: local or URL.
    where: what an error begins with: the place that names the file, e.g. "data.jsonl:17".

  Raises:
    errors.UserError: the file cannot be read.
  """
  try:
    if is_url(path):
      fs, inside = _file_system(path)
      return fs.cat_file(inside)
    with open(path, "rb") as f:
      return f.read()
  except OSError as e:
    place = f"{where}: " if where else ""
    hint = "correct the path" if isinstance(e, FileNotFoundError) else "check the file"
    raise errors.UserError(
      f"{place}cannot read {path} ({e.strerror or type(e).__name__}); {hint}"
    ) from None


def write_whole(target: pathlib.Path, data: bytes) -> pathlib.Path:
  """Writes a file of the cache so that it is there whole or not at all, and returns its path."""
  target.parent.mkdir(parents=True, exist_ok=True)
  beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
  try:
    beside.write_bytes(data)
    os.replace(beside, target)
  finally:
    beside.unlink(missing_ok=True)
  return target


def _file_system(url: str):
  import fsspec  # comes with huggingface_hub; 0.1 s that local files need not pay

  try:
    return fsspec.core.url_to_fs(url)
  except (ImportError, ValueError) as e:
    raise errors.UserError(f"{url}: no access to this file system ({e})") from None
