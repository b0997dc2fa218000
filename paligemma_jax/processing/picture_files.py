"""Files that should be pictures: what is wrong with one, and what a PNG tells behind its pixels.

Pillow's readers raise whatever their parsers come upon. Here each of it becomes one line that says
what is wrong with the file and what to do.
"""

import contextlib
import io
import os
import re
import struct
from collections.abc import Iterator

from PIL import Image

from paligemma_jax import errors

# First bytes of a format that Pillow reads -> last bytes of a whole file.
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}
_BEGINNINGS = (*_ENDS, b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")  # of such formats
_BOXED = (b"ftypavif", b"ftypavis", b"jP  \r\n\x87\n")  # AVIF, JPEG 2000, behind a length
_OTHERS = {  # what a file that is none may be instead
  rb"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
  rb"\s*(<!doctype html|<html)": "a web page, as a failed download leaves it; fetch it anew",
  rb"\s*(<\?xml|<svg)": "XML or SVG; save the picture as PNG",
  rb"%PDF": "a PDF; save its page as PNG",
  rb"....ftyp(hei|hev|mif|msf)": "HEIF, which is not read here; save it as JPEG or PNG",
  rb"(\xff\x0a|....JXL )": "JPEG XL, which is not read here; save it as JPEG or PNG",
}
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"exif", b"xmp", b"XML:com.adobe.xmp", b"Raw profile type exif")  # keywords of texts
_LONGEST = 79  # letters of a keyword


class BadPicture(errors.UserError):
  """A file that is no picture, or one that cannot be decoded.

  Attributes:
    kind: "cut off", "broken header", "large texts", "too large", "not an image",
      "brightness" or "damaged image".
  """

  def __init__(self, text: str, kind: str = "damaged image"):
    super().__init__(text)
    self.kind = kind


@contextlib.contextmanager
def told(name: str, file: io.IOBase | None = None) -> Iterator[None]:
  """Makes a `BadPicture` of whatever Pillow raises inside the block; errors of ours pass.

  Args:
    name: what the error calls the picture.
    file: what is read; None: the picture is in memory.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as e:
    kind, words = _diagnosis(e, file)
    raise BadPicture(f"{name}: {words}", kind) from None


def tells_late(png: io.IOBase) -> bool:
  """Whether an orientation may stand behind the pixels of a PNG. The position in it is kept."""
  position, start, in_pixels = png.tell(), 8, False
  try:
    while True:
      png.seek(start)
      head = png.read(8 + _LONGEST + 1)
      if len(head) < 8 or head[4:8] == b"IEND":
        return False
      length, chunk = struct.unpack(">I4s", head[:8])
      keyword = head[8:].partition(b"\0")[0] if chunk in _TEXTS else b""
      if in_pixels and (chunk == b"eXIf" or keyword in _ORIENTED):
        return True
      in_pixels |= chunk == b"IDAT"
      start += 12 + length
  finally:
    png.seek(position)


def _diagnosis(error: Exception, file: io.IOBase | None) -> tuple[str, str]:
  """What kind of fault it is, and a sentence about it."""
  said = " ".join(str(error).split()) or type(error).__name__
  if isinstance(error, Image.DecompressionBombError):
    return "too large", f"too large to be read ({_pixels(said)}); make it smaller"
  if isinstance(error, MemoryError):
    return "too large", "there is not enough memory to decode the image; make it smaller"
  if re.search("MAX_TEXT_CHUNK|MAX_TEXT_MEMORY|text memory", said, re.IGNORECASE):
    return "large texts", "the texts in the PNG are too large to be read; save it without them"
  is_known = not isinstance(error, Image.UnidentifiedImageError)
  start, end, size = _ends(file)
  is_told = is_known and re.search(
    "truncated|EOF|not enough image data|Expected to read", said, re.IGNORECASE
  )
  if is_told or _is_cut(start, end, size) or (start[4:12] in _BOXED and _ends_in_a_box(file, size)):
    return "cut off", f"the image is cut off after {size} bytes, its end is missing; copy it anew"
  if is_known:
    return "damaged image", f"damaged image, cannot be decoded ({said}); replace the file"
  if start.startswith(_BEGINNINGS):
    words = "the header of the image is broken, or of a kind that is not read here"  # as 8 bands
    return "broken header", f"{words}; save it anew as PNG"
  return "not an image", f"not an image {_looks_like(start, size)}"


def _pixels(said: str) -> str:
  numbers = [f"{int(n):,} pixels" for n in re.findall(r"\d{6,}", said)]
  return ", at most ".join(numbers) or said


def _ends(file: io.IOBase | None) -> tuple[bytes, bytes, int]:
  """The first and the last bytes of a file, and its size."""
  if file is None or file.closed:
    return b"", b"", 0
  size = file.seek(0, os.SEEK_END)
  file.seek(0)
  start = file.read(64)
  file.seek(max(size - 64, 0))
  return start, file.read(), size


def _is_cut(start: bytes, end: bytes, size: int) -> bool:
  """Whether the end of a picture is missing, by what its beginning says."""
  for beginning, closing in _ENDS.items():
    if start.startswith(beginning):
      return not end.rstrip(b"\0\r\n ").endswith(closing)
  if start.startswith(b"RIFF"):
    return size < int.from_bytes(start[4:8], "little") + 8
  if start.startswith(b"BM"):
    return size < int.from_bytes(start[2:6], "little")
  return False


def _ends_in_a_box(file: io.IOBase, size: int) -> bool:
  """Whether a file of boxes, each with its length (ISO/IEC 14496-12, 4.2), is shorter than they."""
  start = 0
  while start + 16 <= size:
    file.seek(start)
    length, _, longer = struct.unpack(">I4sQ", file.read(16))
    length = longer if length == 1 else length
    if length < 8:  # 0: to the end of the file
      return False
    start += length
  return start != size


def _looks_like(start: bytes, size: int) -> str:
  if not size:
    return "(the file is empty); replace the file"
  for beginning, words in _OTHERS.items():
    if re.match(beginning, start, re.IGNORECASE | re.DOTALL):
      return f"but {words}"
  return f"({size} bytes, starting with {start[:12]!r}); replace the file"
