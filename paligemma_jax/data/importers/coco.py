"""COCO JSON: instances (boxes, masks), captions, regions with a sentence each; LVIS.

Format: cocodataset.org, "data format". Boxes are x, y, width, height in pixels; masks are polygons
(one object may have several), or run lengths, plain or compressed. What a file is, its annotations
tell as a whole: captions, where none has a box or mask; regions, where most of those that have one
have a caption too. Crowd regions (`iscrowd`) hold many objects in one: they are left out and
counted, as are pictures without objects.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations, pictures, texts
from paligemma_jax.processing import masks

CROWD = ("drop", "keep")
_FAR = 10  # sizes of the picture; tracing an edge takes memory for every pixel it passes
_HINT_FROM = (
  0.1  # share of the masks, or of all, that are of crowds; of COCO's own, one in a hundred is
)
_FILES = (
  "file_name",
  "filename",
  "path",
  "coco_url",
  "image_name",
  "name",
  "url",
)  # where an image names its file
_REGION = "object"  # the label of a region without a category


def read(
  src: str | os.PathLike,
  notes: annotations.Notes,
  *,
  images: str = "",
  prefix: str = "caption en",
  crowd: str = "drop",
) -> Iterator[dict]:
  """Records of a COCO file, one a picture, in the order of its "images".

  Args:
    src: instances_….json, captions_….json or a file of regions.
    notes: gets what was left out or mended.
    images: folder of the pictures; "": the one that `src` lies in, or above it if that one is called
      annotations.
    prefix: prompt of captions; all captions of a picture become its list of suffixes.
    crowd: "keep" takes annotations with `iscrowd` as single objects: tools such as CVAT write every
      mask of run lengths so.

  Raises:
    errors.UserError: broken JSON, a missing picture or key, an unknown picture or category.
  """
  data = _load(src)
  named, labels = (_by_id(data, key, src, notes) for key in ("images", "categories"))
  of_picture = _by_picture(data, named, src)
  kind = _kind(data["annotations"])
  if kind != "captions" and crowd == "drop":
    _hint_at_crowds(data["annotations"], notes)
  folder = pictures.Folder(images or _beside(src), notes)
  for number, picture in named.items():
    place = f"{src}: image {picture['id']}"
    path = folder.find(_file_name(picture, place), place)
    record = {"image": path, "id": picture["id"]}
    found = of_picture[number]
    if kind == "captions":
      annotations.frame_of(path, place)
      said = {"prefix": prefix, "suffix": _captions(found, notes)}
    else:
      frame = annotations.frame_of(path, place, _size(picture), notes)
      objects = [_object(a, labels, frame, at, kind, crowd, notes) for at, a in found]
      said = {"objects": [o for o in objects if o is not None]}
      if picture.get("not_exhaustive_category_ids"):
        notes.add("pictures on which not every object of a class is marked (LVIS)", place)
    if said.get("suffix") or said.get("objects"):
      yield {**record, **said}
    else:
      notes.add(annotations.NOTHING, place)


def _beside(src) -> pathlib.Path:
  folder = pathlib.Path(src).absolute().parent
  return folder.parent if folder.name.lower() in pictures.ANNOTATIONS else folder


def _load(src) -> dict[str, list]:
  """The file's lists; "categories" may be none."""
  data = texts.read_json(pathlib.Path(src))
  given = data if isinstance(data, dict) else {}
  lists = {k: _entries(v) for k, v in given.items() if v is not None}
  for key in ("images", "annotations", *(["categories"] if "categories" in lists else [])):
    if lists.get(key) is None:
      raise errors.UserError(f'{src}: no list "{key}"; wanted a COCO instances or captions file')
  for k, annotation in enumerate(lists["annotations"]):
    if not isinstance(annotation, dict):
      raise errors.UserError(f"{src}: annotations[{k}] is {annotation!r:.40}; wanted an object")
    if "segments_info" in annotation:
      raise errors.UserError(f"{src}: panoptic annotations; give the instances file")
  return {"categories": [], **lists}


def _entries(value: Any) -> list | None:
  """A list; of an object, its values, which get their keys as ids and, as mere texts, as names."""
  if not isinstance(value, dict):
    return value if isinstance(value, list) else None
  return [
    {"id": key, **(entry if isinstance(entry, dict) else {"name": entry})}
    for key, entry in value.items()
  ]


