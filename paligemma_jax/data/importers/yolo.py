"""YOLO folders: images/…/a.jpg and labels/…/a.txt. Format: Ultralytics, detection and segmentation.

A line is `class cx cy w h` (a box) or `class x0 y0 x1 y1 x2 y2 …` (a polygon), in fractions of the
upright picture. Names of classes and places of splits stand in data.yaml; without one, the names
stand in classes.txt, one a line, and the splits are the folders below images/. A picture without
lines is background: it is left out and counted.
"""

import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations
from paligemma_jax.processing import masks

_SPLITS = ("train", "val", "test")  # keys of data.yaml
_NAMES = "classes.txt"


def read(src: str | os.PathLike, notes: annotations.Notes, *, split: str = "") -> Iterator[dict]:
  """Records of a YOLO data set, one a picture, in the order of their paths.

  Args:
    src: the folder that holds data.yaml or classes.txt, or the .yaml file.
    notes: gets what was left out.
    split: which to read; "" if there is one or none.

  Raises:
    errors.UserError: no names of classes, a split that is not there, labels without a picture, or
      a line that is malformed, of an unknown class or outside the picture.
  """
  root, settings = _open(pathlib.Path(src))
  labels = _class_names(root, settings)
  splits = _splits(root, settings)
  chosen = annotations.choose_split(split, splits, src)
  for picture in _pictures(splits[chosen]):
    lines = _label_file(picture)
    frame = annotations.frame_of(picture, str(lines))
    text = annotations.read_text(lines) if lines.is_file() else ""
    objects = [
      _object(line.split(), labels, frame, f"{lines}:{number}", notes)
      for number, line in enumerate(text.splitlines(), 1)
      if line.strip()
    ]
    objects = [o for o in objects if o is not None]
    if objects:
      yield {"image": str(picture), "objects": objects}
    else:
      notes[annotations.NOTHING] += 1


def _open(src: pathlib.Path) -> tuple[pathlib.Path, dict]:
  """The folder, and what its .yaml file says: {} without one."""
  if src.is_dir():
    found = sorted(p for end in ("*.yaml", "*.yml") for p in src.glob(end))
    if len(found) > 1:
      names = ", ".join(p.name for p in found)
      raise errors.UserError(f"{src} holds {names}; give the one that describes the data")
    if not found:
      return src, {}
    src = found[0]
  import yaml  # 30 ms that other formats need not pay

  try:
    settings = yaml.safe_load(annotations.read_text(src))
  except yaml.YAMLError as e:
    raise errors.UserError(f"{src}: broken YAML, {' '.join(str(e).split())}") from None
  if not isinstance(settings, dict):
    raise errors.UserError(f'{src}: wanted the keys "names" and {", ".join(_SPLITS)}')
  if "kpt_shape" in settings:
    raise errors.UserError(f"{src}: key points (kpt_shape); boxes or polygons are needed")
  return src.parent, settings


def _class_names(root: pathlib.Path, settings: dict) -> dict[int, str]:
  names = settings.get("names")
  if isinstance(names, list):
    names = dict(enumerate(names))
  if names and isinstance(names, dict) and all(isinstance(k, int) for k in names):
    return {k: str(v) for k, v in names.items()}
  places = root / _NAMES, root / "labels" / _NAMES
  for path in places:
    if path.is_file():
      return dict(enumerate(annotations.read_text(path).splitlines()))
  raise errors.UserError(
    f'{root}: no names of classes, neither "names" in data.yaml nor {_NAMES} in it or in labels;'
    " write one name a line there"
  )


def _splits(root: pathlib.Path, settings: dict) -> dict[str, list[pathlib.Path]]:
  """Name -> folders of pictures, or text files that list them."""
  if settings:
    found = {name: settings[name] for name in _SPLITS if settings.get(name)}
    bases = [root / str(settings.get("path") or ""), root]
    return {
      name: [_found(bases, str(v)) for v in (value if isinstance(value, list) else [value])]
      for name, value in found.items()
    }
  images = root / "images"
  if not images.is_dir():
    raise errors.UserError(f"{root}: no folder images and no data.yaml; give the folder that has")
  folders = sorted(p for p in images.iterdir() if p.is_dir())
  return {p.name: [p] for p in folders} or {"": [images]}


def _found(bases: list[pathlib.Path], path: str) -> pathlib.Path:
  """A path of data.yaml, which is often written for another place than where the file lies."""
  inside = path
  while inside.startswith("../"):  # Roboflow's, which means a folder beside data.yaml
    inside = inside.removeprefix("../")
  candidates = [base / p for base in bases for p in (path, inside)]
  for candidate in candidates:
    if candidate.exists():
      return candidate
  raise errors.UserError(f"{candidates[-1]}: no such folder or list; correct data.yaml")


def _pictures(places: list[pathlib.Path]) -> Iterator[pathlib.Path]:
  for place in places:
    if place.is_dir():
      pictures = annotations.pictures_in(place)
      _check_labels(place, pictures)
      yield from pictures
    else:
      for line in annotations.read_text(place).split("\n"):
        if line.strip():
          yield place.parent / line.strip()


def _check_labels(folder: pathlib.Path, pictures: list[pathlib.Path]) -> None:
  """Raises a UserError if a file of labels belongs to no picture."""
  labels = _label_file(folder / "x").parent
  if labels == folder:
    return  # texts beside the pictures may be anything
  known = {_label_file(p) for p in pictures}
  for path in sorted(labels.rglob("*.txt")):
    if path not in known and path.name != _NAMES:
      raise errors.UserError(
        f"{path}: no picture of this name in {folder}; put it there or remove the labels"
      )


def _label_file(picture: pathlib.Path) -> pathlib.Path:
  """images/…/a.jpg -> labels/…/a.txt, the last "images" of the path; beside it if there is none."""
  parts = list(picture.with_suffix(".txt").parts)
  for i in reversed(range(len(parts) - 1)):
    if parts[i] == "images":
      parts[i] = "labels"
      break
  return pathlib.Path(*parts)


def _object(words: list[str], labels, frame, place, notes) -> dict | None:
  try:
    number, values = int(words[0]), np.array([float(w) for w in words[1:]])
  except ValueError:
    raise errors.UserError(f'{place}: "{" ".join(words)[:60]}" holds what is no number') from None
  if number not in labels:
    raise errors.UserError(
      f"{place}: class {number} is unknown; there are {len(labels)} names, 0 to {max(labels)}"
    )
  if len(values) != 4 and (len(values) < 6 or len(values) % 2):
    raise errors.UserError(
      f"{place}: {len(words)} numbers; wanted a class and 4 for a box, or x, y of 3 or more points"
    )
  if not all(map(math.isfinite, values)) or values.min() < 0 or values.max() > 1:
    raise errors.UserError(
      f"{place}: coordinates from {values.min():g} to {values.max():g}; wanted fractions of the"
      " picture, 0 to 1"
    )
  size, mask = np.array([frame.width, frame.height]), None
  if len(values) == 4:
    center, half = values[:2] * size, values[2:] * size / 2
    box = (*(center - half), *(center + half))
  else:
    points = values.reshape(-1, 2) * size
    box = (*points.min(axis=0), *points.max(axis=0))
    mask = masks.fill([points.ravel()], frame.height, frame.width)
  return annotations.make_object(labels[number], box, mask, frame, place, notes)
