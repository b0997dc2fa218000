"""YOLO folders: images/…/a.jpg and labels/…/a.txt. Format: Ultralytics, detection, segmentation, OBB.

A line is `class cx cy w h` (a box) or `class x0 y0 x1 y1 x2 y2 …` (a polygon; four corners are an
oriented box), in fractions of the upright picture. Names of classes and places of splits stand in
data.yaml or, of Darknet, in obj.data; without them the names stand in classes.txt or obj.names, one
a line, and the splits are folders. A picture without lines is background: it is left out and counted.
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations, pictures, texts
from paligemma_jax.processing import masks

_SPLITS = ("train", "val", "valid", "test")  # keys of data.yaml
_NAMES = ("classes.txt", "obj.names", "classes.names", "names.txt")
_DARKNET = (".data",)
_BESIDE = (".txt", ".yaml", ".yml", ".json", ".cache", ".npy", ".names", ".data")  # no pictures
_IMAGES, _LABELS = "images", "labels"
_FAR = 1.0  # pictures that a coordinate may lie outside; farther, they are no fractions


def read(src: str | os.PathLike, notes: annotations.Notes, *, split: str = "") -> Iterator[dict]:
  """Records of a YOLO data set, one a picture, in the order of their paths.

  Args:
    src: the folder that holds data.yaml, obj.data or classes.txt, or one of the first two.
    notes: gets what was left out or mended.
    split: which to read; "" if there is one or none. The others need not be there.

  Raises:
    errors.UserError: no names of classes, a split that is not there, labels without a picture, or
      a line that is malformed, of an unknown class or outside the picture.
  """
  root, settings = _open(pathlib.Path(src))
  labels = _class_names(root, settings)
  finder = pictures.Folder(root, notes, "correct the list")
  for picture in _pictures(_places(root, settings, split, src), finder, notes):
    lines = _label_file(picture, finder)
    frame = annotations.frame_of(picture, str(lines), None, notes)
    text = texts.read_text(lines) if lines.is_file() else ""
    objects = [
      _object(line.split(), labels, frame, f"{lines}:{number}", notes)
      for number, line in enumerate(text.splitlines(), 1)
      if line.strip()
    ]
    objects = [o for o in objects if o is not None]
    if objects:
      yield {"image": str(picture), "objects": objects}
    else:
      notes.add(annotations.NOTHING, str(picture))


def _open(src: pathlib.Path) -> tuple[pathlib.Path, dict]:
  """The folder, and what its .yaml or .data file says: {} without one."""
  if src.is_dir():
    there = sorted(p for p in src.iterdir() if p.is_file() and not pictures.is_left_behind(p.name))
    found = [p for p in there if p.suffix.lower() in (".yaml", ".yml")]
    found = found or [p for p in there if p.suffix.lower() in _DARKNET]
    if len(found) > 1:
      names = ", ".join(p.name for p in found)
      raise errors.UserError(f"{src} holds {names}; give the one that describes the data")
    if not found:
      return src, {}
    src = found[0]
  if src.suffix.lower() in _DARKNET:
    pairs = (line.partition("=") for line in texts.read_text(src).splitlines())
    return src.parent, {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
  import yaml  # 30 ms that other formats need not pay

  try:
    # All values stay text: "no" is a name of a class, 007 too.
    settings = yaml.load(texts.read_text(src), yaml.BaseLoader)
  except (yaml.YAMLError, RecursionError) as e:
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
  if isinstance(names, dict) and names:
    found = {texts.whole(k): v for k, v in names.items()}
    if None not in found and all(isinstance(v, str) for v in found.values()):
      return found
    raise errors.UserError(f'{root}: "names" of the data is neither a list nor numbers with names')
  named = [_inside(root, names)] if isinstance(names, str) and names else []
  places = [*named, *(folder / n for folder in (root, root / _LABELS) for n in _NAMES)]
  for path in places:
    if path is not None and os.path.isfile(path):
      return dict(enumerate(texts.read_text(path).splitlines()))
  raise errors.UserError(
    f'{root}: no names of classes, neither "names" in data.yaml nor {_NAMES[0]} in it or in labels;'
    " write one name a line there"
  )


def _places(root: pathlib.Path, settings: dict, split: str, src) -> list[pathlib.Path]:
  """Folders of pictures, or text files that list them, of the split that is asked for."""
  named = {name: settings[name] for name in _SPLITS if settings.get(name)}
  if not named:
    folders = _split_folders(root)
    return [folders[annotations.choose_split(split, folders, src)]]
  bases = [root / str(settings.get("path") or ""), root]
  found = {name: _all_found(bases, value) for name, value in named.items()}
  there = [name for name, places in found.items() if None not in places]
  chosen = annotations.choose_split(split, named if split else there or named, src)
  values = named[chosen] if isinstance(named[chosen], list) else [named[chosen]]
  for value, place in zip(values, found[chosen]):
    if place is None:
      raise errors.UserError(f"{root / value}: no such folder or list; correct data.yaml")
  return found[chosen]


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Split -> its folder of pictures, where nothing but the folders tells; "": there are none."""
  images = pictures.folder_of(root, (_IMAGES,))
  if images is not None:
    return {p.name: p for p in _subfolders(images)} or {"": images}
  found = {p.name: pictures.folder_of(p, (_IMAGES,)) for p in _subfolders(root)}
  found = {name: folder for name, folder in found.items() if folder is not None}
  if found:
    return found
  if any(p.suffix.lower() in pictures.endings() for p in root.iterdir()):
    return {"": root}
  raise errors.UserError(f"{root}: no folder images and no data.yaml; give the folder that has")


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.iterdir() if p.is_dir() and not pictures.is_left_behind(p.name))


