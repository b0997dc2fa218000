"""Pictures of any kind as uint8[H, W, 3], and resized to the square that the model sees.

The reference stretches every picture to a square (PaliGemma, arXiv:2407.07726, section 3.1;
big_vision resizes bilinear, Hugging Face bicubic: their inputs are not interchangeable).
"""

import base64
import binascii
import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import bilinear, picture_files

ALPHAS = ("drop", "white")  # what becomes of transparency
BadPicture = picture_files.BadPicture
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_TURNED = (5, 6, 7, 8)  # values of it that exchange width and height
_UPRIGHT = {  # value of it -> what makes the stored pixels upright
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Formats that tell the size of the decoded picture when they are opened; others are decoded.
_TELL_SIZE = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


class Header(NamedTuple):
  """What a picture says before its pixels are decoded."""

  height: int  # pixels of the upright picture, as `decode` gives it
  width: int
  orientation: int  # in EXIF's numbers, 1..8: how it is stored; 1 is upright


def decode(source, name: str = "", alpha: str = "drop") -> np.ndarray:
  """Reads a picture: upright, first frame, without alpha, grey as three channels.

  Args:
    source: the bytes of a file, a path, a `data:` URL, a PIL image, or uint8[H, W], [H, W, 1],
      [H, W, 3] or [H, W, 4] in RGB(A) order.
    name: what an error calls it; by default the path.
    alpha: a name in `ALPHAS`. "drop" takes the colours as they are stored, whatever their alpha,
      as the reference and transformers 4 do; "white" lays the picture on white, as transformers 5
      does.

  Returns:
    uint8[H, W, 3], RGB.

  Raises:
    errors.UserError: not a picture (`BadPicture`, with a kind), of a brightness range that is not
      defined, or a file that cannot be read.
  """
  if isinstance(source, np.ndarray):
    return _from_array(source, name or "image", alpha)
  if isinstance(source, Image.Image):
    with picture_files.told(name or "image"):
      return _from_pil(source, name or "image", alpha)
  with opened(source, name) as picture:
    return _from_pil(picture, name or _name(source), alpha)


@contextlib.contextmanager
def opened(source, name: str = "") -> Iterator[Image.Image]:
  """The one place where a file becomes a PIL image: opened, not yet decoded.

  Whatever Pillow raises, here or on what the caller does with the picture inside the block, comes
  out as a `BadPicture` that says what is wrong with the file.

  Args:
    source: the bytes of a file, a path, or a `data:` URL.
    name: what an error calls it; by default the path.

  Raises:
    errors.UserError: see `decode`.
  """
  name = name or _name(source)
  with _file(source, name) as file, picture_files.told(name, file), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # odd metadata is no concern of ours
    Image.preinit()  # the common formats first, whatever was opened before
    with Image.open(file) as picture:
      yield picture


def is_data_url(source: Any) -> bool:
  """Whether it is text that holds a picture: "data:image/jpeg;base64,/9j/4AAQ…"."""
  return isinstance(source, str) and source.startswith("data:")


def from_data_url(url: str) -> bytes:
  """The bytes in a base64 data URL (RFC 2397); b"" if they are none, which no picture is."""
  head, _, body = url.partition(",")
  try:
    return base64.b64decode(body, validate=True) if head.endswith(";base64") else b""
  except binascii.Error:
    return b""


def to_data_url(data: bytes) -> str:
  """The inverse of `from_data_url`. Browsers find out themselves which kind of picture it is."""
  return f"data:;base64,{base64.b64encode(data).decode()}"


def read_header(source: bytes | str | os.PathLike, name: str = "") -> Header:
  """Size and orientation of a picture, as `decode` finds them.

  Only what stands before and behind the pixels is read, unless the format tells its size, or a PNG
  its orientation, in the course of decoding.

  Args:
    source: the bytes of a file, a path, or a `data:` URL.
    name: what an error calls it; by default the path.

  Raises:
    errors.UserError: not a picture (`BadPicture`), or no such file.
  """
  with opened(source, name) as picture:
    late = picture.format == "PNG" and picture_files.tells_late(picture.fp)
    if late or picture.format not in _TELL_SIZE:
      picture.load()
    width, height = picture.size
    orientation = _orientation(picture)
    if orientation in _TURNED:
      if picture.format == "TIFF":  # turned by Pillow, when it is opened or when it is decoded
        picture.load()
        width, height = picture.size
      else:
        height, width = width, height
  return Header(height, width, orientation)


def is_visible(source: bytes | str | os.PathLike, name: str = "") -> bool:
  """Whether any pixel of a picture is not fully transparent.

  Args:
    source, name: as `read_header`.

  Raises:
    errors.UserError: see `decode`.
  """
  with opened(source, name) as picture:
    if not picture.has_transparency_data:
      return True
    return picture.convert("RGBA").getextrema()[3][1] > 0


def resize(image: np.ndarray, res: int, method: str) -> np.ndarray:
  """Stretches a picture to a square.

  Args:
    image: uint8[H, W, 3].
    res: side of the result, pixels.
    method: a name in `METHODS`. "bilinear_antialias" and "bilinear" are truncated to whole grey
      levels, as the reference does; "bicubic" is Pillow's, as transformers does.

  Returns:
    uint8[res, res, 3].

  Raises:
    errors.UserError: no such method.
  """
  if method not in METHODS:
    raise errors.UserError(f'resize "{method}" is unknown{errors.did_you_mean(method, METHODS)}')
  if image.shape[:2] == (res, res):
    return image  # each of the methods is the identity here
  return METHODS[method](image, res)


def pad_to_square(image: np.ndarray) -> np.ndarray:
  """uint8[S, S, 3], S the longer side: white below or to the right, so that pixels keep their places.

  PaliGemma 2 (arXiv:2412.03555), sections 4.2 to 4.4, pads tables, molecules and scores; on which
  sides is not published.
  """
  height, width, _ = image.shape
  side = max(height, width)
  return np.pad(image, ((0, side - height), (0, side - width), (0, 0)), constant_values=255)


def _bilinear_antialias(image: np.ndarray, res: int) -> np.ndarray:
  return bilinear.antialiased(image, res, res, np.uint8)


def _bilinear(image: np.ndarray, res: int) -> np.ndarray:
  return bilinear.plain(image, res, res, np.uint8)


def _bicubic(image: np.ndarray, res: int) -> np.ndarray:
  return np.array(Image.fromarray(image).resize((res, res), Image.Resampling.BICUBIC))


METHODS = {
  "bilinear_antialias": _bilinear_antialias,  # big_vision, resize(antialias=True): most transfers
  "bilinear": _bilinear,  # big_vision, resize(antialias=False): captions, RefCOCO, …
  "bicubic": _bicubic,  # transformers, SiglipImageProcessor
}


def _name(source) -> str:
  is_path = isinstance(source, (str, os.PathLike)) and not is_data_url(source)
  return str(source) if is_path else "image"


@contextlib.contextmanager
def _file(source, name: str) -> Iterator[io.IOBase]:
  """A file to read `source` from."""
  if is_data_url(source):
    source = from_data_url(source)
  if isinstance(source, (bytes, bytearray, memoryview)):
    yield io.BytesIO(source)
    return
  if not isinstance(source, (str, os.PathLike)):
    raise errors.UserError(
      f"{name}: a picture is bytes, a path, a PIL image or an array, not {type(source).__name__}"
    )
  try:
    file = open(source, "rb")
  except (OSError, ValueError) as e:
    reason = getattr(e, "strerror", None) or e
    raise errors.UserError(f"{name}: cannot read the image ({reason})") from None
  with file:
    yield file


def _orientation(picture: Image.Image) -> int:
  """1..8; metadata that are none leave the picture as it is stored."""
  try:
    found = Image.Image.getexif(picture).get(_ORIENTATION, 1)  # a PNG's own would decode it
    return int(found) if found in range(1, 9) else 1
  except Exception:  # its parsers raise whatever broken metadata make of them
    return 1


def _from_pil(picture: Image.Image, name: str, alpha: str) -> np.ndarray:
  picture.load()  # a PNG tells its orientation, and a TIFF is turned, when it is decoded
  if (turn := _UPRIGHT.get(_orientation(picture))) is not None:
    picture = picture.transpose(turn)
  if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
    return _from_array((np.asarray(picture) >> 8).astype(np.uint8), name, alpha)  # as TensorFlow
  if picture.mode in ("I", "F"):
    words = (
      f"32 bits a pixel (mode {picture.mode}) have no defined brightness; save it with 8 or 16"
    )
    raise BadPicture(f"{name}: {words}", "brightness")
  if alpha == "white" and picture.has_transparency_data:
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture)
  return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _from_array(pixels: np.ndarray, name: str, alpha: str) -> np.ndarray:
  shape = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
  if pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not pixels.size:
    raise errors.UserError(
      f"{name}: a picture is uint8[H, W, 3], found {pixels.dtype}{list(pixels.shape)}; "
      "scale floats to 0..255 and put the channels last"
    )
  if shape[2] == 4 and alpha == "white":
    return _from_pil(Image.fromarray(pixels), name, alpha)
  pixels = pixels.reshape(shape)[..., :3]
  return pixels if shape[2] >= 3 else np.repeat(pixels, 3, axis=2)
