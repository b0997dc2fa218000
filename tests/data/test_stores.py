"""Data sets of other libraries, made small and read back; nothing needs TensorFlow or a network."""

import base64
import http.server
import io
import itertools
import json
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import checks, examples, pipeline, sources, tasks
from tests import toy


def encoded(pixels) -> bytes:
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, "PNG")
  return out.getvalue()


PICTURES = [encoded(p) for p in toy.pictures()]  # the first has 40 x 30 pixels
MASK = np.zeros((30, 40), np.uint8)
MASK[3:15, 8:24] = 255
BOX = (0.1, 0.2, 0.5, 0.6)  # of TFDS: rows 3 to 15, columns 8 to 24


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
  """A data set of 6 and 3 examples with captions, objects and masks; returns the data_dir."""
  import tensorflow_datasets as tfds

  class Pets(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      f = tfds.features
      objects = {
        "bbox": f.BBoxFeature(),
        "label": f.ClassLabel(names=["cat", "dog"]),
        "mask": f.Image(encoding_format="png", shape=(None, None, 1)),
      }
      features = {
        "image": f.Image(encoding_format="png"),
        "question": f.Text(),
        "number": np.int32,
        "captions": f.Sequence({"text": f.Text()}),
        "kind": f.ClassLabel(names=["indoor", "outdoor"]),
        "objects": f.Sequence(objects),
      }
      return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      train = self._generate_examples(6, lambda i: i % 3)
      return {"train": train, "val": self._generate_examples(3, lambda i: 2)}

    def _generate_examples(self, count, num_objects):
      for i in range(count):
        yield i, {
          "image": io.BytesIO(PICTURES[0]), "question": f"what is {i}?", "number": i,
          "captions": [{"text": f"caption {i}"}, {"text": "a pet"}], "kind": "outdoor",
          "objects": [
            {"bbox": tfds.features.BBox(*BOX), "label": "dog", "mask": io.BytesIO(encoded(MASK))}
            for _ in range(num_objects(i))
          ],
        }  # fmt: skip

  folder = str(tmp_path_factory.mktemp("tfds"))
  Pets(data_dir=folder, file_format="array_record").download_and_prepare()
  return folder


PETS = {
  "kind": "tfds",
  "path": "pets",
  "fields": (
    ("suffix", "captions/text"),
    ("objects/box", "objects/bbox"),
    ("objects/label", "objects/label"),
    ("objects/mask", "objects/mask"),
  ),
}


def test_tfds_gives_plain_values_and_the_bytes_of_pictures(tfds_dir):
  source = sources.open_source({**PETS, "data_dir": tfds_dir})
  records = sorted(source, key=lambda r: r["number"])
  assert len(source) == 6 and source.max_images == 1 and source.holds_pictures
  assert source.place(2) == "pets train:2"
  two = records[2]
  assert (two["question"], two["number"], two["kind"]) == ("what is 2?", 2, "outdoor")
  assert two["suffix"] == ["caption 2", "a pet"] and records[0]["objects"] == []
  np.testing.assert_array_equal(Image.open(io.BytesIO(two["image"])), toy.pictures()[0])
  first, _ = two["objects"]
  assert first["label"] == "dog" and first["box"] == pytest.approx([8, 3, 24, 15])
  np.testing.assert_array_equal(examples.read_mask(first["mask"], ""), MASK > 0)


def test_tfds_splits_are_cut_and_added(tfds_dir):
  config = {**PETS, "data_dir": tfds_dir}
  whole = [r["number"] for r in sources.open_source(config)]
  parts = sources.open_source({**config, "split": "train[:50%]+val"})
  assert [r["number"] for r in parts][:3] == whole[:3] and len(parts) == 6
  assert parts.content_hash() != sources.open_source(config).content_hash()


def test_tfds_is_found_by_its_folder_here_or_in_a_store(tfds_dir):
  import fsspec

  folder = f"{tfds_dir}/pets/1.0.0"
  fsspec.filesystem("memory").put(folder, "/store/pets/1.0.0", recursive=True)
  here, there = (
    sources.open_source({**PETS, "path": path, "split": "val"})
    for path in (folder, "memory://store/pets/1.0.0")
  )
  assert [r["question"] for r in here] == [r["question"] for r in there]


@pytest.mark.parametrize(
  "change, message",
  [
    ({"path": "pots"}, "pots: no data set prepared by TFDS"),
    ({"split": "trian"}, "pets trian: Unknown split 'trian'"),
    ({"fields": (("suffix", "caption"),)}, 'pets train:0: no feature "caption"; did you mean "ca'),
  ],
)
def test_what_tfds_cannot_give_is_told(tfds_dir, change, message):
  with pytest.raises(errors.UserError, match=message):
    sources.open_source({**PETS, "data_dir": tfds_dir, **change})[0]


def test_a_missing_file_of_tfds_is_named_when_it_is_opened(tfds_dir, tmp_path):
  shutil.copytree(tfds_dir, tmp_path / "copy[1]")
  (shard,) = (tmp_path / "copy[1]").rglob("*train.array_record*")
  shard.unlink()
  config = {**PETS, "data_dir": str(tmp_path / "copy[1]")}
  with pytest.raises(errors.UserError, match=f"pets train: 1 of 1 files are missing, {shard.name}"):
    sources.open_source(config)
  assert len(sources.open_source({**config, "split": "val"})) == 3  # has all of its own


def test_a_training_on_tfds_is_checked_and_read_by_workers_alike(tfds_dir, processor, codec):
  data = {
    "caption": {**PETS, "data_dir": tfds_dir, "prefix": "answer en {question}"},
    "detect": {**PETS, "data_dir": tfds_dir, "task": "detect", "prefix": "detect dog"},
  }
  checks.check({f"train.data.{k}": v for k, v in data.items()}, processor, text_len=90)
  read = []
  for workers in (0, 1):
    options = dict(batch_size=4, text_len=90, seed=0, workers=workers)
    with pipeline.train_batches(data, processor, **options) as batches:
      read.append(list(itertools.islice(batches, 3)))
  for a, b in zip(*read):
    for x, y in zip(a, b):
      np.testing.assert_array_equal(x, y)
  texts = [processor.tokenizer.decode(t) for b in read[0] for t in b.text]
  assert any(t.startswith("answer en what is") and t.endswith("a pet") for t in texts)
  assert any(t.startswith("detect dog\n<loc0102><loc0205><loc0512><loc0614> dog") for t in texts)


def test_masks_inside_tfds_records_are_encoded(tfds_dir, processor, codec):
  config = {**PETS, "data_dir": tfds_dir, "task": "segment", "split": "val[:1]"}
  options = dict(batch_size=1, text_len=128, codec=codec)
  ((_, [row]),) = pipeline.eval_batches(config, processor, **options)
  assert row["suffix"].count("<seg") == 16 * 2
  assert row["objects"][0]["mask"].sum() == (MASK > 0).sum()
  assert row["image"].startswith("data:;base64,")  # what the report shows


def test_tfds_is_read_without_tensorflow(tfds_dir):
  code = (
    "import sys; from paligemma_jax.data import sources;"
    f"print(len(sources.open_source(dict(kind='tfds', path='pets', data_dir={tfds_dir!r}))[0]));"
    "assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def write_array_record(path, records):
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def test_array_records_of_json_hold_pictures_or_paths(tmp_path, pictures):
  inside = f"data:image/png;base64,{base64.b64encode(PICTURES[0]).decode()}"
  records = [{"image": image, "prefix": "p", "suffix": "s"} for image in (inside, "p0.png")]
  for k, record in enumerate(records):
    write_array_record(tmp_path / f"{k}.array_record", [json.dumps(record).encode()])
  source = sources.open_source({"kind": "arrayrecord", "path": f"{tmp_path}/*.array_record"})
  assert [r["image"] for r in source] == [PICTURES[0], "p0.png"]
  made = [examples.make(source, i, tasks.Rules()) for i in range(2)]
  for example in made:
    np.testing.assert_array_equal(example.images[0], toy.pictures()[0])
  assert source.place(1) == f"{tmp_path}/*.array_record:1"


def test_a_prepared_record_without_answers_has_no_weight_and_is_counted(tmp_path, processor):
  shot = base64.b64encode(PICTURES[0]).decode()
  rows = [
    {"image": f"data:;base64,{shot}", "prefix": "p", "suffix": answers} for answers in ([], ["yes"])
  ]
  path = tmp_path / "a.array_record"
  write_array_record(path, [json.dumps(row).encode() for row in rows])
  config = {"train.data.a": {"kind": "arrayrecord", "path": str(path)}}
  checks.check(config, processor, text_len=16)
  options = dict(batch_size=2, text_len=16, seed=0)
  sources_ = {"a": config["train.data.a"]}
  with pipeline.train_batches(sources_, processor, max_unreadable=1, **options) as batches:
    batch = next(batches)
    assert sorted(batch.valid.tolist()) == [False, True]
    assert not batch.mask_loss[~batch.valid].any()
    assert "no answer to train on" in next(iter(batches.unreadable.values()))
  with pipeline.train_batches(sources_, processor, **options) as batches:
    with pytest.raises(errors.UserError, match="1 unreadable, more than input.max_unreadable=0"):
      next(batches)


def test_array_records_of_tf_examples_are_read_without_tensorflow(tmp_path):
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  feature = example.features.feature
  feature["jpg"].bytes_list.value.append(PICTURES[0])
  feature["caption"].bytes_list.value.extend(["ein Käfer".encode(), b"a beetle"])
  feature["key"].int64_list.value.append(7)
  feature["boxes"].float_list.value.extend([10, 5, 20, 10])
  feature["names"].bytes_list.value.append(b"beetle")
  path = tmp_path / "a.array_record"
  write_array_record(path, [example.SerializeToString()])
  fields = (("image", "jpg"), ("id", "key"), ("suffix", "caption"))
  fields += (("objects/box", "boxes"), ("objects/label", "names"))
  (record,) = sources.open_source(
    {"kind": "arrayrecord", "path": str(path), "fields": fields, "boxes": "xywh"}
  )
  assert record["image"] == PICTURES[0] and record["id"] == 7
  assert record["suffix"] == ["ein Käfer", "a beetle"]
  assert record["objects"] == [{"box": [10.0, 5.0, 30.0, 15.0], "label": "beetle"}]


def test_array_records_in_a_store_are_copied_once(tmp_path):
  import fsspec

  write_array_record(tmp_path / "a", [b'{"image": "x.png"}'] * 3)
  memory = fsspec.filesystem("memory")
  memory.put(str(tmp_path / "a"), "/records/a-00000-of-00001")
  config = {"kind": "arrayrecord", "path": "memory://records/a-*"}
  source = sources.open_source(config)
  memory.rm("/records/a-00000-of-00001")  # a worker's copy reads on without the store's index
  assert len(source) == 3 and pickle.loads(pickle.dumps(source))._paths == source._paths


def test_array_records_in_a_google_bucket_are_read_in_place(tmp_path, monkeypatch):
  write_array_record(tmp_path / "a", [b'{"image": "%d.png"}' % i for i in range(5)])
  stored, asked = {"/o/d/a": (tmp_path / "a").read_bytes()}, []

  class Bucket(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append(self.headers.get("Range"))
      path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
      data = stored[path[path.index("/o/") :]]
      start, end = 0, len(data)
      if wanted := self.headers.get("Range"):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, end - int(last))
        end = min(int(last) + 1, end) if first and last else end
      self.send_response(206 if wanted else 200)
      self.send_header("Content-Length", str(end - start))
      self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
      self.send_header("x-goog-generation", "1")
      self.end_headers()
      self.wfile.write(data[start:end])

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
  try:
    source = sources.open_source({"kind": "arrayrecord", "path": "gs://bucket/d/a"})
    assert [source[i]["image"] for i in (4, 0)] == ["4.png", "0.png"] and len(source) == 5
  finally:
    server.shutdown()
  assert asked and all(asked), "whole files were read"


@pytest.mark.parametrize("content, message", [(None, "no such files"), (b"x" * 99, "not ArrayRec")])
def test_what_is_no_array_record_is_told(tmp_path, content, message):
  if content:
    (tmp_path / "a.array_record").write_bytes(content)
  with pytest.raises(errors.UserError, match=message):
    sources.open_source({"kind": "arrayrecord", "path": f"{tmp_path}/*.array_record"})


def test_a_missing_shard_of_array_records_is_named_if_the_pattern_stands_for_it(tmp_path):
  for i in (0, 2, 3):
    write_array_record(tmp_path / f"a-{i:05}-of-00005", [b'{"image": "x.png"}'])
  write_array_record(tmp_path / "b", [b'{"image": "x.png"}'])  # says nothing of others
  message = "2 of 5 files are missing, a-00001-of-00005 the first of them; copy"
  with pytest.raises(errors.UserError, match=message):
    sources.open_source({"kind": "arrayrecord", "path": f"{tmp_path}/*"})
  some = sources.open_source({"kind": "arrayrecord", "path": f"{tmp_path}/a-0000[023]-of-*"})
  assert len(some) == 3


@pytest.fixture
def hf_dir(tmp_path):
  """A data set as `save_to_disk` leaves it; skips where `datasets` is not installed."""
  datasets = pytest.importorskip("datasets")
  objects = {
    "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
    "category": datasets.List(datasets.ClassLabel(names=["cat", "dog"])),
  }
  features = datasets.Features(
    {
      "image": datasets.Image(),
      "frames": datasets.List(datasets.Image()),
      "answers": datasets.List(datasets.Value("string")),
      "kind": datasets.ClassLabel(names=["indoor", "outdoor"]),
      "objects": objects,
    }
  )
  rows = [
    {
      "image": {"bytes": PICTURES[i], "path": None},
      "frames": [{"bytes": p, "path": None} for p in PICTURES[:2]],
      "answers": ["yes", "no"][: i + 1],
      "kind": i % 2,
      "objects": {"bbox": [[8, 3, 16, 12]] * i, "category": [1] * i},
    }
    for i in range(3)
  ]
  data = datasets.Dataset.from_list(rows, features=features)
  datasets.DatasetDict(train=data, val=data.select([1])).save_to_disk(tmp_path / "hf")
  data.to_parquet(tmp_path / "one.parquet")
  return str(tmp_path / "hf")


@pytest.mark.parity
def test_hugging_face_gives_plain_values_and_the_bytes_of_pictures(hf_dir):
  fields = (("suffix", "answers"), ("objects/box", "objects/bbox"))
  fields += (("objects/label", "objects/category"),)
  source = sources.open_source({"kind": "hf", "path": hf_dir, "fields": fields})
  copy = pickle.loads(pickle.dumps(source))
  assert len(source) == 3 and source.place(1) == f"{hf_dir} train:1"
  for record in (source[1], copy[1]):
    assert record["image"] == PICTURES[1] and record["frames"] == PICTURES[:2]
    assert record["suffix"] == ["yes", "no"] and record["kind"] == "outdoor"
    assert record["objects"] == [{"box": [8.0, 3.0, 24.0, 15.0], "label": "dog"}]
  assert source[0]["objects"] == []
  assert copy.content_hash() == source.content_hash()


@pytest.mark.parity
def test_hugging_face_splits_and_files(hf_dir):
  assert len(sources.open_source({"kind": "hf", "path": hf_dir, "split": "val"})) == 1
  one = sources.open_source({"kind": "hf", "path": hf_dir.removesuffix("hf") + "one.parquet"})
  assert len(one) == 3 and one[2]["image"] == PICTURES[2]
  with pytest.raises(errors.UserError, match='hf: no split "test"; known: train, val'):
    sources.open_source({"kind": "hf", "path": hf_dir, "split": "test"})


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "datasets", None)
  with pytest.raises(errors.UserError, match=r"pip install paligemma_jax\[hf\]"):
    sources.open_source({"kind": "hf", "path": str(tmp_path)})


@pytest.mark.parity
def test_the_hash_of_a_hugging_face_source_is_of_its_rows_not_of_its_cache(tmp_path, monkeypatch):
  datasets = pytest.importorskip("datasets")

  def hashed(name, rows):
    (tmp_path / name).mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / name / "one.parquet")
    monkeypatch.chdir(tmp_path / name)
    return sources.open_source({"kind": "hf", "path": "one.parquet"}).content_hash()

  row = lambda i, folder: {"image": {"bytes": b"x", "path": f"{folder}/a.png"}, "suffix": str(i)}
  here = [row(i, "/here") for i in range(200)]
  there = [row(i, "/there") for i in range(200)]
  assert hashed("a", here) == hashed("b", there) != hashed("c", here[::-1])
