"""A folder of pictures for each class: SRC/cat/1.jpg. The suffix is the folder's name."""

import os
import pathlib
from collections.abc import Iterator

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations


def read(
  src: str | os.PathLike, notes: annotations.Notes, *, prefix: str, split: str = ""
) -> Iterator[dict]:
  """Records of all pictures, by class and name.

  Args:
    src: the folder that holds the folders of the classes, or those of splits that hold them.
    notes: gets the number of files that are no pictures.
    prefix: the prompt of all.
    split: the folder of the split; "" if there are none.

  Raises:
    errors.UserError: no folders in it, a split that is not there, or a picture that is none.
  """
  root = pathlib.Path(src)
  folders = _folders(root)
  if split or (folders and not any(p.is_file() for f in folders for p in f.iterdir())):
    root = root / annotations.choose_split(split, [f.name for f in folders], src)
    folders = _folders(root)
  if not folders:
    raise errors.UserError(f"{root}: no folders in it; wanted one for each class")
  for folder in folders:
    for path in sorted(folder.iterdir()):
      if path.suffix.lower() not in annotations.PICTURES or path.name.startswith("."):
        if path.is_dir():
          raise errors.UserError(f"{path}: a folder inside a class; pictures lie right in theirs")
        notes["files that are no pictures, left out"] += 1
        continue
      annotations.frame_of(path, str(folder))
      yield {"image": str(path), "prefix": prefix, "suffix": folder.name}


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
