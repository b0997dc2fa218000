"""The geometry around the mask codec, and COCO's run lengths."""

import numpy as np
import pytest

from paligemma_jax import errors, structs
from paligemma_jax.processing import boxes, masks
from tests import golden


def parsed(loc, height, width, bins=1023):
  return boxes.parse_boxes("".join(f"<loc{v:04d}>" for v in loc), height, width, bins)


def test_pasting_equals_the_evaluator():
  data = golden.io("vqvae")
  height, width = data["paste_hw"]
  for loc, decoded, wanted in zip(data["loc"], data["decoded"], data["paste_mask"]):
    for box in parsed(loc, height, width):
      got = masks.paste(decoded, box, height, width)
      assert got.dtype == bool
      np.testing.assert_array_equal(got, wanted)


def test_soft_pasting_equals_the_demo():
  data = golden.io("vqvae")
  height, width = data["paste_hw"]
  for loc, decoded, wanted in zip(data["loc"], data["decoded"], data["paste1024_mask"]):
    for box in parsed(loc, height, width, 1024):
      got = masks.paste_soft(decoded, box, height, width)
      np.testing.assert_allclose(got, wanted, atol=1e-7)  # the last bit of n / 255


def test_cropping_equals_the_training_data_of_the_reference():
  data = golden.io("vqvae")
  height, width = data["m2s_mask"].shape
  y0, x0, y1, x1 = data["m2s_bbox"] * np.array([height, width, height, width], np.float32)
  got = masks.crop_for_codec(data["m2s_mask"], (x0, y0, x1, y1))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, data["m2s_crop64"])


def test_the_training_string_equals_the_reference():
  data = golden.io("vqvae")
  height, width = data["m2s_mask"].shape
  y0, x0, y1, x1 = data["m2s_bbox"]
  wanted = data["m2s_suffix"].item()
  codes = boxes.parse_boxes(wanted, 1, 1)[0].codes
  box = structs.Box("", x0 * width, y0 * height, x1 * width, y1 * height, codes=codes)
  assert boxes.format_boxes([box], height, width) == wanted


def test_a_bool_mask_and_one_of_255_are_the_same():
  mask = np.zeros((20, 30), bool)
  mask[3:9, 4:20] = True
  a = masks.crop_for_codec(mask, (2, 2, 25, 15))
  b = masks.crop_for_codec(mask.astype(np.uint8) * 255, structs.Box("", 2, 2, 25, 15))
  np.testing.assert_array_equal(a, b)
  assert a.shape == (64, 64) and a.min() >= 0 and a.max() <= 1


def test_a_box_thinner_than_a_pixel_has_one():
  mask = np.ones((20, 30), bool)
  for box in ((29.8, 19.9, 30, 20), (3.1, 4.1, 3.3, 9)):
    assert masks.crop_for_codec(mask, box).min() > 0.999


def test_crop_and_paste_bring_a_mask_back():
  mask = np.zeros((80, 120), bool)
  mask[10:70, 20:60] = True
  mask[40:70, 60:100] = True
  box = masks.box_of(mask)
  assert box == (20, 10, 100, 70)
  back = masks.paste(masks.crop_for_codec(mask, box) * 2 - 1, box, 80, 120)
  assert (back & mask).sum() / (back | mask).sum() > 0.97


def test_corners_are_cut_not_rounded():
  # 8 x 8 picture, tokens 256 256 767 767: 767 / 1023 * 8 = 5.998 becomes 5 (spec metrics, worked)
  (box,) = parsed((256, 256, 767, 767), 8, 8)
  assert masks.box_of(masks.paste(np.ones((64, 64)), box, 8, 8)) == (2, 2, 5, 5)


def test_an_empty_box_and_one_beyond_the_edge():
  ones = np.ones((64, 64))
  assert not masks.paste(ones, (3.2, 3, 3.9, 8), 10, 10).any()
  assert masks.paste(ones, (-5, -5, 5, 5), 10, 10).sum() == 25
  assert masks.paste(ones, (5, 5, 15, 15), 10, 10).sum() == 25
  assert not masks.paste(ones, (20, 20, 30, 30), 10, 10).any()
  assert masks.box_of(np.zeros((3, 3), bool)) is None


def test_run_lengths_go_down_the_columns_and_start_with_zeros():
  mask = np.array([[0, 1, 1], [1, 1, 0]], bool)  # columns: 01 11 10
  rle = masks.encode_rle(mask)
  assert rle["size"] == [2, 3] and rle["counts"] == "141"  # runs 1, 4, 1, each one character
  np.testing.assert_array_equal(masks.decode_rle({"size": [2, 3], "counts": [1, 4, 1]}), mask)


