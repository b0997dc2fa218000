import json

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import image, masks
from tests.data.importers.marked import MASK, counts, red

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 10, "name": "traffic light"}]
PARTS = [[5.0, 3, 12, 3, 12, 9, 5, 9], [12.0, 3, 20, 3, 20, 9, 12, 9]]  # together MASK
BOX = [5, 3, 15, 6]  # x, y, width, height


def _runs(mask):
  """Plain run lengths, down the columns, zeros first."""
  flat = mask.ravel(order="F").astype(int)
  edges = np.flatnonzero(np.diff(flat)) + 1
  counts = np.diff([0, *edges, flat.size]).tolist()
  return {"size": list(mask.shape), "counts": [0] * int(flat[0]) + counts}


def _instances(*annotations, images=None, **more):
  made = [{"image_id": 7, "category_id": 3, "iscrowd": 0, "bbox": BOX, **a} for a in annotations]
  images = images or [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}]
  return {"images": images, "annotations": made, "categories": CATEGORIES, **more}


def test_boxes_and_masks_of_every_kind(draw, put, convert, rows):
  draw("train2017/a.png"), draw("train2017/b.png")
  images = [
    {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
    {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
  ]
  data = _instances(
    {"image_id": 2, "segmentation": masks.encode_rle(MASK), "category_id": 10},
    {"segmentation": PARTS},
    {"segmentation": _runs(MASK), "bbox": [4.5, 2.25, 15.75, 7.5]},
    {"segmentation": _runs(~MASK), "iscrowd": 1},
    images=images,
  )
  src = put("annotations/instances_train2017.json", data)
  source, said = convert("coco", src, images=str(src.parent.parent / "train2017"))
  assert said.splitlines() == [
    "2 examples, 3 objects, 2 labels",
    "1 of 4 masks are run lengths with iscrowd 1; where a tool wrote single objects so, --crowd keep"
    " takes them",
    f"crowd regions, left out: 1 ({src}: annotations[3])",
  ]
  assert [source[i]["image"] for i in range(2)] == ["train2017/a.png", "train2017/b.png"]
  first, second = rows(source, "segment")
  assert (first["id"], second["id"]) == (7, 2)
  assert [o["box"] for o in first["objects"]] == [[5, 3, 20, 9], [4.5, 2.25, 20.25, 9.75]]
  assert [o["label"] for o in second["objects"]] == ["traffic light"]
  for item in first["objects"] + second["objects"]:
    np.testing.assert_array_equal(item["mask"], MASK)


def test_captions_become_one_list_of_answers(draw, put, convert, rows):
  draw("a.png")
  notes = [{"image_id": 7, "caption": c} for c in ("A red box.", " Grau, mit \u00fc und \u732b \n")]
  images = [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}]
  source, said = convert("coco", put("c.json", {"images": images, "annotations": notes}))
  assert said == "1 example"
  (row,) = rows(source)
  assert row["prefix"] == "caption en"
  assert row["suffix"] == ["A red box.", "Grau, mit \u00fc und \u732b"]


def test_what_most_annotations_are_the_file_is(draw, put, convert):
  draw("a.png")
  region = {"caption": "red box", "category_id": None}
  most = _instances(region, {**region, "caption": ["red", " a box ", 7]}, {})
  del most["categories"]
  source, said = convert("coco", put("most.json", most), "most.jsonl")
  assert [(o["label"], o["sentences"]) for o in source[0]["objects"]] == [
    ("object", ["red box"]), ("object", ["red", "a box"])
  ]  # fmt: skip
  assert counts(said) == {"regions without a sentence, left out": 1}
  few = _instances({}, {}, {"caption": "odd"}, {"caption": "whole", "bbox": None})
  source, said = convert("coco", put("few.json", few), "few.jsonl")
  assert [set(o) for o in source[0]["objects"]] == [{"label", "box"}] * 3
  assert counts(said) == {
    "captions of single objects, left out": 1,
    "captions of whole pictures among objects, left out": 1,
  }


def test_boxes_of_zeros_are_stand_ins_of_captions(draw, put, convert):
  draw("a.png")
  note = {"bbox": [0, 0, 0, 0], "caption": "A red box."}
  source, _ = convert("coco", put("c.json", _instances(note)))
  assert source[0]["suffix"] == ["A red box."] and "objects" not in source[0]


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("stated", ["stored", "upright"])
def test_a_picture_turned_by_its_exif(draw, put, convert, rows, orientation, stated):
  turned = orientation > 4
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = draw("a.png", exif=exif)
  marked = MASK  # as the annotator saw it
  if stated == "upright" or not turned:
    marked = (image.decode(path) == [255, 0, 0]).all(axis=-1)
  x0, y0, x1, y1 = masks.box_of(marked)
  height, width = marked.shape
  annotation = {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": masks.encode_rle(marked)}
  images = [{"id": 7, "file_name": "a.png", "width": width, "height": height}]
  source, _ = convert("coco", put("i.json", _instances(annotation, images=images)))
  (item,) = rows(source, "segment")[0]["objects"]
  np.testing.assert_array_equal(item["mask"], red(source))
  assert tuple(item["box"]) == masks.box_of(red(source))


def test_what_coco_commonly_holds_is_mended_or_left_out_and_counted(draw, put, convert):
  draw("a.png"), draw("b.png")
  images = [
    {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
    {"id": 8, "file_name": "b.png", "width": 40, "height": 30},
  ]
  data = _instances(
    {"bbox": [30, 20, 14, 10]},
    {"bbox": [30, 20, 10.3, 10]},
    {"bbox": [30, 20, 0, 10]},
    {"segmentation": [[1.0, 1, 2, 2]]},
    {"segmentation": [], "bbox": [1, 1, 2, 2]},
    images=images,
  )
  source, said = convert("coco", put("i.json", data))
  assert said.startswith("1 example, 4 objects, 1 label\n")
  assert counts(said) == {
    "boxes cut at the edge of the picture": 1,
    "boxes without area, left out": 1,
    "masks that cannot be used, left out; their objects keep the box": 1,
    "pictures without a usable annotation, left out": 1,
    "polygons of fewer than 3 points, left out": 1,
  }
  assert [o["box"] for o in source[0]["objects"]] == [
    [30, 20, 40, 30], [30, 20, 40, 30], [5, 3, 20, 9], [1, 1, 3, 3]
  ]  # fmt: skip


@pytest.mark.parametrize(
  "drawn, why",
  [
    ({"size": [3, 3], "counts": [9]}, "the mask has [3, 3] pixels, height and width, the picture [30, 40]"),
    ({"size": [30, 40], "counts": [9]}, "the runs cover 9 pixels"),
    ({"size": [30, 40], "counts": [10**30]}, "not COCO run lengths"),
    ({"size": [2**20, 2**20], "counts": [2**40]}, "the mask has"),
    ({"counts": "x"}, "not COCO run lengths"),
    ([[1.0, 2, 3]], "a polygon of 3 numbers"),
    ([[1, 2, 3, 4, 5, "x"]], "a polygon of [1, 2, 3"),
    ([[1e9, 2, 3, 4, 5, 6]], "a polygon far outside the picture"),
    ([[90, 2, 93, 4, 95, 6]], "it holds no pixel"),
    ("cat.png", "a polygon of 'cat.png'"),
  ],
)  # fmt: skip
def test_an_object_whose_mask_cannot_be_used_keeps_its_box(draw, put, convert, drawn, why):
  draw("a.png")
  whole = {"bbox": BOX, "segmentation": PARTS}
  src = put("i.json", _instances({"segmentation": drawn, "id": 12}, whole))
  source, said = convert("coco", src)
  assert source[0]["objects"][0] == {"label": "cat", "box": [5, 3, 20, 9]}
  assert "mask" in source[0]["objects"][1]
  (line,) = said.splitlines()[1:]
  assert line.startswith("masks that cannot be used, left out; their objects keep the box: 1 (")
  assert f"{src}: annotations[0] (id 12): " in line and why in line


@pytest.mark.parametrize(
  "drawn",
  [
    PARTS,
    [[str(v) for v in part] for part in PARTS],
    [5, 3, 20, 3, 20, 9, 5, 9],
    [[5, 3], [20, 3], [20, 9], [5, 9]],
    [[[5, 3], [12, 3], [12, 9], [5, 9]], [[12, 3], [20, 3], [20, 9], [12, 9]]],
    [masks.encode_rle(MASK)],
    _runs(MASK),
  ],
)
def test_masks_in_the_forms_of_many_tools(draw, put, convert, drawn):
  draw("a.png")
  source, said = convert("coco", put("i.json", _instances({"segmentation": drawn, "bbox": None})))
  (item,) = source[0]["objects"]
  np.testing.assert_array_equal(masks.decode_rle(item["mask"]), MASK)
  assert item["box"] == [5, 3, 20, 9] and not counts(said)


@pytest.mark.parametrize("ids", [(7, "7"), ("7", 7), (7.0, "7"), ("a7", "a7")])
def test_ids_are_numbers_or_text_and_numbers_are_in_any_notation(draw, put, convert, ids):
  draw("a.png")
  own, other = ids
  images = [{"id": own, "file_name": "a.png", "width": "40", "height": 3e1}]
  given = {"image_id": other, "category_id": "3", "bbox": ["5", "3.0", 15.0, "6e0"]}
  source, _ = convert("coco", put("i.json", _instances(given, images=images)))
  assert source[0]["objects"] == [{"label": "cat", "box": [5, 3, 20, 9]}]
  assert source[0]["id"] == own


def test_a_box_without_area_is_drawn_around_the_mask(draw, put, convert):
  draw("a.png")
  data = _instances({"bbox": [0, 0, 0, 0], "segmentation": PARTS})
  source, said = convert("coco", put("i.json", data))
  assert source[0]["objects"][0]["box"] == [5, 3, 20, 9]
  assert counts(said) == {"boxes without area, drawn around the mask": 1}


def test_what_is_listed_twice_counts_once(draw, put, convert):
  draw("a.png")
  data = _instances({})
  data["images"] *= 2
  source, said = convert("coco", put("i.json", data))
  assert len(source) == 1 and counts(said) == {"entries that are listed twice, taken once": 1}


def test_classes_that_no_answer_can_name_are_told(draw, put, convert):
  draw("a.png")
  data = _instances({})
  data["categories"][0]["name"] = "cat; dog"
  _, said = convert("coco", put("i.json", data))
  assert '1 class holds ";", "<" or ">", which end a label in answers, as "cat; dog"' in said


@pytest.mark.parametrize("drawn", [{}, {"segmentation": PARTS}])
def test_a_tool_that_marks_boxes_and_polygons_as_crowds_is_told(draw, put, convert, drawn):
  draw("a.png")
  src = put("i.json", _instances({"iscrowd": "true", **drawn}, {"iscrowd": 0}))
  _, said = convert("coco", src)
  assert "1 of 2 annotations have iscrowd 1; where a tool wrote single objects so, --crowd" in said
  source, said = convert("coco", src, "b.jsonl", crowd="keep")
  assert len(source[0]["objects"]) == 2 and not counts(said)


def test_boxes_that_may_be_fractions_are_told(draw, put, convert):
  draw("a.png")
  _, said = convert("coco", put("i.json", _instances({"bbox": [0.1, 0.2, 0.5, 0.5]})))
  assert "all boxes lie between 0 and 1: fractions of the picture?" in said


@pytest.mark.parametrize("size", [(0, 0), (-1, -1), (40, None), ("", "")])
def test_a_size_that_is_none_is_read_from_the_picture(draw, put, convert, size):
  draw("a.png")
  image = {"id": 7, "file_name": "a.png", "width": size[0], "height": size[1]}
  assert len(convert("coco", put("i.json", _instances({}, images=[image])))[0]) == 1


@pytest.mark.parametrize(
  "data, words",
  [
    ("{", "i.json:1: broken JSON"),
    ("", "i.json: an empty file; fetch it again"),
    ('{"images": ' + "9" * 5000 + "}", "i.json: JSON that cannot be read .*4300 digits"),
    ("[" * 100_000, "i.json: JSON that cannot be read .*recursion"),
    (_instances({"bbox": ["9" * 5000, 2, 3, 4]}), r'annotations\[0\]: "bbox" is .*; wanted \[x, y'),
    (_instances({"bbox": [float("nan"), 2, 3, 4]}), r'"bbox" is \[nan, 2, 3, 4\]; wanted \[x, y'),
    (_instances({"bbox": [1, 2, True, 4]}), r'"bbox" is \[1, 2, True, 4\]; wanted \[x, y'),
    ({**_instances({}), "annotations": [3]}, r"annotations\[0\] is 3; wanted an object"),
    (_instances({"image_id": None}), r'annotations\[0\]: no "image_id"'),
    ([], 'i.json: no list "images"'),
    (_instances({"image_id": 9}), r"annotations\[0\]: there is no image with the id 9"),
    (_instances({}, {"category_id": 4}), r"annotations\[1\]: .*category with the id 4 .*3, 10"),
    (_instances({"bbox": [1, 2, 3]}), r'annotations\[0\]: "bbox" is \[1, 2, 3\]; wanted \[x, y'),
    (_instances({"bbox": [50, 2, 3, 3]}), r"\(50, 2\) to \(53, 5\) lies outside .* 40 x 30 pixels"),
    (_instances({"bbox": [9, 2, -3, 3]}), "ends before it begins"),
    (_instances({"bbox": None}), 'neither "bbox" nor "segmentation"'),
    ({**_instances({}), "categories": 3}, 'no list "categories"'),
    (_instances({"caption": "half \ud83d"}), r"a text about a.png holds '\\ud83d', half of a char"),
    (_instances({"segments_info": []}), "panoptic"),
    (_instances(), "nothing to import .pictures without a usable annotation, left out: 1"),
    (_instances({}, images=[{"id": 7, "file_name": "b.png", "width": 40, "height": 30}]),
     "image 7: no picture .*b.png; put it there"),
    (_instances({}, images=[{"id": 7, "file_name": "a.png", "width": 41, "height": 30}]),
     "has 40 x 30 pixels, the annotations are for 41 x 30"),
    (_instances({}, images=[{"id": 7, "file_name": "i.json", "width": 4, "height": 3}]),
     "i.json: not an image"),
    (_instances({}, images=[{"id": 7, "width": 41, "height": 30}]), 'image 7: no "file_name"'),
    (_instances({}, images=[{"id": 7, "file_name": name} for name in ("a.png", "b.png")]),
     r"images\[1\]: the id 7 is there already"),
  ],
)  # fmt: skip
def test_what_is_broken_is_one_line_and_nothing_is_written(draw, put, convert, data, words):
  src = put("i.json", data if isinstance(data, str) else json.dumps(data))
  folder = draw("a.png").parent
  with pytest.raises(errors.UserError, match=words) as e:
    convert("coco", src)
  assert "\n" not in str(e.value) and str(src) in str(e.value)
  assert sorted(p.name for p in folder.iterdir()) == ["a.png", "i.json"]