def _all_found(bases: list[pathlib.Path], value) -> list[pathlib.Path | None]:
  values = value if isinstance(value, list) else [value]
  return [next((p for base in bases if (p := _inside(base, str(v)))), None) for v in values]


def _inside(base: pathlib.Path, path: str) -> pathlib.Path | None:
  """A path of data.yaml, which is often written for another place than where the file lies.

  Roboflow writes "../train/images" for a folder beside data.yaml, Darknet "data/train.txt" for a
  file beside obj.data: what is found by the most of its last parts is meant.
  """
  if not path.strip():
    return None
  if os.path.exists(base / path):  # False for what cannot be a name at all
    return base / path
  parts = [p for p in path.replace("\\", "/").split("/") if p not in ("", ".", "..")]
  ways = (base.joinpath(*parts[k:]) for k in range(len(parts)))
  return next((p for p in ways if os.path.exists(p)), None)


def _pictures(places: list[pathlib.Path], finder, notes) -> Iterator[pathlib.Path]:
  for place in places:
    if place.is_dir():
      found = list(pictures.among(pictures.below(place, notes), notes, _BESIDE))
      _check_labels(place, found, finder)
      yield from found
    else:
      for number, line in enumerate(texts.read_text(place).splitlines(), 1):
        if line.strip():
          beside = place.parent / line.strip()
          found = (
            beside if os.path.isfile(beside) else finder.find(line.strip(), f"{place}:{number}")
          )
          yield pathlib.Path(found)


def _check_labels(folder: pathlib.Path, found: list[pathlib.Path], finder) -> None:
  """Raises a UserError if a file of labels belongs to no picture."""
  labels = _labels_of(folder / "x")
  if labels is None:
    return  # texts beside the pictures may be anything
  known = {_label_file(p, finder) for p in found}
  for path in pictures.below(labels.parent):
    if path.suffix.lower() == ".txt" and path not in known and path.name not in _NAMES:
      raise errors.UserError(
        f"{path}: no picture of this name in {folder}; put it there or remove the labels"
      )


def _label_file(picture: pathlib.Path, finder: pictures.Folder) -> pathlib.Path:
  """images/…/a.jpg -> labels/…/a.txt, the last "images" of the path; else beside the picture."""
  ways = [path for path in (_labels_of(picture), picture.with_suffix(".txt")) if path is not None]
  return next(filter(None, map(finder.in_any_case, ways)), ways[0])


def _labels_of(picture: pathlib.Path) -> pathlib.Path | None:
  """The file in a folder of labels; None where the path has no folder of images beside one."""
  parts = picture.with_suffix(".txt").parts
  for i in reversed(range(len(parts) - 1)):
    if parts[i].lower() == _IMAGES:
      above = pathlib.Path(*parts[:i])
      folder = pictures.folder_of(above, (_LABELS,)) if above.is_dir() else None
      return None if folder is None else folder.joinpath(*parts[i + 1 :])
  return None


def _object(words: list[str], labels, frame, place, notes) -> dict | None:
  number, values = texts.whole(words[0]), [texts.number(w) for w in words[1:]]
  if number is None or None in values:
    raise errors.UserError(f'{place}: "{" ".join(words)[:60]}" holds what is no number')
  if number not in labels:
    raise errors.UserError(
      f"{place}: class {number} is unknown; there are {len(labels)} names, 0 to {max(labels)}"
    )
  if len(values) != 4 and (len(values) < 6 or len(values) % 2):
    raise errors.UserError(
      f"{place}: {len(words)} numbers; wanted a class and 4 for a box, or x, y of 3 or more points"
    )
  if min(values) < -_FAR or max(values) >= 1 + _FAR:  # 2 is what marks a visible key point
    raise errors.UserError(
      f"{place}: coordinates from {min(values):g} to {max(values):g}; wanted fractions of the"
      " picture, 0 to 1, and no key points"
    )
  size, mask = np.array([frame.width, frame.height]), None
  if len(values) == 4:
    center, half = values[:2] * size, values[2:] * size / 2
    box = (*(center - half), *(center + half))
  else:
    points = np.reshape(values, (-1, 2)) * size
    box = (*points.min(axis=0), *points.max(axis=0))
    mask = masks.fill([points.ravel()], frame.height, frame.width)
  return annotations.make_object(labels[number], box, mask, frame, place, notes)
