"""What a complete step of a training run consists of, so that damage is noticed.

No layout of Orbax notices a flipped bit. So when a step is committed, `manifest.json` is put into its
folder: size and CRC-32 of every file, and a checksum of every leaf (see `checksum`). A step without
one was not finished, or is being deleted.
"""

import concurrent.futures
import json
import logging
import os
import zlib

from etils import epath

from paligemma_jax import storage

NAME = "manifest.json"
_PIECE = 2**24
log = logging.getLogger("paligemma_jax")


def steps(directory: epath.PathLike) -> list[int]:
  """The step numbers that have a folder in `directory`, newest first, complete or not."""
  directory = epath.Path(directory)
  if not directory.is_dir():
    return []
  return sorted((int(p.name) for p in directory.iterdir() if p.name.isdecimal()), reverse=True)


def write(step: epath.PathLike, leaves: dict[str, tuple[str, int]]):
  """Reads all files of a committed step through and writes its manifest, whole or not at all."""
  step = epath.Path(step)
  found = {name: [size, _crc(step / name)] for name, size in _sizes(step).items()}
  text = json.dumps({"files": found, "leaves": leaves}, indent=1) + "\n"
  storage.write_whole(step / NAME, text)


def read(step: epath.PathLike) -> dict | None:
  """The manifest of a step, None when there is none that can be read."""
  try:
    found = json.loads((epath.Path(step) / NAME).read_text())
    known = [size + crc for size, crc in found["files"].values()]
    return found if known and isinstance(found["leaves"], dict) else None
  except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
    return None


def problem(step: epath.PathLike, thorough: bool) -> str | None:
  """Says what is wrong with a step, None when nothing is.

  Args:
    step: its folder.
    thorough: whether to read all files and compare their CRC-32, not only sizes.
  """
  step = epath.Path(step)
  manifest = read(step)
  if manifest is None:
    return f"it has no {NAME} that can be read: its save was not finished"
  sizes, files = _sizes(step), manifest["files"]
  for name, (size, _) in files.items():
    if sizes.get(name) != size:
      return f"{name} has {sizes.get(name, 'no')} bytes instead of {size}"
  if not thorough:
    return None
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    for name, crc in zip(files, pool.map(lambda name: _crc(step / name), files)):
      if crc != files[name][1]:
        return f"{name} is damaged (its CRC-32 does not fit)"
  return None


def newest(
  directory: epath.PathLike, thorough: bool, known: frozenset = frozenset()
) -> tuple[int | None, list[int]]:
  """Returns (the newest step in which nothing is wrong, newer ones, which are warned of).

  Args:
    directory: of the steps.
    thorough: see `problem`.
    known: steps that were checked already.
  """
  bad = []
  for step in steps(directory):
    wrong = None if step in known else problem(epath.Path(directory) / str(step), thorough)
    if wrong is None:
      for number, said in bad:
        log.warning("%s/%d cannot be used: %s. Using step %d", directory, number, said, step)
      return step, [number for number, _ in bad]
    bad.append((step, wrong))
  for number, said in bad:
    log.warning("%s/%d cannot be used: %s", directory, number, said)
  return None, [number for number, _ in bad]


def _sizes(step: epath.Path) -> dict[str, int]:
  """Path relative to the step -> bytes, of all files but the manifest."""
  sizes = {}
  folders = [step]
  while folders:
    for p in sorted(folders.pop().iterdir()):
      if p.is_dir():
        folders.append(p)
      elif not p.name.startswith(NAME):
        sizes[os.path.relpath(p, step)] = p.stat().length
  return sizes


def _crc(path: epath.Path) -> int:
  value = 0
  with path.open("rb") as f:
    while piece := f.read(_PIECE):
      value = zlib.crc32(piece, value)
  return value
