"""Pascal VOC: Annotations/*.xml, JPEGImages, ImageSets, SegmentationObject. Format: VOC2012 devkit.

Corners of boxes count pixels from 1 and are inside: 1, 1, W, H is the whole picture. In a
SegmentationObject of numbers, those of value k belong to the k-th object of the XML, 255 is the
line between objects; in one of colours, each belongs to the object whose box it fits. Folders may
have other usual names, in any case; without them XML files and pictures lie side by side, one
folder for each split if there are several.
"""

import math
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations, pictures, texts
from paligemma_jax.processing import image, masks

_PICTURES = ("jpegimages", "images", "image", "imgs", "img", "pictures")
_SETS, _DRAWN, _MAIN = ("imagesets",), ("segmentationobject",), "main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TURNED = ("cx", "cy", "w", "h", "angle")
_LINES = ((0, 0, 0), (224, 224, 192))  # colours of the ground and of the line between objects
_FITS = 0.5  # IoU from which a colour is of an object (chosen)
_MOST_COLOURS = 1000  # a drawing of more is none


def read(
  src: str | os.PathLike,
  notes: annotations.Notes,
  *,
  split: str = "",
  images: str = "",
  zero_based: bool = False,
) -> Iterator[dict]:
  """Records of a VOC data set, one a picture, in the order of the split, else of their names.

  Args:
    src: the folder that holds Annotations, or the XML files themselves.
    notes: gets what was left out or mended.
    split: a file of ImageSets/Main without its ".txt", or of another folder there, such as
      "Segmentation/train", or a folder of XML files; "": every XML file, where there is neither.
    images: folder of the pictures; "": JPEGImages or images, else that of the XML files.
    zero_based: whether corners count from 0 and the last one is outside, as in files of many
      labelling tools.

  Raises:
    errors.UserError: no such split, a missing or broken file, a box that is none.
  """
  root, folder = _places(pathlib.Path(src))
  of_pictures = pathlib.Path(images) if images else pictures.folder_of(root, _PICTURES) or root
  drawings = pictures.folder_of(root, _DRAWN)
  finder, lowest = pictures.Folder(of_pictures, notes), math.inf
  for path in _annotation_files(root, folder, split, notes):
    tree = _tree(path)
    picture = _picture(path, tree, finder, folder)
    size = [texts.number(tree.findtext(f"size/{key}")) for key in ("width", "height")]
    stated = tuple(size) if min(v or 0 for v in size) > 0 else None
    frame = annotations.frame_of(picture, str(path), stated, notes)
    found = _objects(tree, str(path), notes)
    lowest = min([lowest, *(min(box) for _, _, box in found)])
    if not zero_based:
      found = [(place, item, _from_zero(box, place)) for place, item, box in found]
    drawn = drawings / path.relative_to(folder).with_suffix(".png") if drawings else None
    regions = _regions(drawn, frame, [box for _, _, box in found], notes)
    objects = []
    for (place, item, box), mask in zip(found, regions):
      made = annotations.make_object(_label(item, place), box, mask, frame, place, notes)
      if made is not None:
        is_difficult = texts.flag(item.findtext("difficult"))
        objects.append({**made, "difficult": True} if is_difficult else made)
    if objects:
      yield {"image": str(picture), "objects": objects}
    else:
      notes.add(annotations.NOTHING, str(path))
  notes.hint(_counted_from(lowest, zero_based))


def _counted_from(lowest: float, zero_based: bool) -> str:
  """How the corners were read, and whether the lowest of them all speaks for it."""
  if zero_based and lowest == 1:
    return (
      "corners were taken to count from 0, but none is 0 and some are 1: the tool that wrote them"
      " may count from 1, as VOC says; then import again without --zero-based"
    )
  if zero_based:
    return "corners were taken to count from 0, the last one outside, as --zero-based says"
  seen = "; the lowest is 1" if lowest == 1 else ""
  return (
    f"corners were taken to count from 1, as VOC says{seen}; if the tool that wrote them counts from"
    " 0, import again with --zero-based"
  )