def _kind(found: list[dict]) -> str:
  """What the annotations are as a whole: "captions", "regions" or "objects"."""
  captioned = [bool(_sentences(a)) for a in found]
  drawn = [_is_drawn(a) for a in found]
  if any(captioned) and not any(drawn):
    return "captions"
  both = sum(c and d for c, d in zip(captioned, drawn))
  return "regions" if both > sum(drawn) / 2 else "objects"


def _is_drawn(annotation: dict) -> bool:
  """Whether it has a mask, or a box that is no mere stand-in of zeros."""
  box = annotation.get("bbox")
  return bool(annotation.get("segmentation")) or (
    isinstance(box, list) and any(texts.number(v) != 0 for v in box)
  )


def _sentences(annotation: dict) -> list[str]:
  """What its "caption" says, one text or several."""
  said = annotation.get("caption")
  said = said if isinstance(said, list) else [said]
  return [text.strip() for text in said if isinstance(text, str) and text.strip()]


def _captions(found: Iterable[tuple[str, dict]], notes) -> list[str]:
  for place, annotation in found:
    if not _sentences(annotation):
      notes.add("annotations without a caption, left out", place)
  return [text for _, a in found for text in _sentences(a)]


def _hint_at_crowds(found: list[dict], notes) -> None:
  drawn = [a for a in found if a.get("segmentation")]
  crowds = sum(isinstance(a["segmentation"], dict) and _is_crowd(a) for a in drawn)
  if crowds > _HINT_FROM * len(drawn):
    what = f"{crowds} of {len(drawn)} masks are run lengths with iscrowd 1"
  elif (crowds := sum(map(_is_crowd, found))) > _HINT_FROM * len(found):
    what = f"{crowds} of {len(found)} annotations have iscrowd 1"
  else:
    return
  notes.hint(f"{what}; where a tool wrote single objects so, --crowd keep takes them")


def _is_crowd(annotation: dict) -> bool:
  return texts.flag(annotation.get("iscrowd"))


def _by_id(data, key, src, notes) -> dict[str, dict]:
  """Entries of one of the file's lists by their "id"; one that is there twice counts once."""
  found = {}
  for k, entry in enumerate(data[key]):
    place = f"{src}: {key}[{k}]"
    number = _id(entry, "id", place)
    if found.get(number, entry) != entry:
      raise errors.UserError(f"{place}: the id {number} is there already; ids must differ")
    if number in found:
      notes.add("entries that are listed twice, taken once", place)
    found[number] = entry
  return found


def _by_picture(data, known, src) -> dict[str, list[tuple[str, dict]]]:
  """Picture's id -> (place, annotation) of each of its annotations."""
  found = collections.defaultdict(list)
  for k, annotation in enumerate(data["annotations"]):
    place = f"{src}: annotations[{k}]"
    place += f" (id {annotation['id']})" if "id" in annotation else ""
    number = _id(annotation, "image_id", place)
    if number not in known:
      raise errors.UserError(f'{place}: there is no image with the id {number} in "images"')
    found[number].append((place, annotation))
  return found


def _id(entry, key: str, place: str) -> str:
  value = entry.get(key) if isinstance(entry, dict) else None
  found = texts.identity(value)
  if found is None:
    raise errors.UserError(f"{place}: {_found(key, value)}; wanted a number or a string")
  return found


def _found(key: str, value: Any) -> str:
  return f'no "{key}"' if value is None else f'"{key}" is {value!r:.60}'


def _file_name(picture: dict, place: str) -> str:
  """Name of the picture's file; LVIS has its URL alone."""
  name = next((picture[key] for key in _FILES if picture.get(key)), None)
  if not isinstance(name, str):
    raise errors.UserError(f"{place}: {_found('file_name', name)}; wanted a string")
  return name


def _size(picture: dict) -> tuple[float, float] | None:
  """Width and height that the annotations are for; None where the file does not tell."""
  width, height = (texts.number(picture.get(key)) for key in ("width", "height"))
  return (width, height) if (width or 0) > 0 and (height or 0) > 0 else None


def _object(annotation, labels, frame, place, kind, crowd, notes) -> dict | None:
  if not _is_wanted(annotation, place, kind, crowd, notes):
    return None
  has_label = kind == "objects" or (labels and annotation.get("category_id") is not None)
  label = _label(annotation, labels, place) if has_label else _REGION
  box, drawn = _box(annotation.get("bbox"), place), annotation.get("segmentation")
  if box is None and not drawn:
    raise errors.UserError(f'{place}: neither "bbox" nor "segmentation"; one is needed')
  mask = _usable_mask(drawn, frame, place, box is not None, notes)
  if box is None and mask is None:
    return None
  has_pixels = mask is not None and mask.any()
  if has_pixels and box is not None and (box[0] == box[2] or box[1] == box[3]):
    notes.add("boxes without area, drawn around the mask", place)
    box = None
  made = annotations.make_object(label, box, mask, frame, place, notes)
  return {**made, "sentences": _sentences(annotation)} if made and kind == "regions" else made


