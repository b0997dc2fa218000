"""What every command does before it uses JAX, and how tables are printed."""

import logging
import os
import pathlib
import secrets
import sys
from collections.abc import Sequence

from paligemma_jax import cache, errors, storage


def start() -> None:
  """Turns on JAX's persistent compilation cache, in the user's cache folder, and quiets libraries.

  Call it before anything imports JAX. $JAX_COMPILATION_CACHE_DIR names another folder;
  JAX_ENABLE_COMPILATION_CACHE=false turns it off.
  """
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.directory("jit")))
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells every step of a save


_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def take_huge_pages() -> None:
  """Starts this process anew, once, with huge pages for what is allocated, where Linux leaves that
  to the program and glibc can ask for it.

  A training step on a CPU takes its memory from the system and gives it back; in pages of 4 KiB that
  costs a tenth to a sixth of the time of a small model's step. $GLIBC_TUNABLES is read before a
  program begins, hence the second start; whoever sets it decides instead.
  """
  if "GLIBC_TUNABLES" in os.environ or not _HUGE_PAGES.exists():
    return
  if "[madvise]" in _HUGE_PAGES.read_text():
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: str = "") -> str:
  """Rows of words as aligned columns.

  Args:
    rows: all of one length; the first may be a head.
    right: the columns that are aligned to the right.
    indent: what every line begins with.
  """
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = []
  for row in rows:
    cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))]
    lines.append((indent + "  ".join(cells)).rstrip())
  return "\n".join(lines)


def size(num_bytes: float) -> str:
  """`10.9 GiB`: bytes as people read them."""
  for unit in ("B", "KiB", "MiB", "GiB"):
    if num_bytes < 1024 or unit == "GiB":
      return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
    num_bytes /= 1024


def save_picture(picture, path: str | os.PathLike) -> None:
  """Writes a Pillow picture in the format its name ends with, whole or not at all."""
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
  try:
    picture.save(temporary)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def check_picture_path(option: str, path: str) -> None:
  """Raises a UserError unless a picture can be written to `path`; call it before the long work."""
  if pathlib.Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
    raise errors.UserError(f"{option} {path}: write to a .png, .jpg or .webp file")
  check_folder(option, path)


def check_folder(option: str, path: str) -> None:
  """Raises a UserError unless the folder that `path` shall be in exists."""
  if storage.is_remote(path):
    raise errors.UserError(f"{option} {path}: write to this machine and copy it from there")
  folder = pathlib.Path(path).absolute().parent
  if not folder.is_dir():
    raise errors.UserError(f"{option} {path}: the folder {folder} does not exist; make it first")
