import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations
from paligemma_jax.processing import masks
from tests.data.importers.marked import MASK, counts


def _xml(*objects, name="a.jpg", size=(40, 30)):
  """The annotation of a picture; objects are (name, xmin, ymin, xmax, ymax, more XML)."""
  parts = [
    f"<object><name>{name}</name>{more}<bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymax>{y1}</ymax>"
    f"<ymin>{y0}</ymin></bndbox></object>"
    for name, x0, y0, x1, y1, more in objects
  ]
  return (
    f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}"
    f"</height><depth>3</depth></size><segmented>1</segmented>{''.join(parts)}</annotation>"
  )


CAT = ("cat", 6, 4, 20, 9, "<difficult>0</difficult>")  # MASK, from 1 and inclusive
PART = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
PLANT = ("potted plant", 1, 1, 40, 30, f"{PART}<difficult>1</difficult>")


@pytest.fixture
def segments(tmp_path):
  """SegmentationObject/a.png: a palette picture; object 1 is MASK, 2 the last rows, 255 between."""
  pixels = np.where(MASK, np.uint8(1), np.uint8(0))
  pixels[20:], pixels[19] = 2, 255
  picture = Image.fromarray(pixels, "P")
  picture.putpalette(bytes(range(256)) * 3)
  (tmp_path / "SegmentationObject").mkdir()
  picture.save(tmp_path / "SegmentationObject" / "a.png")
  return pixels


def test_a_split_with_boxes_from_one_and_masks_by_number(draw, put, convert, rows, segments):
  draw("JPEGImages/a.jpg"), draw("JPEGImages/b.jpg")
  put("Annotations/a.xml", _xml(CAT, PLANT)), put("Annotations/b.xml", _xml(CAT, name="b.jpg"))
  put("ImageSets/Main/train.txt", "b\na\n"), put("ImageSets/Main/cat_val.txt", "b -1\na  1\n")
  src = put("ImageSets/Segmentation/train.txt", "a\n").parents[2]
  source, said = convert("voc", src, split="Segmentation/train")
  assert said.startswith("1 example, 2 objects, 2 labels\ncorners were taken to count from 1")
  cat, plant = source[0]["objects"]
  assert source[0]["image"] == "JPEGImages/a.jpg"
  assert (cat["label"], cat["box"]) == ("cat", [5, 3, 20, 9])
  assert (plant["label"], plant["box"]) == ("potted plant", [0, 0, 40, 30])
  assert plant["difficult"] and "difficult" not in cat
  np.testing.assert_array_equal(masks.decode_rle(cat["mask"]), MASK)
  np.testing.assert_array_equal(masks.decode_rle(plant["mask"]), segments == 2)
  assert [r["prefix"] for r in rows(source, "segment")] == ["segment cat"]
  (src / "ImageSets" / "Main" / "cat_val.txt").rename(src / "cat_val.txt")
  both, _ = convert("voc", src, "both.jsonl")  # the only one in Main
  (src / "cat_val.txt").rename(src / "ImageSets" / "Main" / "cat_val.txt")
  assert [both[i]["image"] for i in range(2)] == ["JPEGImages/b.jpg", "JPEGImages/a.jpg"]
  positive, _ = convert("voc", src, "val.jsonl", split="cat_val")
  assert len(positive) == 1


def test_xml_beside_its_pictures_and_corners_from_zero(draw, put, convert):
  draw("a.png"), draw("b.png")
  zero = ("cat", 0.0, 3.5, 20, 9, "")
  put("b.xml", _xml(CAT, name="from/another/place.png", size=(0, 0)))
  src = put("a.xml", _xml(zero, name="a.png")).parent
  with pytest.raises(
    errors.UserError, match="a.xml: object 1: the corner 0 is less than 1.*--zero"
  ):
    convert("voc", src)
  source, _ = convert("voc", src, zero_based=True)
  assert source[0]["objects"][0]["box"] == [0, 3.5, 20, 9]
  assert source[1]["image"] == "b.png" and source[1]["objects"][0]["box"] == [6, 4, 20, 9]


def test_a_picture_turned_by_its_exif(draw, put, convert):
  exif = Image.Exif()
  exif[0x0112] = 8  # shown with its right side up
  draw("a.png", exif=exif)
  source, _ = convert("voc", put("a.xml", _xml(CAT, name="a.png")).parent)
  assert tuple(source[0]["objects"][0]["box"]) == masks.box_of(np.rot90(MASK))