def _is_wanted(annotation, place, kind, crowd, notes) -> bool:
  """Whether an annotation becomes an object; notes what is left out of it, or it itself."""
  caption = _sentences(annotation)
  if _is_crowd(annotation) and crowd == "drop":
    notes.add("crowd regions, left out", place)
  elif caption and not _is_drawn(annotation):
    notes.add("captions of whole pictures among objects, left out", place)
  elif not caption and kind == "regions":
    notes.add("regions without a sentence, left out", place)
  else:
    if caption and kind == "objects":
      notes.add("captions of single objects, left out", place)
    if annotation.get("keypoints"):
      notes.add("key points, left out", place)
    return True
  return False


def _label(annotation, labels, place) -> str:
  number = _id(annotation, "category_id", place)
  if number not in labels:
    raise errors.UserError(
      f'{place}: there is no category with the id {number} in "categories"'
      f" (found: {', '.join(list(labels)[:12]) or 'none'})"
    )
  name = labels[number].get("name")
  if not isinstance(name, str | int | float):
    found = _found("name", name)
    raise errors.UserError(f"{place}: category {number}: {found}; wanted a string")
  return str(name)


def _box(given, place) -> tuple[float, ...] | None:
  """x0, y0, x1, y1; None if there is none."""
  if given is None or given == []:
    return None
  values = [texts.number(v) for v in given] if isinstance(given, list) else []
  if len(values) != 4 or None in values:
    raise errors.UserError(f'{place}: "bbox" is {given!r:.60}; wanted [x, y, width, height]')
  x, y, width, height = values
  return x, y, x + width, y + height


def _usable_mask(drawn, frame, place, has_box, notes) -> np.ndarray | None:
  if not drawn:
    return None
  try:
    return _mask(drawn, frame, place, notes)
  except errors.UserError as e:
    what = "objects without a box whose mask cannot be used, left out"
    notes.add(annotations.WITHOUT_MASK if has_box else what, str(e))
    return None


def _mask(drawn, frame, place, notes) -> np.ndarray:
  if isinstance(drawn, list) and all(isinstance(part, dict) for part in drawn):
    return np.logical_or.reduce([_mask(part, frame, place, notes) for part in drawn])
  if isinstance(drawn, dict):
    size = drawn.get("size")
    if isinstance(size, list) and [texts.whole(v) for v in size] != [frame.height, frame.width]:
      raise errors.UserError(
        f"{place}: the mask has {size} pixels, height and width, the picture"
        f" {[frame.height, frame.width]}"
      )
    return masks.decode_rle(drawn, f"{place}: segmentation")
  polygons = [_polygon(p, frame, place) for p in _polygons(drawn)]
  for _ in range(sum(len(p) < 6 for p in polygons)):
    notes.add("polygons of fewer than 3 points, left out", place)
  return masks.fill([p for p in polygons if len(p) >= 6], frame.height, frame.width)


def _polygons(drawn) -> list:
  """Polygons as lists of numbers, from the forms that tools write besides COCO's."""
  if not isinstance(drawn, list) or not isinstance(drawn[0], list):
    return [drawn]  # one alone
  if all(isinstance(p, list) and len(p) == 2 and not isinstance(p[0], list) for p in drawn):
    drawn = [drawn]  # one of pairs
  return [
    [v for pair in p for v in pair]
    if isinstance(p, list) and p and all(isinstance(pair, list) for pair in p)
    else p
    for p in drawn
  ]


def _polygon(given, frame, place) -> list[float]:
  values = [texts.number(v) for v in given] if isinstance(given, list) else [None]
  if None in values or len(values) % 2:
    found = repr(given)[:40] if None in values else f"{len(values)} numbers"
    raise errors.UserError(f"{place}: a polygon of {found}; wanted x0, y0, x1, y1, …")
  if max(map(abs, values), default=0) > _FAR * (frame.height + frame.width):
    raise errors.UserError(f"{place}: a polygon far outside the picture")
  return values