def test_compressed_counts_as_cocoapi_writes_them():
  # By hand: runs 0 40 8 37 are written 0, 40, 8, then 37 - 40 = -3.
  # 40 = 01000 + 32 * 00001 -> "X1"; -3 is 11101 in five bits, sign set, done -> chr(29 + 48).
  mask = np.zeros(85, bool)
  mask[:40], mask[48:] = True, True
  mask = mask.reshape(5, 17, order="F")
  assert masks.encode_rle(mask)["counts"] == "0X18M"
  np.testing.assert_array_equal(masks.decode_rle({"size": [5, 17], "counts": b"0X18M"}), mask)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 300), (480, 640)])
def test_run_lengths_and_back(shape):
  rng = np.random.default_rng(0)
  noise = rng.random(shape) < 0.3
  blob = np.hypot(*np.indices(shape)) < shape[0]
  for mask in (noise, blob, ~blob, np.zeros(shape, bool), np.ones(shape, bool)):
    np.testing.assert_array_equal(masks.decode_rle(masks.encode_rle(mask)), mask)


@pytest.mark.parametrize(
  "rle, words",
  [
    ({"size": [2, 2]}, "not COCO run lengths"),
    ({"counts": [4]}, "not COCO run lengths"),
    ({"size": [2], "counts": [4]}, "not COCO run lengths"),
    ({"size": [2, 2], "counts": "\x01"}, "not COCO run lengths"),
    ({"size": [2, 2], "counts": "X"}, "not COCO run lengths"),  # ends in the middle of a number
    ({"size": [2, 2], "counts": [1, 2]}, "cover 3 pixels, the size 2 x 2 has 4"),
    ({"size": [2, 2], "counts": [-1, 5]}, "damaged"),
    (None, "not COCO run lengths"),
    ({"size": [2, 2], "counts": [2**70]}, "not COCO run lengths"),
    ({"size": [float("inf"), 2], "counts": [4]}, "not COCO run lengths"),
    ({"size": [2, 2], "counts": [2**62] * 4 + [4]}, "cover 18446744073709551620 pixels"),
    ({"size": [2**20, 2**20], "counts": [2**40]}, "no picture is so large"),
  ],
)
def test_damaged_run_lengths_are_one_line_with_their_place(rle, words):
  with pytest.raises(errors.UserError, match=words) as e:
    masks.decode_rle(rle, "train.jsonl:3: objects[1].mask")
  assert str(e.value).startswith("train.jsonl:3: objects[1].mask: ") and "\n" not in str(e.value)


def test_run_lengths_are_compared_with_the_picture_before_they_are_laid_out(monkeypatch):
  monkeypatch.setattr(np, "repeat", lambda *_: pytest.fail("laid out"))
  huge = {"size": [2**13, 2**13], "counts": [2**26]}
  with pytest.raises(errors.UserError, match="a mask has 8192 x 8192 pixels, the picture 40 x 30"):
    masks.decode_rle(huge, "mask", (30, 40))


@pytest.mark.parametrize("far", [1e12, -1e12, float("inf"), float("nan")])
def test_a_polygon_far_outside_its_picture_is_refused(far):
  with pytest.raises(errors.UserError, match="a corner far outside its picture of 40 x 30 pixels"):
    masks.fill([[0, 0, 5, 5, far, 9]], 30, 40)


def test_run_lengths_of_a_negative_size_are_none():
  with pytest.raises(errors.UserError, match="not COCO run lengths"):
    masks.decode_rle({"size": [-1, -1], "counts": [1]})


@pytest.mark.parametrize(
  "polygons, size, counts",
  [
    ([[1.5, 1.5, 8.2, 2.1, 5.0, 7.7]], (10, 10), "f0192N2N00N2Nd0"),
    ([[-2.0, -1.0, 6.0, 0.5, 4.4, 9.5, 0.0, 4.0]], (8, 7), "0531O1O<<"),  # juts out of the picture
    ([[0.0, 0, 4, 0, 4, 4, 0, 4], [6.0, 6, 9, 6, 9, 9, 6, 9]], (10, 10), "04600000j0OWO0004"),
    ([[2.0, 2, 2, 2, 2, 2]], (5, 5), "i0"),  # smaller than a pixel
  ],
)
def test_polygons_are_filled_as_coco_does(polygons, size, counts):
  # Run lengths of pycocotools 2.0.11: merge(frPyObjects(polygons, *size)).
  assert masks.encode_rle(masks.fill(polygons, *size)) == {"size": list(size), "counts": counts}
