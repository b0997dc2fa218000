"""One record, read to its last pixel: what is wrong with it, its pictures, its masks."""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data import examples, files, problems, tasks
from paligemma_jax.processing import boxes, image, masks

_LEVELS = 64  # of 256 between the darkest and the brightest: less is worth a look (chosen)
_UNSEEN = (
  "nothing to be seen",
  "all of it is transparent; look at it, and at what input.alpha makes of it",
)


class Picture(NamedTuple):
  """A picture that could be decoded."""

  height: int
  width: int
  digest: bytes  # of its pixels, upright
  notes: tuple[tuple[str, str], ...]  # kind, text, of what is worth a look


class Mask(NamedTuple):
  """A mask, as far as its way through tokens needs it."""

  crop: np.ndarray  # float32[64, 64], for the encoder
  inside: np.ndarray  # bool[h, w], the pixels of its box, as location tokens tell it
  box: tuple[float, ...]  # this box, in pixels of `inside`
  size: int  # pixels of the whole mask

  def iou(self, decoded: np.ndarray) -> float:
    """With what the decoder made of it, float[64, 64], put back into the box."""
    back = masks.paste(decoded, self.box, *self.inside.shape)
    both = int((self.inside & back).sum())
    return both / (self.size + int(back.sum()) - both)


@dataclasses.dataclass
class Seen:
  """What reading a record gave."""

  record: dict | None = None  # None: its line is broken
  problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # kind, text
  pictures: list[Picture] | None = None  # None: one cannot be decoded
  shown: Picture | None = None  # the one that the objects refer to
  masks: list[Mask] = dataclasses.field(default_factory=list)


class Reader:
  """Reads records of a source; may be called by several threads.

  A file that many records name is decoded once.
  """

  def __init__(self, source, rules: tasks.Rules, name: str, with_masks: bool, alpha: str = "drop"):
    """Opens nothing yet.

    Args:
      source: to read from.
      rules: how its records become examples.
      name: config path of the source.
      with_masks: whether to fill `Seen.masks`; they are decoded and checked in any case.
      alpha: as `image.decode`.
    """
    self._source, self._rules, self._name = source, rules, name
    self._with_masks, self._alpha = with_masks, alpha
    self.files: dict[str, Picture | tuple[str, str]] = {}  # path -> picture, or what is wrong

  def __call__(self, i: int) -> Seen:
    """Reads record i; whatever is wrong with it is in `Seen.problems`."""
    place = self._source.place(i)
    try:
      record = self._source[i]
    except errors.UserError as e:
      return Seen(problems=[(getattr(e, "kind", "json"), str(e).removeprefix(f"{place}: "))])
    seen = Seen(record)
    is_fixed = self._source.holds_pictures and self._rules.lacks_objects(record)
    seen.problems += problems.of_record(record, self._rules, self._name, not is_fixed)
    seen.problems += problems.of_texts(record, self._rules)
    seen.problems += problems.of_mended(self._source, i)
    if not any(kind in ("no image", "type image") for kind, _ in seen.problems):
      self._read_pictures(seen)
    return seen

  def _read_pictures(self, seen: Seen) -> None:
    found = [self._picture(given) for given in examples.image_list(seen.record)]
    seen.problems += [p for p in found if not isinstance(p, Picture)]
    seen.problems += [note for p in found if isinstance(p, Picture) for note in p.notes]
    if all(isinstance(p, Picture) for p in found):
      seen.pictures = found
    objects = objects_of(seen.record)
    if objects:
      try:
        target = found[examples.object_image(seen.record)]
      except errors.UserError as e:
        seen.problems.append(("object image", f"{e}; name one of the record's pictures"))
        return
      if isinstance(target, Picture):
        seen.shown = target
        seen.problems += problems.of_objects(objects, target.height, target.width)
        self._read_masks(seen, objects, target)

  def _picture(self, given: str | bytes) -> Picture | tuple[str, str]:
    """The picture, or (kind, text) of what is wrong with it."""
    if isinstance(given, bytes):
      return _decoded(given, "its picture", self._alpha)
    path = files.join(self._source.folder, given)
    if path not in self.files:
      self.files[path] = _read(path, self._alpha)
    return self.files[path]

  def _read_masks(self, seen: Seen, objects: list[dict], picture: Picture) -> None:
    size = [picture.height, picture.width]
    for k, item in enumerate(objects):
      given, box = item.get("mask"), item.get("box")
      if not isinstance(given, str | bytes | dict) or _stated(given) not in (None, size):
        continue  # `problems` has told
      if isinstance(given, str) and (missing := problems.no_file("mask", self._path(given))):
        seen.problems.append(missing)
        continue
      try:
        mask = examples.read_mask(given, self._source.folder)
      except errors.UserError as e:
        text = str(e).removeprefix("mask: ")
        seen.problems.append(("mask", f"objects[{k}].mask: {text}; make it anew"))
        continue
      wrong = _mask_problem(mask, box, size)
      if wrong:
        seen.problems.append((wrong[0], f"objects[{k}].mask {wrong[1]}"))
      elif self._with_masks and problems.is_box(box):
        seen.masks.append(_mask(mask, box))

  def _path(self, path: str) -> str:
    return files.join(self._source.folder, path)


