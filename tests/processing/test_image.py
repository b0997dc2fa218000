"""Pictures of any kind, and the three ways to resize them."""

import io

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import bilinear, image
from tests import golden, toy


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


def test_alpha_is_dropped_not_blended():
  rgba = np.zeros((2, 2, 4), np.uint8) + np.array([10, 20, 30, 0], np.uint8)
  for source in (rgba, encoded(Image.fromarray(rgba), format="PNG")):
    assert (image.decode(source) == [10, 20, 30]).all()


def test_a_grey_array_is_repeated():
  grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
  for source in (grey, grey[..., None]):
    np.testing.assert_array_equal(image.decode(source), np.repeat(grey[..., None], 3, 2))


def test_exif_orientation_turns_the_picture_upright():
  pixels = toy.pictures()[0]
  exif = Image.Exif()
  exif[0x0112] = 6  # "rotate 90 clockwise to view"
  got = image.decode(encoded(Image.fromarray(pixels), format="PNG", exif=exif))
  np.testing.assert_array_equal(got, np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 99])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_the_header_tells_the_size_that_decoding_gives(tmp_path, format, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(Image.fromarray(toy.pictures()[0]), format=format, exif=exif)
  (tmp_path / "a").write_bytes(data)
  for source in (data, tmp_path / "a"):
    header = image.read_header(source)
    assert header.orientation == (orientation if orientation < 9 else 1)
    assert (header.height, header.width) == image.decode(data).shape[:2]
  with pytest.raises(errors.UserError, match="x.png is no image that Pillow can read"):
    image.read_header(b"<html>", "x.png")


def test_the_first_frame_of_an_animation_counts():
  frames = [Image.new("RGB", (5, 4), c) for c in ("red", "blue")]
  data = encoded(frames[0], format="GIF", save_all=True, append_images=frames[1:])
  assert (image.decode(data) == [255, 0, 0]).all()


@pytest.mark.parametrize(
  "source, words",
  [
    (b"", "not an image .the file is empty"),
    (b"<html>not found</html>", "not an image .22 bytes, starting with"),
    (encoded(Image.new("RGB", (64, 64), "red"), format="PNG")[:100], "damaged image"),
    (encoded(Image.effect_noise((64, 64), 50), format="JPEG")[:900], "damaged image"),
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


def test_an_error_carries_the_name_of_the_picture():
  with pytest.raises(errors.UserError, match="^data.jsonl:17: a.jpg: not an image"):
    image.decode(b"nothing", "data.jsonl:17: a.jpg")
