"""Pictures of any kind, and the three ways to resize them."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import bilinear, image
from tests import golden, toy
from tests.processing import oriented

UPRIGHT = {  # orientation -> what to do to the stored pixels, by EXIF 2.3, tag 0x0112
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.transpose(1, 0, 2),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
  8: np.rot90,
}


def encoded(picture, **options) -> bytes:
  out = io.BytesIO()
  picture.save(out, **options)
  return out.getvalue()


def golden_cases():
  return sorted(k for k in golden.io("ops") if k.startswith("resize/") and k.endswith("_uint8"))


@pytest.mark.parametrize("name", golden_cases())
def test_bilinear_equals_the_reference_to_the_last_bit(name):
  data = golden.io("ops")
  size, antialias, _ = name.removeprefix("resize/").split("_")
  method = "bilinear_antialias" if antialias == "aa1" else "bilinear"
  got = image.resize(data["resize/image"], int(size), method)
  np.testing.assert_array_equal(got, data[name])


@pytest.mark.parametrize("name", [n.replace("_uint8", "_float") for n in golden_cases()])
def test_bilinear_equals_the_reference_before_truncation(name):
  data = golden.io("ops")
  size, antialias, _ = name.removeprefix("resize/").split("_")
  resize = bilinear.antialiased if antialias == "aa1" else bilinear.plain
  got = resize(data["resize/image"], int(size), int(size))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, data[name])


def test_a_picture_of_many_blocks_equals_its_rows_one_by_one():
  # The result is made in blocks of rows; a column of the picture is one block, whatever its length.
  rng = np.random.default_rng(0)
  tall = rng.integers(0, 256, (700, 3, 3), dtype=np.uint8)
  for resize in (bilinear.antialiased, bilinear.plain):
    whole = resize(tall, 333, 3)
    for k in range(3):  # as wide as before: nothing is mixed across
      np.testing.assert_array_equal(resize(tall[:, k : k + 1], 333, 1), whole[:, k : k + 1])
    np.testing.assert_array_equal(resize(tall.transpose(1, 0, 2), 3, 333), whole.transpose(1, 0, 2))


def test_bicubic_equals_pillow():
  data = golden.io("ops")
  for name in (k for k in data if k.startswith("resize/pil_bicubic_")):
    got = image.resize(data["resize/image"], int(name.rsplit("_", 1)[1]), "bicubic")
    np.testing.assert_array_equal(got, data[name])


def test_flat_areas_stay_flat_in_the_middle_of_rounding_errors():
  # TensorFlow's float32 weights of 640 -> 224 do not sum to 1 everywhere; neither do ours.
  flat = np.full((480, 640, 3), 200, np.uint8)
  assert set(np.unique(image.resize(flat, 224, "bilinear_antialias"))) <= {199, 200}
  assert set(np.unique(image.resize(flat, 224, "bilinear"))) == {200}


@pytest.mark.parametrize("method", image.METHODS)
def test_every_method_gives_a_uint8_square_and_keeps_one_of_that_size(method):
  for picture in (*toy.pictures(), np.full((1, 1, 3), 9, np.uint8)):
    got = image.resize(picture, 21, method)
    assert got.shape == (21, 21, 3) and got.dtype == np.uint8 and got.flags.c_contiguous
  np.testing.assert_array_equal(image.resize(toy.pictures()[1], 28, method), toy.pictures()[1])


@pytest.mark.parametrize("method", ["bilinear", "bilinear_antialias"])
def test_white_is_not_overshot(method):
  white = np.full((97, 131, 3), 255, np.uint8)
  assert image.resize(white, 224, method).min() >= 254  # a wrapped 256 would be 0


def test_a_misspelt_method_names_the_right_one():
  with pytest.raises(errors.UserError, match='did you mean "bicubic"'):
    image.resize(toy.pictures()[0], 28, "bicubik")


def test_a_path_its_bytes_a_pil_image_and_an_array_are_the_same_picture(tmp_path):
  pixels = toy.pictures()[0]
  path = tmp_path / "a.png"
  Image.fromarray(pixels).save(path)
  for source in (path, str(path), path.read_bytes(), Image.open(path), pixels):
    np.testing.assert_array_equal(image.decode(source), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_mode_becomes_three_channels(mode):
  values = np.zeros((4, 6), np.uint16) + 0x8012
  picture = (
    Image.fromarray(values) if mode == "I;16" else Image.new("RGB", (6, 4), "white").convert(mode)
  )
  got = image.decode(picture)
  assert got.shape == (4, 6, 3) and got.dtype == np.uint8
  assert (got == (0x80 if mode == "I;16" else 255)).all()


def _transparent(mode: str) -> Image.Image:
  """A dark pixel, half of it to be seen, beside one that is not to be seen at all."""
  if mode == "P":
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 10, 20, 30])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = bytes([128, 0])
    return picture
  rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 128))
  rgba.putpixel((1, 0), (10, 20, 30, 0))
  return rgba.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_dropped_or_laid_on_white_by_name(mode):
  data = encoded(_transparent(mode), format="PNG")
  dark = [10, 20, 30] if mode != "LA" else [18] * 3
  assert (image.decode(data) == dark).all() and (image.decode(data, alpha="drop") == dark).all()
  white = image.decode(data, alpha="white")
  blended = np.array(dark) * (128 / 255) + 127
  assert np.abs(white[0, 0] - blended).max() <= 1 and (white[0, 1] == 255).all()


def test_alpha_of_an_array_is_that_of_a_file():
  rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
  for alpha in image.ALPHAS:
    want = image.decode(encoded(Image.fromarray(rgba), format="PNG"), alpha=alpha)
    np.testing.assert_array_equal(image.decode(rgba, alpha=alpha), want)


def test_an_opaque_picture_is_the_same_either_way():
  for data in (oriented.save(_quarters(), "PNG"), oriented.save(_quarters()[..., 0], "PNG")):
    np.testing.assert_array_equal(image.decode(data), image.decode(data, alpha="white"))


def test_a_grey_array_is_repeated():
  grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
  for source in (grey, grey[..., None]):
    np.testing.assert_array_equal(image.decode(source), np.repeat(grey[..., None], 3, 2))


def _quarters() -> np.ndarray:
  """42 x 30 pixels, every quarter in another colour, so that no turn looks like another."""
  quarters = np.zeros((30, 42, 3), np.uint8)
  quarters[:15, :21, 0] = quarters[15:, :21, 1] = quarters[:15, 21:, 2] = 255
  return quarters


@pytest.mark.parametrize("form", oriented.files(_quarters(), 6))
def test_header_and_decoder_agree_on_every_way_to_store_a_picture_turned(form):
  for orientation, turn in UPRIGHT.items():
    data = oriented.files(_quarters(), orientation)[form]
    header, got, want = image.read_header(data), image.decode(data), turn(_quarters())
    assert header == (*want.shape[:2], orientation)
    assert got.shape == want.shape and np.abs(got.astype(int) - want).mean() < 12  # some are lossy


@pytest.mark.parametrize(
  "data",
  [
    oriented.save(_quarters(), "JPEG", exif=oriented.exif(99)),
    oriented.save(_quarters(), "JPEG", exif=b"Exif\0\0nonsense"),
    oriented.save(_quarters(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    oriented.save(_quarters(), "JPEG", xmp=b'tiff:Orientation="0"'),
    oriented.with_chunk(oriented.save(_quarters(), "PNG"), b"eXIf", b"", late=True),
    oriented.with_chunk(oriented.save(_quarters(), "PNG"), b"tEXt", b"exif\0text", late=False),
    oriented.with_chunk(oriented.save(_quarters(), "PNG"), b"tEXt", b"xmp\0text", late=True),
    oriented.with_chunk(
      oriented.save(_quarters(), "PNG"),
      b"tEXt",
      b"Raw profile type exif\0\nexif\n 3\nzz",
      late=True,
    ),
  ],
)
def test_metadata_that_are_none_leave_a_picture_as_it_is_stored(data):
  assert image.read_header(data) == (30, 42, 1)
  assert image.decode(data).shape == (30, 42, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_a_header_is_read_without_decoding(format, monkeypatch, tmp_path):
  data = oriented.save(_quarters(), format)
  if format == "PNG":
    data = oriented.with_chunk(data, b"tEXt", b"date:create\x002020-02-20", late=True)
  (tmp_path / "a").write_bytes(data)
  monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
  for source in (data, tmp_path / "a", str(tmp_path / "a")):
    assert image.read_header(source) == (30, 42, 1)


def test_a_format_that_tells_its_size_late_is_decoded_for_it():
  small = Image.new("RGB", (16, 16), "red")
  data = bytearray(encoded(small, format="ICO", sizes=[(16, 16)]))
  data[6:8] = 32, 32  # what its table of contents says
  height, width, _ = image.read_header(bytes(data))
  assert (height, width) == image.decode(bytes(data)).shape[:2] == (16, 16)


def test_the_first_frame_of_an_animation_counts():
  frames = [Image.new("RGB", (5, 4), c) for c in ("red", "blue")]
  data = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:])
  assert (image.decode(data) == [255, 0, 0]).all()


def _huge_bmp() -> bytes:
  data = bytearray(encoded(Image.new("L", (2, 2)), format="BMP"))
  data[18:26] = (100_000).to_bytes(4, "little") * 2
  return bytes(data)


def _wordy_png(text: bytes = bytes(2**21)) -> bytes:
  chunk = b"Comment\0\0" + zlib.compress(text)
  return oriented.with_chunk(oriented.save(_quarters(), "PNG"), b"zTXt", chunk, late=False)


@pytest.mark.parametrize(
  "source, kind, words",
  [
    (b"", "not an image", "not an image .the file is empty"),
    (b"nothing of a picture", "not an image", "not an image .20 bytes, starting with"),
    (b"<html>not found</html>", "not an image", "a web page, .* fetch it anew"),
    (b"version https://git-lfs.github.com/spec/v1", "not an image", "a Git LFS pointer; fetch"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "not an image", "HEIF, .*; save it as JPEG"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40) + b"IEND\xaeB`\x82", "broken header", "header .* is broken"),
    (_wordy_png(), "large texts", "the texts in the PNG are too large .*; save it without them"),
    (_huge_bmp(), "too large", "10,000,000,000 pixels, at most .*; make it smaller"),
  ],
)
def test_what_cannot_be_opened_is_one_line_of_its_own_kind(source, kind, words, tmp_path):
  (tmp_path / "a.png").write_bytes(source)
  for given in (source, tmp_path / "a.png"):
    for read in (image.decode, image.read_header):
      with pytest.raises(image.BadPicture, match=words) as e:
        read(given)
      assert e.value.kind == kind and "\n" not in str(e.value)


CUT = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000"]


@pytest.mark.parametrize("format", CUT)
def test_a_file_that_ends_too_early_is_told_wherever_it_is_cut(format):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  data = oriented.save(noise, format)
  for end in (*range(1, 80), len(data) // 2, len(data) - 40):
    with pytest.raises(image.BadPicture) as e:
      image.decode(data[:end])
    assert e.value.kind != "damaged image" or format in ("TIFF", "JPEG2000")
    with contextlib.suppress(image.BadPicture):
      image.read_header(data[:end])
  assert e.value.kind == "cut off" or format == "TIFF"


@pytest.mark.parametrize(
  "error", [MemoryError(), KeyError("x"), struct.error("y"), zlib.error("z"), AttributeError("w")]
)
def test_whatever_a_decoder_raises_becomes_one_line(error, monkeypatch):
  def load(self):
    raise error

  data = oriented.save(_quarters(), "BMP")
  monkeypatch.setattr(Image.Image, "load", load)
  with pytest.raises(image.BadPicture, match="^a.bmp: ") as e:
    image.decode(data, "a.bmp")
  assert e.value.kind == ("too large" if isinstance(error, MemoryError) else "damaged image")


def test_a_picture_that_is_only_large_is_read_without_a_word(monkeypatch, recwarn):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above it, raises above twice
  assert image.decode(oriented.save(_quarters(), "PNG")).shape == (30, 42, 3)
  assert not recwarn.list


@pytest.mark.parametrize(
  "source, words",
  [
    (np.zeros((4, 4, 3), np.float32), r"found float32\[4, 4, 3\]"),
    (np.zeros((3, 4, 5), np.uint8), r"found uint8\[3, 4, 5\]"),
    (np.zeros((0, 4, 3), np.uint8), r"found uint8\[0, 4, 3\]"),
    (Image.new("F", (4, 4)), "mode F"),
    (7, "not int"),
    ("missing/x.jpg", "missing/x.jpg: cannot read the image .No such file"),
  ],
)
def test_what_is_no_picture_is_one_clear_line(source, words):
  with pytest.raises(errors.UserError, match=words) as e:
    image.decode(source)
  assert "\n" not in str(e.value)


def test_sixteen_bits_keep_the_upper_eight_in_every_format():
  levels = np.arange(0, 2**16, 2**16 // 6, np.uint16)[:6].reshape(2, 3)
  pgm = b"P5 3 2 65535\n" + levels.astype(">u2").tobytes()
  for data in (encoded(Image.fromarray(levels), format=f) for f in ("PNG", "TIFF")):
    np.testing.assert_array_equal(image.decode(data)[..., 0], levels >> 8)
  np.testing.assert_array_equal(image.decode(pgm)[..., 0], levels >> 8)


def test_an_error_carries_the_name_of_the_picture():
  with pytest.raises(errors.UserError, match="^data.jsonl:17: a.jpg: not an image"):
    image.decode(b"nothing", "data.jsonl:17: a.jpg")