def objects_of(record: dict) -> list[dict]:
  """The record's objects, as far as they are some."""
  objects = record.get("objects")
  return [o for o in objects if isinstance(o, dict)] if isinstance(objects, list) else []


def _read(path: str, alpha: str) -> Picture | tuple[str, str]:
  missing = problems.no_file("image", path)
  if missing:
    return missing
  try:
    data = files.read_bytes(path)
  except errors.UserError as e:
    return "image file", str(e)
  return _decoded(data, path, alpha)


def _decoded(data: bytes, name: str, alpha: str) -> Picture | tuple[str, str]:
  try:
    pixels = image.decode(data, name, alpha)
    notes = [] if image.is_visible(data) else [_UNSEEN]
  except image.BadPicture as e:
    return e.kind, str(e)
  height, width = pixels.shape[:2]
  digest = hashlib.blake2b(b"%d x %d" % (height, width), digest_size=16)
  digest.update(np.ascontiguousarray(pixels))
  notes += _of_levels(pixels)
  return Picture(height, width, digest.digest(), tuple((k, f"{name}: {t}") for k, t in notes))


def _of_levels(pixels: np.ndarray) -> list[tuple[str, str]]:
  """What is to be said about a picture, uint8[H, W, 3], whose pixels hardly differ."""
  low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
  if (low == high).all():
    return [("one colour", f"all its pixels are {tuple(low.tolist())}; look at it")]
  if (high - low).max() < _LEVELS:
    text = (
      f"its pixels use the levels {low.min()} to {high.max()} of 0 to 255; look at it. Of 10 to"
    )
    return [("few levels", f"{text} 14 bits in a 16-bit file nearly nothing is left: scale them")]
  return []


def _stated(mask) -> list | None:
  """The size that run lengths state."""
  size = mask.get("size") if isinstance(mask, dict) else None
  return list(size) if isinstance(size, list | tuple) else None


def _mask_problem(mask: np.ndarray, box, size: list[int]) -> tuple[str, str] | None:
  if list(mask.shape) != size:
    (height, width), (high, wide) = size, mask.shape
    return "mask size", (
      f"has {wide} x {high} pixels, the picture {width} x {height}; store masks at the size of their"
      " picture"
    )
  if not mask.any():
    return "empty mask", "holds no pixel; draw it, or remove the object"
  if problems.is_box(box) and not mask[_pixels(box, mask)].any():
    return "mask outside its box", f"holds no pixel inside its box {box}; correct one of them"
  return None


def _pixels(box, mask: np.ndarray) -> tuple[slice, slice]:
  """Rows and columns of every pixel that the box touches, at least one."""
  (x0, y0, x1, y1), (height, width) = box, mask.shape
  x0, y0 = min(max(int(x0), 0), width - 1), min(max(int(y0), 0), height - 1)
  return slice(y0, max(int(np.ceil(y1)), y0 + 1)), slice(x0, max(int(np.ceil(x1)), x0 + 1))


def _mask(mask: np.ndarray, box) -> Mask:
  (height, width), (x0, y0, x1, y1) = mask.shape, box
  x0, x1 = boxes.from_bins(boxes.to_bins((x0, x1), width), width)
  y0, y1 = boxes.from_bins(boxes.to_bins((y0, y1), height), height)
  rows, columns = _pixels((x0, y0, x1, y1), mask)
  left, top = columns.start, rows.start
  moved = x0 - left, y0 - top, x1 - left, y1 - top
  return Mask(masks.crop_for_codec(mask, box), mask[rows, columns].copy(), moved, int(mask.sum()))
