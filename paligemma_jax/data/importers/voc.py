"""Pascal VOC: Annotations/*.xml, JPEGImages, ImageSets, SegmentationObject. Format: VOC2012 devkit.

Corners of boxes count pixels from 1 and are inside: 1, 1, W, H is the whole picture. Pixel k of
SegmentationObject belongs to the k-th object of the XML, 255 is the line between objects. Without
these folders XML files and pictures lie side by side.
"""

import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations

_SETS = "Main"  # of ImageSets, where a split names no other folder of it


def read(
  src: str | os.PathLike,
  notes: annotations.Notes,
  *,
  split: str = "",
  zero_based: bool = False,
) -> Iterator[dict]:
  """Records of a VOC data set, one a picture, in the order of the split, else of their names.

  Args:
    src: the folder that holds Annotations, or the XML files themselves.
    notes: gets what was left out.
    split: a file of ImageSets/Main without its ".txt", or of another folder there, such as
      "Segmentation/train"; "": every XML file, where there is no ImageSets/Main.
    zero_based: whether corners count from 0 and the last one is outside, as in files of many
      labelling tools.

  Raises:
    errors.UserError: no such split, a missing or broken file, a box that is none.
  """
  root = pathlib.Path(src)
  folder = root / "Annotations" if (root / "Annotations").is_dir() else root
  if split or (root / "ImageSets" / _SETS).is_dir():
    files = [folder / f"{name}.xml" for name in _names(root, split)]
  else:
    files = sorted(folder.glob("*.xml"))
  for path in files:
    objects, picture = _read_one(path, root, zero_based, notes)
    if objects:
      yield {"image": str(picture), "objects": objects}
    else:
      notes[annotations.NOTHING] += 1


def _names(root: pathlib.Path, split: str) -> list[str]:
  """Names of the pictures of a split."""
  sets = root / "ImageSets"
  known = [p.relative_to(sets).with_suffix("").as_posix() for p in sets.glob("*/*.txt")]
  short = [k.removeprefix(f"{_SETS}/") for k in known]
  chosen = annotations.choose_split(split, short, root)
  path = sets / f"{known[short.index(chosen)]}.txt"
  lines = [line.split() for line in annotations.read_text(path).splitlines() if line.strip()]
  return [words[0] for words in lines if words[1:] != ["-1"]]  # -1: not of the file's class


def _read_one(path: pathlib.Path, root: pathlib.Path, zero_based: bool, notes):
  """The objects of an XML file, and the path of its picture."""
  try:
    tree = ET.parse(path).getroot()
  except ET.ParseError as e:
    raise errors.UserError(
      f"{path}:{e.position[0]}: broken XML ({e}); fetch the file again"
    ) from None
  except OSError as e:
    raise errors.UserError(f"{path}: {e.strerror}; the split names it, put it there") from None
  picture = _picture(path, tree.findtext("filename") or "", root)
  size = tuple(_number(tree, f"size/{key}", str(path), "0") for key in ("width", "height"))
  frame = annotations.frame_of(picture, str(path), size if all(size) else None)
  drawn, objects = _drawing(root / "SegmentationObject" / f"{path.stem}.png", frame), []
  for k, item in enumerate(tree.iterfind("object"), 1):
    place = f"{path}: object {k}"
    box = [_number(item, f"bndbox/{c}", place) for c in ("xmin", "ymin", "xmax", "ymax")]
    if not zero_based:
      if min(box) < 1:
        raise errors.UserError(
          f"{place}: the corner {min(box):g} is less than 1, from which VOC counts; if the tool that"
          " wrote it counts from 0, give --zero-based"
        )
      box[0], box[1] = box[0] - 1, box[1] - 1
    mask = None if drawn is None else drawn == k
    found = annotations.make_object(item.findtext("name") or "", box, mask, frame, place, notes)
    if found is not None:
      difficult = item.findtext("difficult", "0").strip() == "1"
      objects.append({**found, "difficult": True} if difficult else found)
  return objects, picture


def _picture(path: pathlib.Path, name: str, root: pathlib.Path) -> pathlib.Path:
  """The picture of an XML file: the one that it names, else the one that is named like it."""
  folder = root / "JPEGImages" if (root / "JPEGImages").is_dir() else path.parent
  candidates = [folder / name] if name else []
  candidates += [folder / (path.stem + end) for end in (".jpg", *annotations.PICTURES)]
  return next((p for p in candidates if p.is_file()), candidates[0])


def _drawing(path: pathlib.Path, frame: annotations.Frame) -> np.ndarray | None:
  """Number of the object of every pixel, uint8[height, width]; None if there is no such picture."""
  if not path.is_file():
    return None
  try:
    with Image.open(path) as picture:
      drawn = np.array(picture)
  except (OSError, ValueError, SyntaxError) as e:
    raise errors.UserError(f"{path}: damaged image, cannot be decoded ({e})") from None
  if drawn.shape != (frame.height, frame.width):
    raise errors.UserError(
      f"{path} is {drawn.shape}, wanted one number for each pixel of {frame.width} x {frame.height}"
    )
  return drawn


def _number(node, path: str, place: str, default: str = "") -> float:
  text = node.findtext(path) or default
  try:
    return float(text)
  except ValueError:
    raise errors.UserError(f'{place}: {path} is "{text.strip()}"; wanted a number') from None