@pytest.mark.parametrize(
  "turn, size, is_guessed",
  [(1, (40, 30), False), (8, (40, 30), False), (3, (40, 30), True), (6, (0, 0), True)],
)
def test_it_is_said_where_the_size_does_not_tell_whether_a_picture_is_turned(
  draw, put, convert, turn, size, is_guessed
):
  exif = Image.Exif()
  exif[0x0112] = turn
  draw("a.png", exif=exif)
  source, said = convert("voc", put("a.xml", _xml(CAT, name="a.png", size=size)).parent)
  assert (source[0]["objects"][0]["box"] == [5, 3, 20, 9]) == (turn != 8)
  assert (annotations.UPRIGHT in counts(said)) == is_guessed


def test_a_drawing_that_cannot_be_read_leaves_the_boxes(draw, put, convert):
  draw("JPEGImages/a.jpg"), put("SegmentationObject/a.png", "no picture")
  source, said = convert("voc", put("Annotations/a.xml", _xml(CAT)).parents[1])
  assert source[0]["objects"] == [{"label": "cat", "box": [5, 3, 20, 9]}]
  assert counts(said)[annotations.WITHOUT_MASK] == 1 and "a.png: not an image" in said


def test_lists_may_stand_right_in_their_folder(draw, put, convert):
  draw("JPEGImages/a.jpg"), put("ImageSets/val.txt", "b\n")
  put("Annotations/a.xml", _xml(CAT))
  src = put("ImageSets/train.txt", "a\n").parents[1]
  assert len(convert("voc", src, split="train")[0]) == 1
  with pytest.raises(errors.UserError, match="several splits; .*; known: train, val"):
    convert("voc", src, "b.jsonl")


@pytest.mark.parametrize(
  "low, zero_based, words",
  [
    (1, False, "count from 1, as VOC says; the lowest is 1; if"),
    (6, False, "count from 1, as VOC says; if the tool that wrote them counts from 0"),
    (0, True, "count from 0, the last one outside, as --zero-based says"),
    (1, True, "count from 0, but none is 0 and some are 1: .* without --zero-based"),
  ],
)
def test_it_is_said_from_where_corners_count(draw, put, convert, low, zero_based, words):
  draw("a.jpg")
  src = put("a.xml", _xml(("cat", low, 4, 20, 9, ""))).parent
  assert re.search(words, convert("voc", src, zero_based=zero_based)[1])


def test_a_folder_without_xml_is_said(draw, convert):
  with pytest.raises(errors.UserError, match="JPEGImages: no XML files in it; give the folder"):
    convert("voc", draw("JPEGImages/a.jpg").parent)


@pytest.mark.parametrize(
  "xml, words",
  [
    ("<annotation>\n<object>", "a.xml:2: broken XML"),
    (_xml(("cat", 6, 4, "x", 9, "")), r'a.xml: object 1: bndbox: xmax is "x"; wanted a number'),
    (_xml(CAT, ("", 6, 4, 20, 9, "")), "a.xml: object 2: the name of the class is empty"),
    (_xml(CAT).replace("name>", "label>"), r"no name of the class \(found: label, .*; add <name>"),
    (
      _xml(CAT)
      .replace("xmin>", "x1>")
      .replace("ymin>", "y1>")
      .replace("xmax>", "x2>")
      .replace("ymax>", "y2>"),
      "object 1: bndbox: no xmin; wanted a number",
    ),
    (_xml(("cat", 20, 4, 6, 9, "")), "ends before it begins"),
    (_xml(("cat", 41, 4, 60, 9, "")), "lies outside the picture of 40 x 30"),
    (_xml(CAT, size=(41, 30)), "has 40 x 30 pixels, the annotations are for 41 x 30"),
    (_xml(), "nothing to import"),
  ],
)
def test_what_is_broken_is_one_line(draw, put, convert, xml, words):
  draw("JPEGImages/a.jpg")
  src = put("Annotations/a.xml", xml).parents[1]
  with pytest.raises(errors.UserError, match=words) as e:
    convert("voc", src)
  assert "\n" not in str(e.value) and not (src / "out.jsonl").exists()


def test_what_is_not_there_is_said(draw, put, convert):
  src = put("Annotations/a.xml", _xml(CAT)).parents[1]
  with pytest.raises(errors.UserError, match="a.xml: no picture .*a.jpg"):
    convert("voc", src)
  put("ImageSets/Main/train.txt", "a\nb\n"), put("ImageSets/Main/val.txt", "a\n")
  draw("JPEGImages/a.jpg")
  with pytest.raises(errors.UserError, match=r"several splits; .*; known: train, val"):
    convert("voc", src)
  with pytest.raises(
    errors.UserError, match="b.xml: No such file or directory; the split names it"
  ):
    convert("voc", src, split="train")
  for name in ("c" * 5000, "c\0d"):
    put("ImageSets/Main/train.txt", name)
    with pytest.raises(errors.UserError, match=r"File name too long|c\\x00d.xml' is no name"):
      convert("voc", src, split="train")
