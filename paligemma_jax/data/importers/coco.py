"""COCO JSON: instances (boxes, masks) and captions. Format: cocodataset.org, "data format".

Boxes are x, y, width, height in pixels; masks are polygons (one object may have several), or run
lengths, plain or compressed. Crowd regions (`iscrowd`) hold many objects in one: they are left out
and counted, as are pictures without objects.
"""

import collections
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations
from paligemma_jax.processing import masks

_FAR = 10  # sizes of the picture; tracing an edge takes memory for every pixel it passes


def read(
  src: str | os.PathLike, notes: annotations.Notes, *, images: str = "", prefix: str = "caption en"
) -> Iterator[dict]:
  """Records of a COCO file, one a picture, in the order of its "images".

  Args:
    src: instances_….json or captions_….json.
    notes: gets what was left out.
    images: folder of the pictures; "": the one that `src` lies in.
    prefix: prompt of captions; all captions of a picture become its list of suffixes.

  Raises:
    errors.UserError: broken JSON, a missing picture or key, an unknown picture or category.
  """
  data, folder = _load(src), images or os.path.dirname(os.path.abspath(src))
  of_picture = _by_picture(data, src)
  labels = _by_id(data, "categories", src) if "categories" in data else {}
  for picture in data["images"]:
    place = f"{src}: image {picture['id']}"
    path = os.path.join(folder, _get(picture, "file_name", str, place))
    stated = (
      _get(picture, "width", int | float, place),
      _get(picture, "height", int | float, place),
    )
    frame = annotations.frame_of(path, place, stated)
    record = {"image": path, "id": picture["id"]}
    found = of_picture[picture["id"]]
    captions = [_get(a, "caption", str, at).strip() for at, a in found if "caption" in a]
    if captions:
      yield {**record, "prefix": prefix, "suffix": captions}
      continue
    objects = [_object(a, labels, frame, at, notes) for at, a in found]
    objects = [o for o in objects if o is not None]
    if objects:
      yield {**record, "objects": objects}
    else:
      notes[annotations.NOTHING] += 1


def _load(src) -> dict:
  text = annotations.read_text(pathlib.Path(src))
  try:
    data = json.loads(text)
  except json.JSONDecodeError as e:
    raise errors.UserError(f"{src}:{e.lineno}: broken JSON, {e.msg} at column {e.colno}") from None
  lists = data if isinstance(data, dict) else {}
  for key in ("images", "annotations", *(["categories"] if "categories" in lists else [])):
    if not isinstance(lists.get(key), list):
      raise errors.UserError(f'{src}: no list "{key}"; wanted a COCO instances or captions file')
  if any(isinstance(a, dict) and "segments_info" in a for a in data["annotations"]):
    raise errors.UserError(f"{src}: panoptic annotations; give the instances file")
  return data


def _by_id(data, key, src) -> dict[Any, dict]:
  """Entries of one of the file's lists by their "id"."""
  found = {}
  for k, entry in enumerate(data[key]):
    place = f"{src}: {key}[{k}]"
    number = _get(entry, "id", int | str, place)
    if number in found:
      raise errors.UserError(f"{place}: the id {number} is there already; ids must differ")
    found[number] = entry
  return found


def _by_picture(data, src) -> dict[Any, list[tuple[str, dict]]]:
  """Picture's id -> (place, annotation) of each of its annotations."""
  pictures, found = _by_id(data, "images", src), collections.defaultdict(list)
  for k, annotation in enumerate(data["annotations"]):
    place = f"{src}: annotations[{k}]"
    number = _get(annotation, "image_id", int | str, place)
    if number not in pictures:
      raise errors.UserError(f'{place}: there is no image with the id {number} in "images"')
    found[number].append((place, annotation))
  return found


def _object(annotation, labels, frame, place, notes) -> dict | None:
  if annotation.get("iscrowd"):
    notes["crowd regions, left out"] += 1
    return None
  number = _get(annotation, "category_id", int | str, place)
  if number not in labels:
    raise errors.UserError(
      f'{place}: there is no category with the id {number} in "categories"'
      f" (found: {', '.join(map(str, list(labels)[:12])) or 'none'})"
    )
  label = _get(labels[number], "name", str, f"{place}: category {number}")
  box, drawn = annotation.get("bbox"), annotation.get("segmentation")
  if box is None and not drawn:
    raise errors.UserError(f'{place}: neither "bbox" nor "segmentation"; one is needed')
  mask = _mask(drawn, frame, place, notes) if drawn else None
  if box is not None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
      raise errors.UserError(f'{place}: "bbox" is {box!r}; wanted [x, y, width, height]')
    box = box[0], box[1], box[0] + box[2], box[1] + box[3]
  return annotations.make_object(label, box, mask, frame, place, notes)


def _mask(drawn, frame, place, notes) -> np.ndarray:
  if isinstance(drawn, dict):
    mask = masks.decode_rle(drawn, f"{place}: segmentation")
    if mask.shape != (frame.height, frame.width):
      raise errors.UserError(
        f"{place}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the picture"
        f" {frame.width} x {frame.height}"
      )
    return mask
  polygons = drawn if isinstance(drawn, list) else [drawn]
  for polygon in polygons:
    numbers = isinstance(polygon, list) and all(map(_is_number, polygon))
    if not numbers or len(polygon) % 2:
      found = f"{len(polygon)} numbers" if numbers else repr(polygon)[:40]
      raise errors.UserError(f"{place}: a polygon of {found}; wanted x0, y0, x1, y1, …")
    if max(map(abs, polygon), default=0) > _FAR * (frame.height + frame.width):
      raise errors.UserError(f"{place}: a polygon far outside the picture; correct it")
    notes["polygons of fewer than 3 points, left out"] += len(polygon) < 6
  return masks.fill([p for p in polygons if len(p) >= 6], frame.height, frame.width)


def _is_number(value) -> bool:
  return isinstance(value, int | float) and np.isfinite(value)


def _get(entry, key: str, kind, place: str):
  value = entry.get(key) if isinstance(entry, dict) else None
  if not isinstance(value, kind):
    wanted = {int | float: "a number", str: "a string"}.get(kind, "a number or a string")
    found = f'no "{key}"' if value is None else f'"{key}" is {value!r}'
    raise errors.UserError(f"{place}: {found}; wanted {wanted}")
  return value