def _places(src: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """The folder of the data set, and that of its XML files; `src` may be either."""
  if not src.is_dir():
    raise errors.UserError(f"{src}: wanted the folder that holds the XML files")
  if src.name.lower() in pictures.ANNOTATIONS and pictures.folder_of(
    src.absolute().parent, _PICTURES
  ):
    return src.absolute().parent, src
  return src, pictures.folder_of(src, (*pictures.ANNOTATIONS, "labels")) or src


def _annotation_files(root, folder, split, notes) -> list[pathlib.Path]:
  sets = pictures.folder_of(root, _SETS)
  if sets is not None and (split or pictures.folder_of(sets, (_MAIN,)) or list(sets.glob("*.txt"))):
    return [_xml_of(name, folder) for name in _names(sets, split, root)]
  found = [p for p in pictures.below(folder, notes) if p.suffix.lower() == ".xml"]
  parts = [p.relative_to(folder).parts for p in found]
  splits = {part[0] if len(part) > 1 else "" for part in parts}
  if split or (len(splits) > 1 and "" not in splits):
    chosen = annotations.choose_split(split, splits, root)
    found = [path for path, part in zip(found, parts) if part[0] == chosen]
  if not found:
    raise errors.UserError(f"{folder}: no XML files in it; give the folder that has them")
  return found


def _names(sets: pathlib.Path, split: str, root) -> list[str]:
  """Names of the pictures of a split."""
  lists = [p for p in pictures.below(sets) if p.suffix.lower() == ".txt"]
  files = {p.relative_to(sets).with_suffix("").as_posix(): p for p in lists}
  known = {}
  for name, path in files.items():
    folder, _, last = name.rpartition("/")
    known[last if folder.lower() in ("", _MAIN) else name] = path
  asked = known if split else [name for name in known if "/" not in name] or known
  path = known[annotations.choose_split(split, asked, root)]
  lines = [line.split() for line in texts.read_text(path).splitlines() if line.strip()]
  return [words[0] for words in lines if words[1:] != ["-1"]]  # -1: not of the file's class


def _xml_of(name: str, folder: pathlib.Path) -> pathlib.Path:
  """The XML file of a name in a split, which may be that of the picture or a path."""
  name = name.replace("\\", "/").lstrip("/")
  last = name.rpartition("/")[2]
  stem, end = os.path.splitext(last)
  names = [name, last, *([stem] if end.lower() in pictures.endings() else [])]
  paths = [folder / f"{one}.xml" for one in names]
  return next((p for p in paths if os.path.isfile(p)), paths[-1])


def _tree(path: pathlib.Path) -> ET.Element:
  try:
    tree = texts.read_xml(path)
  except OSError as e:
    raise errors.UserError(f"{path}: {e.strerror}; the split names it, put it there") from None
  if tree.find("object") is None and tree.find("filename") is None:
    raise errors.UserError(
      f"{path}: an XML file of <{tree.tag}> without <filename> and <object>; export as Pascal VOC"
    )
  return tree


def _picture(path: pathlib.Path, tree: ET.Element, finder: pictures.Folder, folder) -> str:
  """The picture of an XML file: the one that it names, else the one that is named like it."""
  named, beside = (
    tree.findtext("filename") or tree.findtext("path") or "",
    path.relative_to(folder).parent,
  )
  for name in (named and str(beside / named), str(path.relative_to(folder).with_suffix(""))):
    found = finder.look(name, str(path)) if name else None
    if found is not None:
      return found
  return finder.find(named or path.stem, str(path))


def _objects(tree, name, notes) -> list[tuple[str, ET.Element, list[float]]]:
  """(place, element, box as the file has it) of every object."""
  found = []
  for k, item in enumerate(tree.iterfind("object"), 1):
    place = f"{name}: object {k}"
    if texts.flag(item.findtext("deleted")):  # LabelMe keeps them
      notes.add("objects marked as deleted, left out", place)
      continue
    found.append((place, item, _box(item, place)))
  return found


def _from_zero(box: list[float], place: str) -> list[float]:
  """A box whose corners count from 1 and are inside, end-exclusive from 0."""
  if min(box) < 1:
    raise errors.UserError(
      f"{place}: the corner {min(box):g} is less than 1, from which VOC counts; if the tool that"
      " wrote it counts from 0, give --zero-based"
    )
  return [box[0] - 1, box[1] - 1, box[2], box[3]]


def _label(item: ET.Element, place: str) -> str:
  if item.find("name") is None:
    found = ", ".join(n.tag for n in item)
    raise errors.UserError(f"{place}: no name of the class (found: {found}); add <name>")
  return item.findtext("name")


def _box(item: ET.Element, place: str) -> list[float]:
  """xmin, ymin, xmax, ymax as the file has them; of a polygon, those around it."""
  for path in ("bndbox", "segm/box"):
    node = item.find(path)
    if node is not None and any((node.findtext(c) or "").strip() for c in _CORNERS):
      return [_number(node, c, f"{place}: {path}") for c in _CORNERS]
  turned = item.find("robndbox")
  if turned is not None:
    return _around_turned(*(_number(turned, c, f"{place}: robndbox") for c in _TURNED))
  polygon = item.find("polygon")
  points = [] if polygon is None else [n for n in polygon.iter() if n.tag[:1] in ("x", "y")]
  values = [(n.tag[0], texts.number(n.text)) for n in points]
  xs, ys = ([v for axis, v in values if axis == letter] for letter in "xy")
  if polygon is None and (node := item.find("bndbox")) is not None:
    _number(node, _CORNERS[0], f"{place}: bndbox")  # is not there
  if not xs or not ys or None in xs or None in ys:
    found = ", ".join(n.tag for n in item) or "nothing"
    raise errors.UserError(f"{place}: no bndbox and no polygon (found: {found}); draw a box")
  return [min(xs), min(ys), max(xs), max(ys)]


def _around_turned(cx, cy, width, height, angle) -> list[float]:
  """The box around one that is turned about its middle by an angle in radians (roLabelImg)."""
  cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
  half_x, half_y = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
  return [cx - half_x, cy - half_y, cx + half_x, cy + half_y]


def _number(node: ET.Element, key: str, place: str) -> float:
  text = (node.findtext(key) or "").strip()
  value = texts.number(text)
  if value is None:
    found = f'{key} is "{text:.40}"' if text else f"no {key}"
    raise errors.UserError(f"{place}: {found}; wanted a number")
  return value


def _regions(path, frame, boxes, notes) -> list[np.ndarray | None]:
  """The mask of every object from a drawing of them all; None where there is none."""
  nothing = [None] * len(boxes)
  if path is None or not path.is_file():
    return nothing
  try:
    drawn = _pixels(path)
  except errors.UserError as e:
    notes.add(annotations.WITHOUT_MASK, str(e))
    return nothing
  if drawn.shape[:2] != (frame.height, frame.width):
    height, width = drawn.shape[:2]
    notes.add(
      annotations.WITHOUT_MASK,
      f"{path}: {width} x {height} pixels, the annotations are of {frame.width} x {frame.height}",
    )
    return nothing
  if drawn.ndim == 2:
    return [drawn == k for k in range(1, len(boxes) + 1)]
  return _by_colour(drawn, boxes, path, notes)


def _pixels(path: pathlib.Path) -> np.ndarray:
  """uint8[height, width] of numbers or uint8[height, width, 3] of colours."""
  with image.opened(path) as picture:
    numbers = picture.mode in ("P", "L", "1", "I;16", "I")
    return np.array(picture if numbers else picture.convert("RGB"))


def _by_colour(drawn, boxes: Sequence, path, notes) -> list[np.ndarray | None]:
  """Of every object, the pixels of the colour that fits its box best; a colour is of one object."""
  codes = drawn.astype(np.int32) @ (1 << 16, 1 << 8, 1)
  colours = np.unique(codes)
  ground = [(r << 16) + (g << 8) + b for r, g, b in _LINES]
  regions = [codes == c for c in colours[:_MOST_COLOURS] if c not in ground]
  fits = [
    (_iou(masks.box_of(r), box), i, k) for i, r in enumerate(regions) for k, box in enumerate(boxes)
  ]
  found, taken = [None] * len(boxes), set()
  for fit, i, k in sorted(fits, reverse=True):
    if fit >= _FITS and i not in taken and found[k] is None:
      found[k] = regions[i]
      taken.add(i)
  for i in range(len(regions)):
    if i not in taken:
      notes.add("colours of a drawing that fit no object's box, left out", str(path))
  return found


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  if width <= 0 or height <= 0:
    return 0.0
  area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
  return width * height / (area(a) + area(b) - width * height)
