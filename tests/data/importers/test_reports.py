"""Data sets as people really have them, each in the form of a public report (tests/data/reports)."""

import pathlib

import pytest

from paligemma_jax import errors
from paligemma_jax.data import checks, pipeline
from tests.data.importers.marked import counts

REPORTS = pathlib.Path(__file__).resolve().parents[1] / "reports"
SHIP = {"label": "ship", "box": [5, 6, 20, 30]}


def at(case, name, told):
  return f"{REPORTS / case / name}: {told}"


@pytest.mark.parametrize(
  "format, src, options, num_examples, first",
  [
    ("coco", "coco_backslash/result.json", {}, 2, [SHIP]),
    ("coco", "coco_backslash/result116.json", {"images": "coco_backslash/images"}, 2, [SHIP]),
    ("coco", "coco_backslash/result116.json", {}, 2, [SHIP]),
    ("coco", "coco_no_size/ann.json", {}, 2, [SHIP]),
    ("coco", "coco_no_size/null.json", {}, 2, [SHIP]),
    ("voc", "voc_kaggle", {"zero_based": True}, 2, [SHIP]),
    ("voc", "voc_kaggle/annotations", {}, 2, [{"label": "ship", "box": [4, 5, 20, 30]}]),
    ("voc", "voc_kaggle", {"images": "voc_kaggle/images"}, 2, [{"label": "ship", "box": [4, 5, 20, 30]}]),
    ("voc", "voc_gb2312", {"zero_based": True}, 1, [{"label": "\u8239", "box": [5, 6, 20, 30]}]),
    ("yolo", "yolo_avif", {}, 1, [{"label": "ship", "box": [24, 18, 40, 30]}]),
    ("yolo", "yolo_float_class", {"split": "train"}, 1, [{"label": "buoy", "box": [24, 18, 40, 30]}]),
    ("yolo", "yolo_no_test", {"split": "train"}, 1, [{"label": "ship", "box": [24, 18, 40, 30]}]),
  ],
)  # fmt: skip
def test_boxes_are_read(convert, format, src, options, num_examples, first):
  if "images" in options:
    options = {**options, "images": str(REPORTS / options["images"])}
  source, _ = convert(format, REPORTS / src, **options)
  assert len(source) == num_examples and source[0]["objects"] == first
  assert checks.findings({"path": source.path, "task": "detect"}) == []


def test_the_name_of_lvis_is_the_end_of_its_address(convert):
  src = REPORTS / "coco_lvis" / "lvis_v1_val.json"
  source, said = convert("coco", src, images=str(src.parent / "val2017"))
  assert [pathlib.Path(r["image"]).name for r in source] == ["000000000139.jpg", "000000000140.jpg"]
  (item,) = source[0]["objects"]
  assert (item["label"], item["box"]) == ("ship", [5, 6, 20, 30]) and "mask" in item
  assert counts(said) == {
    "pictures found by the end of their path": 2,
    "pictures on which not every object of a class is marked (LVIS)": 2,
  }


@pytest.mark.parametrize("name, num_kept, num_all", [("annotations/instances_default.json", 0, 3), ("mixed.json", 1, 3)])  # fmt: skip
def test_masks_of_crowds_can_be_kept_as_objects(convert, name, num_kept, num_all):
  src = REPORTS / "coco_crowd_masks" / name
  images = str(REPORTS / "coco_crowd_masks" / "images")
  hint = f"{num_all - num_kept} of {num_all} masks are run lengths with iscrowd 1; .*--crowd keep"
  if num_kept:
    source, said = convert("coco", src, images=images)
    assert sum(len(r["objects"]) for r in source) == num_kept
  else:
    with pytest.raises(errors.UserError, match=r"nothing to import \(.*" + hint):
      convert("coco", src, images=images)
  source, said = convert("coco", src, "kept.jsonl", images=images, crowd="keep")
  found = [o for r in source for o in r["objects"]]
  assert len(found) == num_all and all("mask" in o for o in found) and not counts(said)


def test_regions_are_objects_with_their_sentence(convert, processor):
  source, said = convert("coco", REPORTS / "coco_region_captions" / "train.json",
                         images=str(REPORTS / "coco_region_captions" / "images"))  # fmt: skip
  assert [o["sentences"] for r in source for o in r["objects"]] == [
    ["red box near the pier"], ["blue sail"], ["grey buoy"]
  ]  # fmt: skip
  assert source[0]["objects"][0]["box"] == [5, 6, 20, 30] and "prefix" not in source[0]
  config = {"path": source.path, "task": "refer", "prefix": "detect {sentence}"}
  (batch, (row,)), _ = pipeline.eval_batches(config, processor, batch_size=1, text_len=64)
  assert row["prefix"] == "detect red box near the pier" and row["suffix"].count("<") == 4


def test_an_empty_caption_changes_nothing(convert):
  source, _ = convert("coco", REPORTS / "coco_region_captions" / "empty_attr.json",
                      images=str(REPORTS / "coco_region_captions" / "images"))  # fmt: skip
  assert [o["box"] for o in source[0]["objects"]] == [[5, 6, 20, 30], [30, 6, 50, 30]]
  assert all("sentences" not in o for o in source[0]["objects"])


def test_four_corners_of_an_oriented_box_are_a_polygon(convert):
  source, _ = convert("yolo", REPORTS / "yolo_obb", split="train")
  (item,) = source[0]["objects"]
  assert "mask" in item and item["box"] == pytest.approx([9.6, 9.6, 38.4, 33.6])


def test_pictures_are_all_that_the_decoder_reads(convert):
  source, said = convert("folders", REPORTS / "folders_formats", prefix="what is it?")
  assert [pathlib.Path(r["image"]).name for r in source] == [
    "5.mpo", "6", "0.avif", "1.jpg", "2.jfif", "3.jp2", "4.JPG"
  ]  # fmt: skip
  assert said == "7 examples"
  assert checks.findings({"path": source.path}) == []


def test_what_archives_and_systems_leave_behind_is_counted(convert):
  source, said = convert("folders", REPORTS / "folders_zip", prefix="what is it?")
  assert [r["suffix"] for r in source] == ["buoy", "ship"]
  root = REPORTS / "folders_zip"
  assert said.splitlines()[1:] == [
    "files that systems and archives leave behind, left out: 2"
    f" ({root / '__MACOSX'}, {root / 'ship' / 'Thumbs.db'})"
  ]
