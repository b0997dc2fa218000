"""Pictures of any kind as uint8[H, W, 3], and resized to the square that the model sees.

The reference stretches every picture to a square (PaliGemma, arXiv:2407.07726, section 3.1;
big_vision resizes bilinear, Hugging Face bicubic: their inputs are not interchangeable).
"""

import base64
import binascii
import io
import os
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from paligemma_jax import errors
from paligemma_jax.processing import bilinear

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_TURNED = (5, 6, 7, 8)  # values of it that exchange width and height


class Header(NamedTuple):
  """What the first bytes of a picture say."""

  height: int  # pixels of the upright picture, as `decode` gives it
  width: int
  orientation: int  # EXIF, 1..8: how it is stored; 1 is upright


def decode(source, name: str = "") -> np.ndarray:
  """Reads a picture: upright by its EXIF orientation, first frame, alpha dropped, grey as three channels.

  Args:
    source: the bytes of a file, a path, a `data:` URL, a PIL image, or uint8[H, W], [H, W, 1],
      [H, W, 3] or [H, W, 4] in RGB(A) order.
    name: what an error calls it; by default the path.

  Returns:
    uint8[H, W, 3], RGB.

  Raises:
    errors.UserError: not a picture, truncated, or of a brightness range that is not defined.
  """
  if isinstance(source, np.ndarray):
    return _from_array(source, name or "image")
  if isinstance(source, Image.Image):
    return _from_pil(source, name or "image")
  if is_data_url(source):
    source = from_data_url(source)
  if isinstance(source, (str, os.PathLike)):
    name = name or str(source)
    try:
      with open(source, "rb") as f:
        source = f.read()
    except (OSError, ValueError) as e:
      reason = getattr(e, "strerror", None) or e
      raise errors.UserError(f"{name}: cannot read the image ({reason})") from None
  if not isinstance(source, (bytes, bytearray, memoryview)):
    raise errors.UserError(
      f"{name or 'image'}: a picture is bytes, a path, a PIL image or an array, "
      f"not {type(source).__name__}"
    )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # odd metadata is no concern of ours
      with Image.open(io.BytesIO(source)) as image:
        return _from_pil(image, name or "image")
  except Image.UnidentifiedImageError:
    raise errors.UserError(f"{name or 'image'}: not an image ({_looks_like(source)})") from None


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
  """Size and orientation of a picture; nothing is decoded.

  Args:
    source: the bytes of a file, or a path.
    name: what an error calls it; by default the path.

  Raises:
    errors.UserError: not a picture, or no such file.
  """
  name = name or ("image" if isinstance(source, bytes) else str(source))
  try:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
      (width, height), kind = picture.size, picture.format
      # A PNG would be decoded to the end in search of EXIF.
      known = kind != "PNG" or "exif" in picture.info
      orientation = picture.getexif().get(_ORIENTATION, 1) if known else 1
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    raise errors.UserError(f"{name} is no image that Pillow can read; replace the file") from None
  if orientation in _TURNED and kind != "TIFF":  # Pillow opens a TIFF upright
    height, width = width, height
  return Header(height, width, orientation if orientation in range(1, 9) else 1)


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


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
  try:
    if image.getexif().get(_ORIENTATION, 1) != 1:  # exif_transpose copies even an upright picture
      image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # 16 bits a pixel: keep the upper eight, as TensorFlow does
      return _from_array((np.asarray(image) >> 8).astype(np.uint8), name)
    if image.mode in ("I", "F"):
      raise errors.UserError(
        f"{name}: 32 bits a pixel (mode {image.mode}) have no defined brightness; save it with 8 or 16"
      )
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
    raise errors.UserError(f"{name}: damaged image, cannot be decoded ({e})") from None


def _from_array(image: np.ndarray, name: str) -> np.ndarray:
  shape = image.shape if image.ndim == 3 else (*image.shape, 1)
  if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not image.size:
    raise errors.UserError(
      f"{name}: a picture is uint8[H, W, 3], found {image.dtype}{list(image.shape)}; "
      "scale floats to 0..255 and put the channels last"
    )
  image = image.reshape(shape)[..., :3]
  return image if shape[2] >= 3 else np.repeat(image, 3, axis=2)


def _looks_like(data: bytes) -> str:
  if not len(data):
    return "the file is empty"
  start = bytes(data[:12])
  return f"{len(data)} bytes, starting with {start!r}"
