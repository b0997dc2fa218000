"""Data sets appear whole or not at all, in TFDS's form and order."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import stores
from paligemma_jax.datasets import dataset, samples, tasks, write

NUMBERS = {"train": range(40), "test-dev": range(7)}


def features(f):
  """A number and a text."""
  return {"number": np.int64, "image": f.Text()}


def records(folder, split):
  """As many as the split has."""
  for i in NUMBERS[split]:
    yield f"key {i}", {"number": i, "image": f"né {i}"}


TASK = dataset.Task("https://example.org", "none", "", ())


def numbers(**changes):
  settings = dict(
    name="numbers/all",
    version="1.2.0",
    features=features,
    sizes=dict.fromkeys(NUMBERS),
    records=records,
  )
  return dataset.Dataset(**{**settings, **changes})


def build(data, folder, **options):
  said = []
  line = write.build(data, TASK, folder, folder / "out", say=said.append, **options)
  return line, said


def test_tfds_reads_it_in_the_order_that_its_own_builder_would_have_written(tmp_path):
  import tensorflow_datasets as tfds

  class Numbers(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
      found = tfds.features.FeaturesDict(features(tfds.features))
      return tfds.core.DatasetInfo(builder=self, features=found)

    def _split_generators(self, dl_manager):
      return {split: records(None, split) for split in NUMBERS}

    def _generate_examples(self):
      raise AssertionError("the splits are generators already")

  theirs = Numbers(data_dir=tmp_path / "theirs", file_format="array_record")
  theirs.download_and_prepare()
  line, said = build(numbers(), tmp_path)
  assert line == f"{tmp_path}/out/numbers/all/1.2.0: train 40, test-dev 7" and not said
  ours = tfds.builder_from_directory(tmp_path / "out/numbers/all/1.2.0")
  assert ours.info.splits["train"].num_examples == 40
  for split in ("train", "train[:25%]+test-dev[-3:]"):
    assert list(ours.as_data_source(split)) == list(theirs.as_data_source(split))


def test_it_is_found_by_its_name_and_split_into_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(write, "_SHARD", 500)
  build(numbers(), tmp_path)
  shards = sorted(p.name for p in (tmp_path / "out/numbers/all/1.2.0").glob("*-train.*"))
  assert len(shards) > 3 and shards[0].startswith("numbers-train.array_record-00000-of-0000")
  found = stores.Tfds("numbers/all", "train", data_dir=str(tmp_path / "out"))
  assert sorted(r["number"] for r in found) == [*range(40)]
  assert found[0]["image"] == f"né {found[0]['number']}"


def test_one_that_is_there_is_left_alone(tmp_path):
  build(numbers(), tmp_path)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
  line, _ = build(numbers(), tmp_path)
  assert line.endswith("1.2.0 is there already; remove it to build it again")
  assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_only_the_splits_that_are_asked_for(tmp_path):
  assert build(numbers(), tmp_path, splits=("test-dev",))[0].endswith(": test-dev 7")
  with pytest.raises(errors.UserError, match='no split "trian"; did you mean "train"'):
    build(numbers(name="other"), tmp_path, splits=("trian",))


def test_counts_are_compared_with_the_published_ones(tmp_path):
  data = numbers(sizes={"train": 41, "test-dev": 7})
  with pytest.raises(errors.UserError, match="train has 40 records, 41 are published"):
    build(data, tmp_path, strict=True)
  assert not (tmp_path / "out").exists()
  assert build(data, tmp_path)[1] == [
    "warning: numbers/all: train has 40 records, 41 are published"
  ]


def fails(folder, split):
  yield from records(folder, split)
  yield "key 3", {"number": 3, "image": ""}


def lacks(folder, split):
  yield from records(folder, split)
  folder.place = "a.json: rows[2]"
  yield "key", {"number": {}["numbre"], "image": ""}


def empty(folder, split):
  yield from ()


@pytest.mark.parametrize(
  "broken, words",
  [
    (fails, "train: two records have the key key 3"),
    (lacks, r"a\.json: rows\[2\]: not as it should be \(no key 'numbre'\)"),
    (empty, "no records of train"),
  ],
)
def test_what_is_wrong_leaves_nothing_behind(tmp_path, broken, words):
  with pytest.raises(errors.UserError, match=words):
    build(numbers(records=broken), tmp_path)
  assert not (tmp_path / "out").exists()


def test_a_split_without_its_file_is_left_out_where_splits_are_published_apart(tmp_path):
  def some(folder, split):
    if split == "train":
      folder.path("train.json")
    yield from records(folder, split)

  with pytest.raises(errors.UserError, match="train.json: no such file"):
    build(numbers(records=some), tmp_path)
  line, said = build(numbers(records=some, is_partial=True), tmp_path)
  assert line.endswith(": test-dev 7")
  assert len(said) == 1 and said[0].startswith(
    "numbers/all: without their files, left out: train ("
  )
  assert not list((tmp_path / "out").rglob("*.spool"))


def test_a_split_without_any_of_its_pictures_is_left_out_where_some_may_be_missing(tmp_path):
  def pictured(folder, split):
    for key, record in records(folder, split):
      yield key, {**record, "image": folder.picture(f"{split}/{key}.png")}

  def one(f):
    return {"number": np.int64, "image": f.Image(encoding_format="png")}

  (tmp_path / "train").mkdir()
  for key, _ in records(None, "train"):
    Image.new("RGB", (2, 2)).save(tmp_path / f"train/{key}.png")
  data = numbers(records=pictured, features=one, lenient=("test-dev",))
  with pytest.raises(errors.UserError, match="none of its 7 records has its picture .*key 0.png"):
    build(data, tmp_path, splits=["test-dev"])
  line, said = build(data, tmp_path)
  assert (
    line.endswith(": train 40") and "without their files, left out: test-dev (none of" in said[0]
  )
  assert not list((tmp_path / "out").rglob("*.spool"))


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr(write.shutil, "disk_usage", lambda path: type("Disk", (), {"free": 10}))
  with pytest.raises(errors.UserError, match="needs 0.0 GB .train 0.0, test-dev 0.0., .* has 0.0"):
    build(numbers(), tmp_path)


def test_two_processes_do_not_build_the_same(tmp_path):
  target = tmp_path / "out/numbers/all"
  target.mkdir(parents=True)
  with write._own(target / ".1.2.0.building"):
    with pytest.raises(errors.UserError, match="another process is building here"):
      build(numbers(), tmp_path)


KILLED = """
import os, signal, sys
from paligemma_jax.datasets import tasks, write
task = tasks.module("vqav2").TASK
data, encode, seen = task.datasets[0], write._read, []

