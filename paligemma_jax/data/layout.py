"""The features of a data set made by others as the keys of our records.

A pair `(ours, theirs)` says which feature a key comes from; `/` leads into nested features:

  ("image", "photo")                   the picture; given twice, an example has two of them
  ("suffix", "captions/text")          the answers; likewise "prefix", "id", or a name of your own
  ("objects/box", "objects/bbox")      one list for every key of the objects: "objects/label" and,
  ("objects/label", "objects/name")    for segmentation, "objects/mask"; for the task refer,
                                       "objects/sentences"; "objects/iscrowd" and "objects/ignore"
                                       leave out of answers

Features without a pair keep their names. Boxes that jut out of their picture are cut, objects whose
box holds nothing of it are left out: nobody can edit such a data set.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data import files
from paligemma_jax.processing import image

Box = tuple[float, float, float, float]
# How a data set writes its boxes: (four numbers, height, width) -> x0 y0 x1 y1 in pixels.
BOXES: dict[str, Callable[[list[float], float, float], Box]] = {
  "xyxy": lambda b, h, w: (b[0], b[1], b[2], b[3]),  # pixels, as our own records
  "xywh": lambda b, h, w: (b[0], b[1], b[0] + b[2], b[1] + b[3]),  # pixels: COCO
  "yxyx_unit": lambda b, h, w: _in_float32(b, h, w),  # 0..1: TFDS
}
_SLACK = 0.5  # pixels that a box may jut out without a word: tools round
_OBJECT_KEYS = ("box", "label", "mask", "sentences", "iscrowd", "ignore", "area")


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where a data set keeps what a record needs."""

  fields: tuple[tuple[str, str], ...] = ()  # (our key, their feature)
  boxes: str = "xyxy"  # a name in `BOXES`
  max_images: int = 0  # most pictures of one record; 0: one for each pair of "image"

  def __post_init__(self):
    if self.boxes not in BOXES:
      raise errors.UserError(
        f'boxes: "{self.boxes}" is unknown{errors.did_you_mean(self.boxes, BOXES)}'
      )
    for pair in self.fields:
      if len(pair) != 2 or not all(isinstance(name, str) for name in pair):
        raise errors.UserError(f'fields holds pairs ("our key", "their feature"), found {pair!r}')
      ours, inside, key = pair[0].partition("/")
      if inside and (ours != "objects" or key not in _OBJECT_KEYS):
        known = [f"objects/{k}" for k in _OBJECT_KEYS]
        raise errors.UserError(
          f'fields: "{pair[0]}" is unknown{errors.did_you_mean(pair[0], known)}'
        )

  @property
  def image_features(self) -> tuple[str, ...]:
    """Their names of the pictures."""
    return tuple(theirs for ours, theirs in self.fields if ours == "image") or ("image",)

  def most_images(self) -> int:
    """Most pictures that one record may have."""
    return self.max_images or len(self.image_features)

  def record(
    self,
    features: Mapping[str, Any],
    place: str,
    folder: str = "",
    told: list[tuple[str, str]] | None = None,
  ) -> dict[str, Any]:
    """A record of the features of one example.

    Args:
      features: plain values, nested dicts and lists; pictures as bytes or paths.
      place: where they stand, for errors.
      folder: what relative paths start from.
      told: gets ("box cut", "box left out" or "nothing left", a sentence) for what is changed.

    Raises:
      errors.UserError: a feature is missing, boxes and labels differ in number, too many pictures.
    """
    told = [] if told is None else told
    pictures = [_listed(_look_up(features, name, place)) for name in self.image_features]
    pictures = [one for some in pictures for one in some]
    if len(pictures) > self.most_images():
      raise errors.UserError(
        f"{place}: {len(pictures)} pictures; set max_images to the most that a record has"
      )
    whole = {k: v for k, v in features.items() if k not in self.image_features}
    whole["image"] = pictures[0] if len(pictures) == 1 else pictures
    columns = {}
    for ours, theirs in self.fields:
      if ours.startswith("objects/"):
        value = _look_up(features, theirs, place)
        columns[ours.removeprefix("objects/")] = [] if value is None else _listed(value)
      elif ours != "image":
        whole[ours] = _look_up(features, theirs, place)
    if columns:
      last = pictures[-1] if pictures else ""
      last = files.join(folder, last) if isinstance(last, str) else last
      found = self._objects(columns, last, place)
      is_table = "structure" in whole  # names its cells by their number, the empty ones too
      if "box" in columns and found and not is_table:
        found = _inside(found, last, told)
      if not found:
        told.append(
          ("nothing left", "has no objects; it counts as unreadable (input.max_unreadable)")
        )
      whole["objects"] = found
    return whole

  def _objects(self, columns: dict[str, list], picture: Any, place: str) -> list[dict]:
    if "box" in columns:
      columns["box"] = self._in_pixels(columns["box"], picture, place)
    counts = {key: len(values) for key, values in columns.items()}
    if len(set(counts.values())) > 1:
      words = ", ".join(f"{n} of {key}" for key, n in counts.items())
      raise errors.UserError(f"{place}: the objects differ in number: {words}; correct fields")
    return [dict(zip(columns, values)) for values in zip(*columns.values())]

  def _in_pixels(self, boxes: list, picture: Any, place: str) -> list[list[float]]:
    if boxes and not isinstance(boxes[0], list | None):  # one row of numbers after the other
      boxes = [boxes[k : k + 4] for k in range(0, len(boxes), 4)]
    height = width = 1
    if boxes and self.boxes.endswith("_unit"):
      height, width, _ = image.read_header(picture, f"{place}: image")
    try:
      return [[float(v) for v in BOXES[self.boxes](_numbers(box), height, width)] for box in boxes]
    except (TypeError, ValueError):
      raise errors.UserError(f"{place}: a box is four numbers, found {boxes[:1]}") from None


