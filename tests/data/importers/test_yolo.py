import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import masks
from tests.data.importers.marked import MASK, red

YAML = "path: ../datasets/mine\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: traffic light\n"
BOX = "1 0.3125 0.2 0.375 0.2\n"  # of MASK in 40 x 30: centre 12.5, 6; 15 x 6
POLYGON = "0 0.125 0.1 0.5 0.1 0.5 0.3 0.125 0.3"  # MASK


def test_boxes_polygons_and_splits_of_data_yaml(draw, put, convert, rows):
  put("set/data.yaml", YAML)
  draw("set/images/train/a.jpg", quality=95), draw("set/images/train/sub/b.PNG")
  draw("set/images/val/c.png"), put("set/labels/val/c.txt", BOX)
  put("set/labels/train/a.txt", f"{POLYGON}\n\n{BOX}")
  src = put("set/labels/train/sub/b.txt", "").parents[3]
  source, said = convert("yolo", src, split="train")
  empty = src / "images" / "train" / "sub" / "b.PNG"
  assert said.splitlines() == [
    "1 example, 2 objects, 2 labels",
    f"pictures without a usable annotation, left out: 1 ({empty})",
  ]
  assert source[0]["image"] == "set/images/train/a.jpg"
  first, second = source[0]["objects"]
  np.testing.assert_array_equal(masks.decode_rle(first["mask"]), MASK)
  assert first["box"] == second["box"] == [5, 3, 20, 9]
  assert (first["label"], second["label"], "mask" in second) == ("cat", "traffic light", False)
  (row,) = rows(source, "detect")
  assert row["prefix"] == "detect cat ; traffic light"
  source, _ = convert("yolo", src / "data.yaml", "val.jsonl", split="val")
  assert [source[i]["image"] for i in range(len(source))] == ["set/images/val/c.png"]


def test_names_in_classes_txt_and_no_splits(draw, put, convert):
  draw("images/a.png"), put("labels/classes.txt", "cat\ntraffic light\n")
  source, said = convert("yolo", put("labels/a.txt", BOX).parents[1])
  assert said == "1 example, 1 object, 1 label"
  assert source[0]["objects"] == [{"label": "traffic light", "box": [5, 3, 20, 9]}]


def test_a_list_of_pictures_and_folders_beside_data_yaml(draw, put, convert):
  put("data.yaml", "train: ../train/images\nval: val.txt\nnames: [cat, traffic light]\n")
  draw("train/images/a.png"), put("train/labels/a.txt", BOX)
  draw("other/images/b.png"), put("other/labels/b.txt", BOX)
  src = put("val.txt", "./other/images/b.png\n").parent
  train, _ = convert("yolo", src, split="train")
  val, _ = convert("yolo", src, "val.jsonl", split="val")
  assert (train[0]["image"], val[0]["image"]) == ("train/images/a.png", "other/images/b.png")


def test_fractions_are_of_the_picture_turned_by_its_exif(draw, put, convert, rows):
  exif = Image.Exif()
  exif[0x0112] = 6
  draw("images/a.png", exif=exif)  # upright it is 30 x 40, its mask MASK turned clockwise
  x0, y0, x1, y1 = masks.box_of(np.rot90(MASK, -1))
  points = [(x, y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
  put("labels/a.txt", "0 " + " ".join(f"{x / 30} {y / 40}" for x, y in points))
  source, _ = convert("yolo", put("classes.txt", "cat").parent)
  (item,) = rows(source, "segment")[0]["objects"]
  np.testing.assert_array_equal(item["mask"], red(source))
  assert item["box"] == [x0, y0, x1, y1]


@pytest.mark.parametrize(
  "line, words",
  [
    ("2 0.3 0.2 0.3 0.2", "a.txt:2: class 2 is unknown; there are 2 names, 0 to 1"),
    ("cat 0.3 0.2 0.3 0.2", 'a.txt:2: "cat 0.3 0.2 0.3 0.2" holds what is no number'),
    ("0 0.3 0.2 0.3", "a.txt:2: 4 numbers; wanted a class and 4 for a box"),
    ("0 0.3 0.2 0.3 0.2 0.9", "a.txt:2: 6 numbers"),
    ("0 12 6 15 6", "a.txt:2: coordinates from 6 to 15; wanted fractions"),
    ("0 0.3 0.2 0.3 0.2 0.2 0.2 2 0.3 0.3 1", "from 0.2 to 2; wanted .*, and no key points"),
    ("0 nan 0.2 0.3 0.2", "a.txt:2: .* holds what is no number"),
    ("1.5 0.3 0.2 0.3 0.2", "a.txt:2: .* holds what is no number"),
    ("0 " + "9" * 5000 + " 0.2 0.3 0.2", "a.txt:2: .* holds what is no number"),
  ],
)
def test_a_broken_line_is_named(draw, put, convert, line, words):
  draw("images/a.png"), put("classes.txt", "cat\ndog")
  src = put("labels/a.txt", f"{BOX}{line}\n").parents[1]
  with pytest.raises(errors.UserError, match=words):
    convert("yolo", src)
  assert not (src / "out.jsonl").exists()


def test_a_place_that_cannot_be_one_is_not_there(draw, put, convert):
  src = draw("images/a.png").parents[1]
  put("data.yaml", f"names: [cat]\ntrain: {'x' * 5000}\n")
  with pytest.raises(errors.UserError, match="no such folder"):
    convert("yolo", src, split="train")


def test_what_is_not_there_is_said(draw, put, convert):
  src = draw("images/a.png").parents[1]
  with pytest.raises(errors.UserError, match="no names of classes, neither"):
    convert("yolo", src)
  put("classes.txt", "cat\ndog"), put("labels/b.txt", BOX)
  with pytest.raises(errors.UserError, match="b.txt: no picture of this name in .*images"):
    convert("yolo", src)
  with pytest.raises(errors.UserError, match='has no splits, found --split "val"'):
    convert("yolo", src, split="val")
  put("data.yaml", YAML)
  for split, words in (("", "several splits; name one"), ("vall", 'did you mean "val"')):
    (src / "images" / "train").mkdir(exist_ok=True), (src / "images" / "val").mkdir(exist_ok=True)
    with pytest.raises(errors.UserError, match=words):
      convert("yolo", src, split=split)
  put("data.yaml", "names: [a\n")
  with pytest.raises(errors.UserError, match="data.yaml: broken YAML"):
    convert("yolo", src)
  put("data.yaml", "train: images\nkpt_shape: [17, 3]\nnames: [a]\n")
  with pytest.raises(errors.UserError, match="key points"):
    convert("yolo", src)
