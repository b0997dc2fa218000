import io

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import layout
from paligemma_jax.datasets import pictures
from paligemma_jax.processing import boxes, masks


def picture(width=40, height=20) -> bytes:
  out = io.BytesIO()
  Image.new("RGB", (width, height)).save(out, "PNG")
  return out.getvalue()


def test_features_without_a_pair_keep_their_names():
  found = layout.Layout().record({"image": b"1", "question": "what?", "n": 3}, "x:0")
  assert found == {"image": b"1", "question": "what?", "n": 3}


def test_names_lead_into_dicts_lists_of_dicts_and_names_with_slashes():
  features = {
    "image": b"1",
    "image/filename": "a.png",
    "captions": {"text": ["a", "b"]},
    "turns": [{"user": "c"}, {"user": "d"}],
  }
  fields = (("id", "image/filename"), ("suffix", "captions/text"), ("said", "turns/user"))
  found = layout.Layout(fields).record(features, "x:0")
  assert (found["id"], found["suffix"], found["said"]) == ("a.png", ["a", "b"], ["c", "d"])


def test_two_pairs_of_image_are_two_pictures_and_leave_no_copies():
  fields = (("image", "left"), ("image", "right"))
  one = layout.Layout(fields)
  assert one.record({"left": b"1", "right": b"2"}, "x:0") == {"image": [b"1", b"2"]}
  assert one.most_images() == 2


def test_frames_are_many_pictures_of_one_feature():
  found = layout.Layout((("image", "frames"),), max_images=3)
  assert found.record({"frames": [b"1", b"2"]}, "x:0")["image"] == [b"1", b"2"]
  with pytest.raises(errors.UserError, match="x:0: 4 pictures; set max_images"):
    found.record({"frames": [b"1"] * 4}, "x:0")


OBJECTS = (("objects/box", "o/bbox"), ("objects/label", "o/name"))


@pytest.mark.parametrize(
  "boxes, given",  # x 10 to 30 of 40 pixels, y 5 to 15 of 20
  [
    ("xyxy", [10, 5, 30, 15]),
    ("xywh", [10, 5, 20, 10]),
    ("yxyx_unit", [0.25, 0.25, 0.75, 0.75]),
  ],
)
def test_boxes_become_corners_in_pixels(boxes, given):
  made = layout.Layout(OBJECTS, boxes)
  want = [{"box": [10.0, 5.0, 30.0, 15.0], "label": "cat"}]
  for o in ({"bbox": [given], "name": ["cat"]}, [{"bbox": given, "name": "cat"}]):
    assert made.record({"image": picture(), "o": o}, "x:0")["objects"] == want
  flat = {"bbox": given, "name": "cat"}  # of a tf.train.Example
  assert made.record({"image": picture(), "o": flat}, "x:0")["objects"] == want


@pytest.mark.parametrize("height", [333, 375, 427, 480, 500, 640])
def test_halves_of_a_pixel_are_rounded_as_the_reference_rounds_its_float32(height):
  made, data = layout.Layout(OBJECTS, "yxyx_unit"), picture(40, height)
  for y in np.arange(0.5, height - 2, 3.0):
    unit = pictures.unit_box(10, y, 30, y + 2, 40, height)
    features = {"image": data, "o": {"bbox": [unit.tolist()], "name": ["cat"]}}
    _, y0, _, y1 = made.record(features, "x:0")["objects"][0]["box"]
    want = np.round(unit[[0, 2]] * np.float32(height))  # where its masks are cut
    assert [round(y0), round(y1)] == want.tolist()
    bins = np.round(unit[[0, 2]] * np.float32(1023))
    assert list(boxes.to_bins((y0, y1), height)) == bins.tolist()


def test_a_mask_is_cut_at_28_where_its_box_begins_at_28_and_a_half_of_500():
  unit = pictures.unit_box(0, 28.5, 40, 92.5, 40, 500)
  features = {"image": picture(40, 500), "o": {"bbox": [unit.tolist()], "name": ["cat"]}}
  (item,) = layout.Layout(OBJECTS, "yxyx_unit").record(features, "x:0")["objects"]
  mask = np.zeros((500, 40), bool)
  mask[28] = True
  assert masks.crop_for_codec(mask, item["box"])[0].min() > 0.9


def test_cells_of_a_table_stay_in_their_places_without_a_box_too():
  features = {"image": picture(), "structure": ["<td>"] * 2}
  features["o"] = {"bbox": [[0, 0, 0, 0], [1, 2, 3, 4]], "name": ["", "a"]}
  found = layout.Layout(OBJECTS).record(features, "x:0")["objects"]
  assert [o["label"] for o in found] == ["", "a"]


def test_no_objects_is_an_empty_list():
  features = {"image": picture(), "o": {"bbox": [], "name": []}}
  assert layout.Layout(OBJECTS, "yxyx_unit").record(features, "x:0")["objects"] == []
  assert layout.Layout(OBJECTS).record({"image": b"", "o": []}, "x:0")["objects"] == []


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"boxes": "xyhw"}, 'boxes: "xyhw" is unknown; did you mean "xywh"'),
    ({"fields": (("image",),)}, "fields holds pairs"),
    ({"fields": (("objects/bbox", "b"),)}, 'did you mean "objects/box"'),
  ],
)
def test_settings_are_checked(settings, message):
  with pytest.raises(errors.UserError, match=message):
    layout.Layout(**settings)


def test_what_does_not_fit_is_named_with_its_place():
  with pytest.raises(errors.UserError, match='x:0: no feature "image"; did you mean "imagE"'):
    layout.Layout().record({"imagE": b""}, "x:0")
  features = {"image": b"", "o": {"bbox": [[0, 0, 1, 1]], "name": ["a", "b"]}}
  with pytest.raises(errors.UserError, match="x:0: the objects differ in number: 1 of box, 2 of l"):
    layout.Layout(OBJECTS).record(features, "x:0")
  features["o"] = {"bbox": [[0, 1]], "name": ["a"]}
  with pytest.raises(errors.UserError, match="x:0: a box is four numbers"):
    layout.Layout(OBJECTS).record(features, "x:0")
