"""Files of a run in a folder and in a bucket: whole, in parts, and what a user is told."""

import pathlib
import sys

import pytest

from paligemma_jax import errors, storage
from tests import gcs


@pytest.fixture(params=["here", "gs"])
def folder(request, tmp_path):
  """A folder of this machine, or of a bucket."""
  return storage.path(tmp_path if request.param == "here" else f"gs://{gcs.bucket()}/a/b")


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def test_a_file_is_put_whole_and_replaced(folder):
  for content in ("Grüße\n", b"\xff\n--b\r\n", ""):
    storage.write_whole(folder / "deep/x.txt", content)
    want = content.encode() if isinstance(content, str) else content
    assert (folder / "deep/x.txt").read_bytes() == want
  assert [p.name for p in (folder / "deep").iterdir()] == ["x.txt"]


def test_two_who_put_a_file_at_a_time_leave_it_whole(tmp_path, monkeypatch):
  target, replace = tmp_path / "x.txt", storage.os.replace

  def after_another(*paths):
    monkeypatch.setattr(storage.os, "replace", replace)
    storage.write_whole(target, "fast")
    replace(*paths)

  monkeypatch.setattr(storage.os, "replace", after_another)
  storage.write_whole(target, "slow")
  assert target.read_text() == "slow" and list(tmp_path.iterdir()) == [target]


def test_lines_come_back_in_order_over_several_runs(folder):
  assert storage.read_lines(folder / "m.jsonl") == []
  for start in (0, 2):
    lines = storage.Lines(folder / "m.jsonl")
    for i in (start, start + 1):
      lines.append(f'{{"step": {i}}}')
    lines.close()
  storage.write_whole(folder / "m-other.jsonl", "no part\n")
  assert storage.read_lines(folder / "m.jsonl") == [b'{"step": %d}' % i for i in range(4)]


def test_what_is_not_kept_is_dropped_and_a_torn_line_too(folder):
  storage.write_whole(folder / "m.jsonl", "1\n2\n")
  storage.write_whole(folder / "m-00000.jsonl", "3\n4\n")
  storage.write_whole(folder / "m-00001.jsonl", "5\n6")
  storage.keep_lines(folder / "m.jsonl", lambda line: int(line) <= 3)
  assert storage.read_lines(folder / "m.jsonl") == [b"1", b"2", b"3"]
  assert (folder / "m-00001.jsonl").read_bytes() == b""


def test_a_part_is_put_when_it_is_time_and_ends_when_it_is_large(monkeypatch):
  monkeypatch.setattr(storage, "_PART", 5)
  bucket, clock = gcs.bucket(), Clock()
  lines = storage.Lines(storage.path(f"gs://{bucket}/m.jsonl"), clock)
  lines.append("1")
  assert gcs.objects(bucket) == {}
  clock.now = 31.0
  lines.append("2")
  assert gcs.objects(bucket) == {"m-00000.jsonl": b"1\n2\n"}
  lines.append("3")
  lines.flush()  # asked to
  assert gcs.objects(bucket) == {"m-00000.jsonl": b"1\n2\n3\n"}
  lines.append("4")
  lines.close()
  assert gcs.objects(bucket) == {"m-00000.jsonl": b"1\n2\n3\n", "m-00001.jsonl": b"4\n"}
  before = gcs.generations(bucket)
  storage.Lines(storage.path(f"gs://{bucket}/m.jsonl")).close()  # nothing new: nothing is put
  assert gcs.generations(bucket) == before


def test_what_others_wrote_meanwhile_is_listed():
  bucket = gcs.bucket()
  folder = storage.path(f"gs://{bucket}/run")
  for name in ("a", "b"):
    gcs.put(bucket, f"run/{name}", b"")
    assert name in {p.name for p in folder.iterdir()}


def test_a_folder_of_a_writer_that_knows_no_stores_is_copied(folder):
  local = storage.LocalFolder(folder / "events")
  (local.path / "deep").mkdir(parents=True)
  (local.path / "deep/x").write_bytes(b"1")
  local.copy()
  assert (folder / "events/deep/x").read_bytes() == b"1"
  (local.path / "deep/x").write_bytes(b"12")
  local.close()
  assert (folder / "events/deep/x").read_bytes() == b"12"
  assert local.path.exists() == isinstance(folder, pathlib.Path)


def test_paths_of_this_machine_stay_what_they_are():
  assert storage.path("a/../b~") == pathlib.Path("a/../b~")


@pytest.mark.parametrize("place", ["s3://bucket/run", "https://host/run", "gs://", "gs:///run"])
def test_other_urls_are_refused(place):
  with pytest.raises(errors.UserError, match="must be a path of this machine or gs://BUCKET"):
    storage.path(place)


def test_a_bucket_that_is_not_there_is_named():
  gcs.bucket()
  with pytest.raises(errors.UserError, match="gs://missing: there is no such bucket; make it"):
    storage.path("gs://missing/run")


def test_without_gcsfs_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(errors.UserError, match=r"needs gcsfs .*pip install 'paligemma_jax\[gcs\]'"):
    storage.path("gs://bucket/run")
