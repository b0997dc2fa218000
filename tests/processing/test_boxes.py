"""Boxes as text and back."""

import numpy as np
import pytest

from paligemma_jax import errors, structs
from paligemma_jax.processing import boxes
from tests import golden

LOC = "<loc0100><loc0200><loc0700><loc0900>"
SEG = "".join(f"<seg{i:03d}>" for i in range(16))


def test_quantisation_equals_the_reference():
  data = golden.io("ops")
  for bbox, bins, back in zip(data["loc/bbox"], data["loc/bins"], data["loc/back"]):
    assert list(boxes.to_bins(bbox, 1)) == bins.tolist()
    np.testing.assert_array_equal(boxes.from_bins(bins, 1), back)


@pytest.mark.parametrize("bins, name", [(1023, "paste_box_px"), (1024, "paste1024_box_px")])
def test_pixels_equal_the_reference(bins, name):
  data = golden.io("vqvae")
  height, width = data["paste_hw"]
  seen = 0
  for loc, valid, wanted in zip(data["loc"], data["paste_valid"], data[name]):
    found = boxes.parse_boxes("".join(f"<loc{v:04d}>" for v in loc), height, width, bins)
    assert bool(found) == valid
    for box in found:
      assert [int(v) for v in (box.y0, box.x0, box.y1, box.x1)] == wanted.tolist()
      seen += 1
  assert seen


def test_tokens_are_y_x_y_x_and_the_box_is_x_y_x_y():
  (box,) = boxes.parse_boxes(f"{LOC} cat", 1023, 2046)
  assert box == structs.Box("cat", 400.0, 100.0, 1800.0, 700.0)


def test_several_objects_with_codes_and_other_text_between():
  text = f"I see {LOC} red cat ; and{LOC}{SEG}dog;{LOC} {SEG} bird<eos>"
  found = boxes.parse_boxes(text, 100, 100)
  assert [b.label for b in found] == ["red cat", "dog", "bird"]
  assert [b.codes for b in found] == [None, tuple(range(16)), tuple(range(16))]


@pytest.mark.parametrize(
  "text",
  [
    "",
    "no boxes here",
    "<loc0100><loc0200><loc0700> cat",  # three tokens
    "<loc0700><loc0200><loc0100><loc0900> cat",  # y1 < y0
    "<loc0100><loc0200><loc0700><loc0200> cat",  # x1 = x0
    "<loc0100><loc0200><loc0700><loc1024> cat",  # no such token
    f"{LOC}{SEG.replace('<seg015>', '<seg128>')} cat",  # no such token
  ],
)
def test_invalid_boxes_are_left_out(text):
  assert boxes.parse_boxes(text, 100, 100) == []


def test_fifteen_codes_are_no_mask():
  (box,) = boxes.parse_boxes(f"{LOC}{SEG[:-8]} cat", 100, 100)
  assert box.codes is None


def test_formatting_undoes_parsing():
  text = f"{LOC} red cat ; {LOC}{SEG} dog ; {LOC}"
  for bins in (1023, 1024):
    assert boxes.format_boxes(boxes.parse_boxes(text, 1024, 1024, bins), 1024, 1024, bins) == text


def test_rounding_is_half_to_even_and_clipped():
  assert boxes.to_bins((0.5, 1.5, 2.5, 2000, -3), 1023) == (0, 2, 2, 1023, 0)


def test_a_box_survives_the_tokens_to_within_half_a_bin():
  rng = np.random.default_rng(0)
  for _ in range(50):
    x0, y0 = rng.uniform(0, 50, 2)
    box = structs.Box("a", x0, y0, x0 + rng.uniform(5, 50), y0 + rng.uniform(5, 50))
    (back,) = boxes.parse_boxes(boxes.format_boxes([box], 112, 112), 112, 112)
    for name in ("x0", "y0", "x1", "y1"):
      assert abs(getattr(back, name) - getattr(box, name)) <= 112 / 1023 / 2 + 1e-9


def test_a_box_of_the_user_is_checked():
  assert boxes.check_box([1, 2, 30, 20.5], 21, 30) == (1.0, 2.0, 30.0, 20.5)
  assert boxes.check_box([-0.4, 0, 30.4, 21], 21, 30) == (0.0, 0.0, 30.0, 21.0)  # rounded by a tool


@pytest.mark.parametrize(
  "box, words",
  [
    ([1, 2, 3], "x0, y0, x1, y1"),
    ("abcd", "x0, y0, x1, y1"),
    (None, "x0, y0, x1, y1"),
    ([1, 2, float("nan"), 4], "not finite"),
    ([10, 2, 10, 4], "empty"),
    ([0, 9, 10, 4], "empty"),
    ([0, 0, 31, 20], "outside the picture of 30 x 21"),
    ([-2, 0, 30, 20], "outside"),
    ([29.9, 0, 30.2, 22], "outside"),
    ([30, 0, 30.4, 20], "holds no pixel"),
  ],
)
def test_a_wrong_box_is_one_line_with_its_place(box, words):
  with pytest.raises(errors.UserError, match=words) as e:
    boxes.check_box(box, 21, 30, "train.jsonl:17: objects[0].box")
  assert str(e.value).startswith("train.jsonl:17: objects[0].box: ") and "\n" not in str(e.value)
