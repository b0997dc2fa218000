"""Pictures that are stored turned, in every form in which a file can say so."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

TAG = 0x0112
_XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {}</x:xmpmeta>'
_ATTRIBUTE = _XMP.format('tiff:Orientation="{}"/>')
_ELEMENT = _XMP.format("><tiff:Orientation>{}</tiff:Orientation></rdf:Description>")


def exif(orientation: int) -> bytes:
  """The block as files hold it, from "Exif" on."""
  made = Image.Exif()
  made[TAG] = orientation
  return made.tobytes()


def save(pixels: np.ndarray, format: str, **options) -> bytes:
  """The picture as a file."""
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, format=format, **options)
  return out.getvalue()


def with_chunk(png: bytes, kind: bytes, data: bytes, late: bool) -> bytes:
  """A PNG with another chunk before or behind its pixels."""
  chunk = struct.pack(">I4s", len(data), kind) + data
  chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
  at = png.index(b"IEND") - 4 if late else png.index(b"IDAT") - 4
  return png[:at] + chunk + png[at:]


def _raw_profile(orientation: int) -> bytes:
  """ImageMagick's: a name, the length, the bytes in hexadecimal."""
  data = exif(orientation)
  return f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()


def _png_texts(orientation: int) -> dict[str, tuple[bytes, bytes]]:
  """Form -> (kind of chunk, its data)."""
  raw, xmp = _raw_profile(orientation), _ATTRIBUTE.format(orientation).encode()
  element = _ELEMENT.format(orientation).encode()
  packet = b"XML:com.adobe.xmp\0"
  return {
    "eXIf": (b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")),
    "raw profile": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
    "raw profile, plain": (b"tEXt", b"Raw profile type exif\0" + raw),
    "XMP attribute": (b"iTXt", packet + b"\0\0\0\0" + xmp),
    "XMP element": (b"iTXt", packet + b"\0\0\0\0" + element),
    "XMP, compressed": (b"iTXt", packet + b"\1\0\0\0" + zlib.compress(xmp)),
    "XMP in a tEXt": (b"tEXt", packet + xmp),
  }


def files(pixels: np.ndarray, orientation: int) -> dict[str, bytes]:
  """Form -> a file whose stored pixels are `pixels`, to be turned by `orientation`."""
  attribute = _ATTRIBUTE.format(orientation).encode()
  block, png = exif(orientation), save(pixels, "PNG")
  made = {
    "JPEG, EXIF": save(pixels, "JPEG", exif=block, quality=95),
    "JPEG, XMP": save(pixels, "JPEG", xmp=attribute, quality=95),
    "MPO": save(pixels, "MPO", exif=block, save_all=True, append_images=[Image.new("L", (2, 2))]),
    "WebP, EXIF": save(pixels, "WEBP", exif=block, lossless=True),
    "WebP, XMP": save(pixels, "WEBP", xmp=attribute, lossless=True),
    "TIFF, tag": save(pixels, "TIFF", tiffinfo={TAG: orientation}),
    "TIFF, LZW": save(pixels, "TIFF", tiffinfo={TAG: orientation}, compression="tiff_lzw"),
    "TIFF, XMP": save(pixels, "TIFF", tiffinfo={700: attribute}),
    "AVIF, irot": save(pixels, "AVIF", exif=block, quality=95),  # Pillow writes irot and imir
  }
  for form, (kind, data) in _png_texts(orientation).items():
    made[f"PNG, {form}"] = with_chunk(png, kind, data, late=False)
    made[f"PNG, {form}, late"] = with_chunk(png, kind, data, late=True)
  return made
