"""CSV of boxes, a row each: with columns for corners and class, without a header, or of VIA.

  filename,width,height,class,xmin,ymin,xmax,ymax    TensorFlow, Roboflow, Kaggle
  ImageID,…,LabelName,…,XMin,XMax,YMin,YMax,…        Open Images: fractions of the picture
  a.jpg,5,3,20,9,cat                                 keras-retinanet; a.jpg,,,,, is background
  filename,…,region_shape_attributes,region_attributes    VIA: JSON in fields

Corners are pixels from 0, end-exclusive; those of a file that are all at most 1 are fractions.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations, pictures, texts
from paligemma_jax.processing import masks

_NAMES = {  # what a column is, by its name in small letters and digits alone
  "image": ("image", "filename", "imageid", "imagename", "imagepath", "filepath", "path", "file"),
  "label": ("label", "class", "classname", "labelname", "category", "categoryname"),
  "group": ("isgroupof",),  # of Open Images: a crowd
  "width": ("width", "imagewidth", "imgwidth"),  # of the picture
  "height": ("height", "imageheight", "imgheight"),
  "shape": ("regionshapeattributes",),
  "attributes": ("regionattributes",),
}
_CORNERS = (
  ("xmin", "ymin", "xmax", "ymax"),
  ("x1", "y1", "x2", "y2"),
  ("x0", "y0", "x1", "y1"),
  ("left", "top", "right", "bottom"),
)
_LABELS = ("class", "label", "name", "type")  # keys of VIA's attributes, the first that is there

Columns = Mapping[str, int]  # what -> number of the column; corners are "0" to "3"


class _Row(NamedTuple):
  place: str
  label: str
  points: list[float]  # x0, y0, x1, y1 of a box; of a polygon, more


def columns_of(header: list[str], given: Mapping[str, str]) -> Columns | None:
  """Which column holds what; None if they are no boxes.

  Args:
    header: names of the columns.
    given: "image" and "label" -> name of the column, where the usual names do not tell.
  """
  if any(name not in header for name in given.values()):
    return None
  names = [re.sub("[^a-z0-9]", "", name.lower()) for name in header]
  found = {what: _first(names, usual) for what, usual in _NAMES.items()}
  found |= {what: header.index(name) for what, name in given.items()}
  for corners in _CORNERS:
    if all(name in names for name in corners):
      found |= {str(k): names.index(name) for k, name in enumerate(corners)}
      break
  found = {what: number for what, number in found.items() if number is not None}
  is_via = "shape" in found and "attributes" in found
  return found if "image" in found and (is_via or {"label", "0"} <= found.keys()) else None


def without_header(first: list[str]) -> Columns | None:
  """The columns of keras-retinanet if the first row of a file is one of its rows."""
  corners = [texts.number(v) for v in first[1:5] if v.strip()]
  is_row = len(first) == 6 and None not in corners and len(corners) in (0, 4)
  return {"image": 0, "0": 1, "1": 2, "2": 3, "3": 4, "label": 5} if is_row else None


def records(
  rows: Iterable[tuple[int, list[str]]],
  columns: Columns,
  finder: pictures.Folder,
  src,
  notes: annotations.Notes,
) -> Iterator[dict]:
  """Records, one a picture, in the order in which the file first names them.

  Args:
    rows: (line, fields) of every row.
    columns: of `columns_of` or `without_header`.
    finder: of the pictures.
    src: the file, for places.
    notes: gets what was left out.

  Raises:
    errors.UserError: a row that is too short, no number, a missing picture, a box that is none.
  """
  found: dict[str, list[_Row]] = {}
  sizes = {}
  for number, fields in rows:
    place = f"{src}:{number}"
    if len(fields) <= max(columns.values()):
      raise errors.UserError(f"{place}: {len(fields)} fields; wanted {max(columns.values()) + 1}")
    of_picture = found.setdefault(fields[columns["image"]], [])
    sizes.setdefault(fields[columns["image"]], _size(fields, columns))
    row = (_of_via if "shape" in columns else _of_corners)(fields, columns, place, notes)
    of_picture += [] if row is None else [row]
  every = [abs(v) for of_picture in found.values() for row in of_picture for v in row.points]
  are_fractions = bool(every) and max(every) <= 1
  for name, of_picture in found.items():
    place = of_picture[0].place if of_picture else str(src)
    path = finder.find(name, place)
    frame = annotations.frame_of(path, place, None if are_fractions else sizes[name], notes)
    scale = (frame.width, frame.height) if are_fractions else (1, 1)
    objects = [_object(row, scale, frame, notes) for row in of_picture]
    objects = [o for o in objects if o is not None]
    if objects:
      yield {"image": path, "objects": objects}
    else:
      notes.add(annotations.NOTHING, f"{src}: {name}")


def _first(names: list[str], usual: Iterable[str]) -> int | None:
  return next((names.index(name) for name in usual if name in names), None)


def _size(fields: list[str], columns: Columns) -> tuple[float, float] | None:
  """Width and height that the row states for its picture."""
  sides = [texts.number(fields[columns[k]]) for k in ("width", "height") if k in columns]
  return tuple(sides) if len(sides) == 2 and min(v or 0 for v in sides) > 0 else None


def _of_corners(fields, columns, place, notes) -> _Row | None:
  given = [fields[columns[str(k)]] for k in range(4)]
  if not any(v.strip() for v in given):
    return None  # background
  if "group" in columns and texts.number(fields[columns["group"]]) == 1:
    notes.add("groups of objects in one box, left out", place)
    return None
  return _Row(place, fields[columns["label"]], _numbers(given, place))


def _of_via(fields, columns, place, notes) -> _Row | None:
  try:
    shape, attributes = (
      json.loads(fields[columns[key]] or "{}") for key in ("shape", "attributes")
    )
    kind = shape.get("name")
    labels = [attributes[key] for key in _LABELS if key in attributes] or list(attributes.values())
  except (ValueError, AttributeError, RecursionError):
    raise errors.UserError(f"{place}: a region that is no JSON object; export it again") from None
  if kind is None:
    return None  # a picture without regions
  if kind == "rect":
    x, y, width, height = _numbers([shape.get(k) for k in ("x", "y", "width", "height")], place)
    points = [x, y, x + width, y + height]
  elif kind == "polygon":
    axes = [shape.get(f"all_points_{axis}") for axis in "xy"]
    pairs = list(zip(*axes)) if all(isinstance(axis, list) for axis in axes) else []
    points = _numbers([v for pair in pairs for v in pair], place)
    if len(points) < 6:
      notes.add("polygons of fewer than 3 points, left out", place)
      return None
  else:
    notes.add(f"shapes that are neither rectangles nor polygons, left out ({kind})", place)
    return None
  label = labels[0] if labels and isinstance(labels[0], str) else ""
  return _Row(place, label, points)


def _numbers(given: list, place: str) -> list[float]:
  values = [texts.number(v) for v in given]
  if None in values:
    raise errors.UserError(f"{place}: the box is {given!r:.80}; wanted numbers")
  return values


def _object(row: _Row, scale, frame, notes) -> dict | None:
  points = np.reshape(row.points, (-1, 2)) * scale
  if len(points) == 2:
    box, mask = points.ravel(), None
  else:
    box = (*points.min(axis=0), *points.max(axis=0))
    mask = masks.fill([points.ravel()], frame.height, frame.width)
  return annotations.make_object(row.label, box, mask, frame, row.place, notes)
