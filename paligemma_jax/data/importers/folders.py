"""A folder of pictures for each class: SRC/cat/1.jpg. The suffix is the folder's name."""

import os
import pathlib
from collections.abc import Iterator

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations, pictures


def read(
  src: str | os.PathLike, notes: annotations.Notes, *, prefix: str, split: str = ""
) -> Iterator[dict]:
  """Records of all pictures, by class and name.

  Args:
    src: the folder that holds the folders of the classes, or those of splits that hold them.
    notes: gets the files that are no pictures.
    prefix: the prompt of all.
    split: the folder of the split; "" if there are none.

  Raises:
    errors.UserError: no folders in it, a split that is not there, or a picture that is none.
  """
  for path in pictures.among(_files(_classes(pathlib.Path(src), split, src), notes), notes):
    annotations.frame_of(path, str(path.parent))
    yield {"image": str(path), "prefix": prefix, "suffix": path.parent.name}


def _classes(root: pathlib.Path, split: str, src) -> pathlib.Path:
  """The folder that holds those of the classes: `root`, or one of a split further in."""
  while True:
    folders = _folders(root)
    if not folders:
      raise errors.UserError(f"{root}: no folders in it; wanted one for each class")
    if any(_holds_pictures(folder) for folder in folders) and not split:
      return root
    names = [folder.name for folder in folders]
    if split and split not in names and len(names) == 1 and not _holds_pictures(folders[0]):
      root = folders[0]  # a folder around those of the splits
      continue
    root, split = root / annotations.choose_split(split, names, src), ""


def _files(root: pathlib.Path, notes) -> Iterator[pathlib.Path]:
  for path in pictures.below(root, notes):
    if path.parent == root:
      notes.add("files beside the folders of the classes, left out", str(path))
    elif path.parent.parent == root:
      yield path
    else:
      raise errors.UserError(
        f"{path.parent}: a folder inside a class; pictures lie right in theirs"
      )


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  if not root.is_dir():
    raise errors.UserError(f"{root}: a file; give the folder that holds those of the classes")
  return sorted(p for p in root.iterdir() if p.is_dir() and not pictures.is_left_behind(p.name))


def _holds_pictures(folder: pathlib.Path) -> bool:
  return any(
    p.is_file() and not pictures.is_left_behind(p.name) and pictures.is_picture(p)
    for p in folder.iterdir()
  )
