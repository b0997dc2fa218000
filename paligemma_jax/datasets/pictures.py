"""Pictures, masks and frames of official data: looked at when a record is collected, read when it is written."""

import dataclasses
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import image, masks

_MARKS = (b"Exif", b"eXIf", b"EXIF", b"tiff:Orientation")  # what may turn a picture
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # what a whole file of the kind ends with


class BadPicture(errors.UserError):
  """A picture is missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture file, stored as it is unless it must be turned.

  EXIF orientation is not applied, as the reference does not; a file that has one is stored without
  it, so that readers that do apply it show the same.
  """

  path: str
  place: str  # what names it
  quarter_turns: int = 0  # counter-clockwise

  def probe(self) -> int:
    """Size of the file in bytes; raises BadPicture if it is missing, cut off or no picture."""
    try:
      with image.opened(self.path) as found:
        kind = found.format
      with open(self.path, "rb") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - 16))
        end = f.read().rstrip(b"\0")
    except (errors.UserError, OSError):
      if not os.path.exists(self.path):
        raise BadPicture(f"{self.place}: no picture {self.path}; put it there") from None
      raise BadPicture(f"{self.place}: {self.path} is no picture; download it again") from None
    if not end.endswith(_ENDS.get(kind, b"?")):
      self._decoded()  # cut off, or something follows the picture, which does no harm
    return size

  def size(self) -> tuple[int, int]:
    """Width and height in pixels; raises BadPicture as `probe`."""
    self.probe()
    with image.opened(self.path) as found:
      return found.size

  def read(self) -> bytes:
    """The bytes to store."""
    with open(self.path, "rb") as f:
      data = f.read()
    if self.quarter_turns:
      return encode(np.rot90(self._decoded(), self.quarter_turns), "JPEG", quality=100)
    return without_orientation(data)

  def _decoded(self) -> np.ndarray:
    """uint8[H, W, 3]."""
    try:
      with image.opened(self.path) as found:
        return np.asarray(found.convert("RGB"))
    except errors.UserError as e:
      raise BadPicture(f"{self.place}: {e}") from None


@dataclasses.dataclass(frozen=True)
class Frames:
  """The frames of a video, extracted into a folder."""

  path: str
  place: str
  first: int = 0
  last: int | None = None

  def probe(self) -> int:
    """Size of the frames in bytes; raises BadPicture if one cannot be read or there are none."""
    pictures = self._pictures()
    if not pictures:
      raise BadPicture(f"{self.place}: no frames in {self.path}; extract them there")
    return sum(picture.probe() for picture in pictures)

  def read(self) -> list[bytes]:
    """The bytes to store, frame by frame."""
    return [picture.read() for picture in self._pictures()]

  def _pictures(self):
    names = sorted(os.listdir(self.path)) if os.path.isdir(self.path) else []
    return [Picture(f"{self.path}/{n}", self.place) for n in names[self.first : self.last]]


@dataclasses.dataclass(frozen=True)
class Mask:
  """A mask, made when it is written: PNG of 0 and 255."""

  shape: tuple[int, int]  # height, width
  segmentation: Any  # COCO's: polygons, or run lengths

  def probe(self) -> int:
    """A guess at its size in bytes."""
    return 1000

  def read(self) -> bytes:
    """The bytes to store."""
    if isinstance(self.segmentation, dict):
      found = masks.decode_rle(self.segmentation)
    else:
      found = masks.fill(self.segmentation, *self.shape)
    return encode(found, "PNG")


def unit_box(x0, y0, x1, y1, width, height) -> np.ndarray:
  """A box in a picture of so many pixels as float32[4]: ymin, xmin, ymax, xmax, clipped to 0..1."""
  box = np.array((y0 / height, x0 / width, y1 / height, x1 / width), np.float32)
  return np.clip(box, 0, 1)


def encode(pixels: np.ndarray, kind: str, **options) -> bytes:
  """Pixels, uint8[H, W, 3], uint8[H, W] or bool[H, W], as the bytes of a file."""
  return encode_image(Image.fromarray(pixels), kind, **options)


def encode_image(picture: Image.Image, kind: str, **options) -> bytes:
  """A picture as the bytes of a file."""
  out = io.BytesIO()
  picture.save(out, kind, **options)
  return out.getvalue()


def without_orientation(data: bytes) -> bytes:
  """A picture without the EXIF data that would turn it; its pixels stay as they are stored.

  Where the orientation stands elsewhere than in the EXIF segment of a JPEG or the chunk of a PNG,
  the picture is stored as a PNG.
  """
  if not any(mark in data for mark in _MARKS):
    return data
  try:
    if image.read_header(data).orientation == 1:
      return data
    plain = _without_segment(data)
    if image.read_header(plain).orientation == 1:
      return plain
  except errors.UserError:
    return data
  with image.opened(data) as found:
    return encode(np.asarray(found.convert("RGB")), "PNG")


def _without_segment(data: bytes) -> bytes:
  """The file without its EXIF segments (JPEG) or chunk (PNG)."""
  if data.startswith(b"\xff\xd8"):
    at, kept = 2, [data[:2]]
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # until the scan begins
      end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
      if not (data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0"):
        kept.append(data[at:end])
      at = end
    return b"".join([*kept, data[at:]])
  if data.startswith(b"\x89PNG"):
    at = data.find(b"eXIf")
    return data[: at - 4] + data[at + 8 + int.from_bytes(data[at - 4 : at]) :]
  return data
