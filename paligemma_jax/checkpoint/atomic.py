"""Files and folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

from paligemma_jax import errors, storage


def check_free(path: str | os.PathLike):
  """Raises a UserError when `path` is a file, a folder that is not empty, or a URL."""
  if storage.is_remote(path):
    raise errors.UserError(f"{path}: write to a folder of this machine and copy it from there")
  path = pathlib.Path(path)
  if path.is_dir() and not any(path.iterdir()):
    return
  if path.exists():
    raise errors.UserError(f"{path} exists already; choose another destination or remove it first")


@contextlib.contextmanager
def new(path: str | os.PathLike, folder: bool) -> Iterator[pathlib.Path]:
  """Gives a temporary path beside `path`; it takes its place when the block ends well.

  Args:
    path: where the file or folder shall be; its parents are made. Nothing may be there, see
      `check_free`.
    folder: whether it is a folder (made, empty) or a file (not made).
  """
  path = pathlib.Path(path).absolute()
  temporary = path.parent / f".{path.name}.tmp-{secrets.token_hex(4)}"
  with storage.told(path):
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir() if folder else temporary.touch()
  try:
    if not folder:
      temporary.unlink()  # it could be made
    yield temporary
    check_free(path)
    if path.is_dir():
      path.rmdir()
    os.replace(temporary, path)
  finally:
    _remove(temporary)


def _remove(path: pathlib.Path):
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