def _numbers(box: list | None) -> list[float]:
  """A box as its four numbers; what is null is none."""
  x0, y0, x1, y1 = [None] * 4 if box is None else box
  return [math.nan if v is None else v for v in (x0, y0, x1, y1)]


def _in_float32(box: list[float], height: float, width: float) -> Box:
  """Pixels as the reference has them when it rounds them: float32(28.5 / 500) · 500 is 28.5."""
  y0, x0, y1, x1 = np.asarray(box, np.float32) * np.asarray((height, width) * 2, np.float32)
  return x0, y0, x1, y1


def _inside(objects: list[dict], picture: str | bytes, told: list[tuple[str, str]]) -> list[dict]:
  """The objects with their boxes cut to the picture, without those that have nothing in it."""
  try:
    height, width, _ = image.read_header(picture)
  except errors.UserError:
    return objects  # told when the picture is read
  found, size = [], f"{width} x {height} pixels"
  for k, item in enumerate(objects):
    x0, y0, x1, y1 = item["box"]
    cut = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
    name = f"objects[{k}].box [{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
    if not all(map(math.isfinite, item["box"])) or cut[0] >= cut[2] or cut[1] >= cut[3]:
      told.append(("box left out", f"{name} holds nothing of the picture of {size}; left out"))
      continue
    if max(abs(a - b) for a, b in zip(cut, item["box"])) > _SLACK:
      told.append(("box cut", f"{name} is cut to the picture of {size}"))
    found.append({**item, "box": cut})
  return found


def _look_up(value: Any, name: str, place: str) -> Any:
  """A feature by its name, which may contain slashes itself; of a list, that of every item; of
  null, null."""
  if value is None:
    return None
  if isinstance(value, list):
    return [_look_up(item, name, place) for item in value]
  if isinstance(value, Mapping):
    if name in value:
      return value[name]
    for key, inner in value.items():
      if name.startswith(f"{key}/"):
        return _look_up(inner, name[len(key) + 1 :], place)
  known = value if isinstance(value, Mapping) else ()
  raise errors.UserError(f'{place}: no feature "{name}"{errors.did_you_mean(name, known)}')


def _listed(value: Any) -> list:
  return value if isinstance(value, list) else [value]