def read(value):
  if isinstance(value, dict):
    seen.append(1)
    if len(seen) > int(sys.argv[3]):
      os.kill(os.getpid(), signal.SIGKILL)
  return encode(value)

write._read = read
write.build(data, task, sys.argv[1], sys.argv[2], splits=("train",))
"""


def killed_and_built_again(folder, after):
  """The question ids of the train split after a build that was killed so far and a second one."""
  argv = [sys.executable, "-c", KILLED, folder / "raw", folder / "out", after]
  found = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
  assert found.returncode == -signal.SIGKILL, found.stderr
  left = os.listdir(folder / "out/vqa")
  assert left == [".3.0.0.building"] and os.listdir(folder / "out/vqa/.3.0.0.building")
  with pytest.raises(errors.UserError, match="vqa"):
    stores.Tfds("vqa", "train", data_dir=str(folder / "out"))  # not there yet
  task = tasks.module("vqav2").TASK
  write.build(task.datasets[0], task, folder / "raw", folder / "out", splits=("train",))
  assert os.listdir(folder / "out/vqa") == ["3.0.0"]
  return [r["question_id"] for r in stores.Tfds("vqa", "train", data_dir=str(folder / "out"))]


def test_a_killed_build_leaves_no_data_set_and_the_next_one_is_complete(tmp_path):
  samples.write("vqav2", tmp_path / "raw")
  found = killed_and_built_again(tmp_path, after=5)
  assert len(found) == len(set(found)) == 24


@pytest.mark.slow
def test_a_killed_build_of_100_000_records(tmp_path):
  count = 100_000
  samples.write("vqav2", tmp_path / "raw")
  replicate(tmp_path / "raw", "train2014", count)
  found = killed_and_built_again(tmp_path, after=count // 2)
  assert sorted(found) == [*range(count)]


def replicate(folder: pathlib.Path, year: str, count: int) -> None:
  """The questions and annotations of a split over and over, under new question ids."""
  import itertools
  import json

  for name, key in (
    ("OpenEnded_mscoco_{}_questions", "questions"),
    ("mscoco_{}_annotations", "annotations"),
  ):
    path = folder / f"v2_{name.format(year)}.json"
    whole = json.loads(path.read_text())
    rows = sorted(whole[key], key=lambda row: row["question_id"])
    ids = zip(range(count), itertools.cycle(rows))
    whole[key] = [{**row, "question_id": i} for i, row in ids]
    path.write_text(json.dumps(whole))
