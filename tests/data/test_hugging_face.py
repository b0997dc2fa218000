"""What `datasets` makes of files and frames that people have, read as plain records."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import checks, examples, layout, sources, survey, tasks
from paligemma_jax.processing import image, masks
from tests import toy
from tests.data import feeding
from tests.data.test_stores import PICTURES

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.parity
REPORT = pathlib.Path(__file__).parent / "reports" / "hf_parquet"


def opened(path, **config):
  return sources.open_source({"kind": "hf", "path": str(path), **config})


@pytest.fixture
def jsonl_folder(tmp_path, monkeypatch):
  """jsonl_folder(rows) -> a folder with train.jsonl and p0.png, as `load_dataset` reads it."""
  monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

  def make(rows):
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(toy.pictures()[0]).save(folder / "p0.png")
    (folder / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder

  return make


def test_a_struct_of_bytes_and_path_is_a_picture():
  fields = (("prefix", "q"), ("suffix", "a"))
  config = {"kind": "hf", "path": str(REPORT / "plain_struct.parquet"), "fields": fields}
  assert isinstance(sources.open_source(config)[0]["image"], bytes)
  assert checks.findings(config) == []


@pytest.mark.parametrize("more", [{}, {"path": None}, {"path": "a.png", "width": 40}])
def test_a_struct_with_bytes_is_a_picture_whatever_else_it_holds(tmp_path, more):
  row = {"image": {"bytes": PICTURES[0], **more}, "prefix": "p", "suffix": "s"}
  datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
  assert opened(tmp_path / "a.parquet")[0]["image"] == PICTURES[0]


@pytest.mark.parametrize("length", [datasets.LargeList, datasets.List])
def test_lists_are_lists_with_64_bits_too_as_polars_frames_have_them(tmp_path, length):
  features = datasets.Features(
    {
      "image": length(datasets.Image()),
      "answers": length(datasets.Value("large_string")),
      "kinds": length(datasets.ClassLabel(names=["cat", "dog"])),
      "objects": length(
        {"box": length(datasets.Value("float64")), "label": datasets.Value("string")}
      ),
    }
  )
  row = {
    "image": [{"bytes": p, "path": None} for p in PICTURES[:2]],
    "answers": ["yes", "no"],
    "kinds": [1, 0],
    "objects": [{"box": [1, 2, 3, 4], "label": "cat"}],
  }
  datasets.Dataset.from_list([row], features=features).save_to_disk(tmp_path / "hf")
  (record,) = opened(tmp_path / "hf", max_images=2)
  assert record["image"] == PICTURES[:2] and record["answers"] == ["yes", "no"]
  assert record["kinds"] == ["dog", "cat"]
  assert record["objects"] == [{"box": [1, 2, 3, 4], "label": "cat"}]


def test_a_class_of_a_test_split_is_none(tmp_path):
  features = datasets.Features(
    {"kind": datasets.ClassLabel(names=["cat"]), "image": datasets.Image()}
  )
  row = {"kind": -1, "image": {"bytes": PICTURES[0], "path": None}}
  datasets.Dataset.from_list([row], features=features).save_to_disk(tmp_path / "hf")
  assert opened(tmp_path / "hf")[0]["kind"] is None


def test_masks_as_paths_and_as_run_lengths_in_one_file(jsonl_folder):
  mask = np.zeros((30, 40), bool)
  mask[3:9, 5:20] = True
  row = {"label": "cat", "box": [5, 3, 20, 9]}
  both = [{**row, "mask": "mask.png"}, {**row, "mask": masks.encode_rle(mask)}]
  folder = jsonl_folder([{"image": "p0.png", "objects": [item]} for item in both])
  Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "mask.png")
  source = opened(folder)
  for record in source:
    assert record["objects"][0]["box"] == [5, 3, 20, 9]
    got = examples.read_mask(record["objects"][0]["mask"], source.folder)
    np.testing.assert_array_equal(got, mask)
  config = {"kind": "hf", "path": str(folder), "task": "segment"}
  assert checks.findings(config) == []


def test_relative_pictures_lie_in_the_folder_of_the_source(jsonl_folder):
  folder = jsonl_folder([{"image": "p0.png", "prefix": "p", "suffix": "s"}])
  made = examples.make(opened(folder), 0, tasks.Rules())
  np.testing.assert_array_equal(made.images[0], toy.pictures()[0])


def test_a_picture_in_the_line_is_read(jsonl_folder):
  url = image.to_data_url(PICTURES[0])
  folder = jsonl_folder([{"image": url, "prefix": "p", "suffix": "s"}])
  assert opened(folder)[0]["image"] == PICTURES[0]


def test_texts_that_became_times_are_told_where_they_are_used(jsonl_folder):
  row = {"image": "p0.png", "prefix": "when?", "suffix": "2024-01-05", "seen": "2024-01-05"}
  folder = jsonl_folder([row])
  config = {"kind": "hf", "path": str(folder)}
  assert json.dumps(sources.open_source(config)[0])  # plain values, whatever they became
  (line,) = checks.findings(config)
  assert '"suffix" is of the type timestamp[s], which `datasets` makes of texts' in line
  (found,) = survey.run({"train": config}, {})
  assert [kind for kind, _, _ in found.lines()] == ["changed suffix"]
  assert checks.findings({**config, "prefix": "{seen}", "suffix": "prefix"}) != []
  assert checks.findings({**config, "suffix": "prefix"}) == []


def test_times_within_lists_and_objects_are_told_too(jsonl_folder):
  objects = [{"label": "2024-01-05", "box": [5, 3, 20, 9], "made": "2024-01-05"}]
  row = {"image": "p0.png", "prefix": "when?", "suffix": ["2024-01-05"], "objects": objects}
  config = {"kind": "hf", "path": str(jsonl_folder([row]))}
  for task, key in (("text", "suffix"), ("detect", "objects/label")):
    found = checks.findings({**config, "task": task})
    assert any(f'"{key}" is of the type timestamp[s]' in line for line in found)


FIELDS = (("objects/box", "objects/bbox"), ("objects/label", "objects/category"))


@pytest.fixture
def outside(tmp_path):
  """One Hub-like file: a box inside, one that juts out, and three that hold nothing."""
  boxes = [[5, 3, 15, 6], [30, 20, 20, 20], [50, 2, 3, 3], [5, 5, 0, 4], [5, 5, float("nan"), 4]]
  objects = {"bbox": boxes, "category": list("abcde")}
  row = {"image": {"bytes": PICTURES[0], "path": "0.png"}, "objects": objects}
  datasets.Dataset.from_list([row]).to_parquet(tmp_path / "cppe.parquet")
  return {"kind": "hf", "path": str(tmp_path / "cppe.parquet"), "fields": FIELDS, "task": "detect"}


def test_boxes_that_nobody_can_edit_are_cut_or_left_out_and_counted(outside):
  source = sources.open_source(outside)
  assert source[0]["objects"] == [
    {"box": [5, 3, 20, 9], "label": "a"}, {"box": [30, 20, 40, 30], "label": "b"}
  ]  # fmt: skip
  assert checks.findings(outside) == []
  assert [kind for kind, _ in source.mended(0)] == ["box cut"] + ["box left out"] * 3
  (found,) = survey.run({"train": outside}, {})
  assert found.lines() == []
  cut, left_out = (line for _, _, line in found.lines(notes=True))
  assert "objects[1].box [30, 20, 50, 40] is cut to the picture of 40 x 30 pixels" in cut
  assert (
    "holds nothing of the picture of 40 x 30 pixels; left out, 2 more of this record" in left_out
  )


NOTHING = [None, {"bbox": None, "category": None}, {"bbox": [[50, 2, 3, 3]], "category": ["a"]}]


def test_records_in_which_no_object_is_left_have_no_weight(tmp_path, processor):
  some = {"bbox": [None, [5, 3, 15, 6], [5, 3, None, 6]], "category": ["a", "cat", "b"]}
  picture = {"bytes": PICTURES[0], "path": "0.png"}
  rows = [{"image": picture, "objects": objects} for objects in [some, *NOTHING]]
  datasets.Dataset.from_list(rows).to_parquet(tmp_path / "T.PARQUET")
  path = str(tmp_path / "T.PARQUET")
  config = {"kind": "hf", "path": path, "fields": FIELDS, "task": "detect"}
  assert [[o["label"] for o in r["objects"]] for r in opened(**config)] == [["cat"], [], [], []]
  assert checks.findings(config) == []
  (found,) = survey.run({"train": config}, {})
  notes = {kind: count for kind, count, _ in found.lines(notes=True)}
  assert not found.lines() and notes == {"box left out": 2, "nothing left": 3}
  (batch,) = feeding.train({"x": config}, processor, 1, batch_size=4, max_unreadable=3)
  assert sorted(batch.mask_loss.any(axis=1)) == [False, False, False, True]


def test_a_box_of_five_numbers_is_none():
  made = layout.Layout((("objects/box", "bbox"),))
  with pytest.raises(
    errors.UserError, match=r"x:0: a box is four numbers, found \[\[1, 2, 3, 4, 5"
  ):
    made.record({"image": "a.png", "bbox": [[1, 2, 3, 4, 5]]}, "x:0")


def test_what_cannot_be_opened_is_said_once_with_its_cause(tmp_path, capfd):
  (tmp_path / "a.parquet").write_bytes(b"PAR1")
  with pytest.raises(
    errors.UserError, match="a.parquet train: `datasets` cannot open it .*Parquet"
  ):
    opened(tmp_path / "a.parquet")
  one = datasets.Dataset.from_list([{"image": "a.png"}])
  datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "hf")
  with pytest.raises(errors.UserError, match='hf: no split "tset"; did you mean "test"'):
    opened(tmp_path / "hf", split="tset")
  assert "Failed" not in capfd.readouterr().err


def test_boxes_of_a_picture_beside_the_file_are_cut_too(tmp_path):
  Image.fromarray(toy.pictures()[0]).save(tmp_path / "a.png")
  features = {"image": "a.png", "bbox": [[30, 20, 20, 20]], "name": ["cat"]}
  made = layout.Layout((("objects/box", "bbox"), ("objects/label", "name")), "xywh")
  record = made.record(features, "x:0", str(tmp_path))
  assert record["objects"] == [{"box": [30, 20, 40, 30], "label": "cat"}]
  shutil.rmtree(tmp_path)
  assert made.record(features, "x:0", str(tmp_path))["objects"][0]["box"] == [30, 20, 50, 40]
