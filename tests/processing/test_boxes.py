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


def scored(*tokens):
  """(spans, logprobs) of (text, probability) pairs."""
  ends = np.cumsum([len(text) for text, _ in tokens]).tolist()
  return list(zip([0, *ends], ends)), np.log([p for _, p in tokens])


def test_the_score_is_the_probability_of_the_label():
  loc = [(f"<loc{v:04d}>", 0.1) for v in (100, 200, 700, 900)]
  tokens = [*loc, (" traffic", 0.9), (" light", 0.5), (" ;", 0.2), (" ", 0.3), *loc, (" cat", 0.7)]
  spans, logprobs = scored(*tokens)
  text = "".join(t for t, _ in tokens)
  found = boxes.parse_boxes(text, 100, 100, spans=spans, logprobs=[*logprobs, -1.0])  # EOS
  assert [b.label for b in found] == ["traffic light", "cat"]
  np.testing.assert_allclose([b.score for b in found], [0.45, 0.7])
  assert boxes.parse_boxes(text, 100, 100)[0].score is None


def test_without_a_label_the_score_is_the_mean_probability_of_the_coordinates():
  loc = zip(("<loc0100>", "<loc0200>", "<loc0700>", "<loc0900>"), (1.0, 0.5, 0.5, 0.25))
  spans, logprobs = scored(*loc, *((f"<seg{i:03d}>", 0.1) for i in range(16)))
  (box,) = boxes.parse_boxes(f"{LOC}{SEG}", 100, 100, spans=spans, logprobs=logprobs)
  assert box.codes and box.score == pytest.approx(0.5)


def test_what_is_said_twice_of_a_label_is_kept_once_with_the_better_score():
  a = structs.Box("cat", 0, 0, 100, 100, 0.4)
  nearly = structs.Box("cat", 0, 0, 100, 95, 0.6)
  other, beside = structs.Box("dog", 0, 0, 100, 100, 0.1), structs.Box("cat", 50, 0, 150, 100, 0.1)
  assert boxes.suppress([a, other, nearly, beside]) == [other, nearly, beside]
  assert boxes.suppress([a, nearly], iou=0.96) == [a, nearly]
  plain = [structs.Box("cat", 0, 0, 9, 9), structs.Box("cat", 0, 0, 9, 9)]
  assert boxes.suppress(plain) == plain[:1] and boxes.suppress([]) == []


# What supervision 0.31.2 makes of an answer (`Detections.from_vlm`, its parser of PaliGemma): corners
# token / 1024 * size, not rounded, and the label's words.
ANSWER = "<loc0102><loc0512><loc0614><loc1023> traffic light ; <loc0000><loc0100><loc0300><loc0400> t-shirt"
SUPERVISION = {
  "xyxy": [[320, 102 / 1024 * 480, 1023 / 1024 * 640, 614 / 1024 * 480],
           [62.5, 0, 250, 140.625]],
  "class_name": ["traffic light", "t-shirt"],
}  # fmt: skip


def test_our_answers_read_alike_in_supervision():
  found = boxes.parse_boxes(ANSWER, 480, 640, bins=boxes.DEMO_BINS)
  assert [b.label for b in found] == SUPERVISION["class_name"]
  corners = [[b.x0, b.y0, b.x1, b.y1] for b in found]
  np.testing.assert_allclose(corners, SUPERVISION["xyxy"], atol=0.5)  # ours are whole pixels
  assert boxes.format_boxes(boxes.parse_boxes(ANSWER, 480, 640), 480, 640) == ANSWER


@pytest.mark.parity
def test_supervision_reads_what_we_write():
  sv = pytest.importorskip("supervision")
  found = sv.Detections.from_vlm(sv.VLM.PALIGEMMA, ANSWER, resolution_wh=(640, 480))
  np.testing.assert_allclose(found.xyxy, SUPERVISION["xyxy"])
  assert found["class_name"].tolist() == SUPERVISION["class_name"]


def test_rounding_is_half_to_even_and_clipped():
  assert boxes.to_bins((0.5, 1.5, 2.5, 2000, -1e300, 1e300), 1023) == (0, 2, 2, 1023, 0, 1023)


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
