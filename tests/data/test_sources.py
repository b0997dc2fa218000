import pickle

import pytest

from paligemma_jax import errors
from paligemma_jax.data import files, sources


def test_records_are_read_by_offset_and_know_their_line(write):
  path = write(['{"a": 1}', "", '{"a": "ü"}', "   ", '{"a": [3]}'])
  source = sources.Jsonl(path)
  assert [source[i]["a"] for i in (2, 0, 1)] == [[3], 1, "ü"]
  assert [source.place(i) for i in range(len(source))] == [f"{path}:{n}" for n in (1, 3, 5)]


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_newline(tmp_path):
  path = tmp_path / "w.jsonl"
  path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}')
  assert [r["a"] for r in sources.Jsonl(str(path))] == [1, 2]


def test_a_pickled_copy_reads_the_same_and_the_repr_is_stable(write):
  source = sources.Jsonl(write([{"a": i} for i in range(3)]))
  source[0]  # opens the file
  copy = pickle.loads(pickle.dumps(source))
  assert copy[2] == source[2] and repr(copy) == repr(source)


@pytest.mark.parametrize(
  "where, want", [("split=val", [1, 3]), ("n=2", [2]), ("ok=true", [0, 1]), ("", [0, 1, 2, 3])]
)
def test_where_keeps_some_records(write, where, want):
  records = [
    {"n": 0, "split": "train", "ok": True},
    {"n": 1, "split": "val", "ok": True},
    {"n": 2, "split": "train", "ok": False},
    {"n": 3, "split": "val"},
  ]
  assert [r["n"] for r in sources.Jsonl(write(records), where)] == want


@pytest.mark.parametrize(
  "where, message",
  [
    ("split=vall", r'keeps none of 2 examples; did you mean "val"\? Known: train, val'),
    ("splitt=val", 'none of the 2 examples has the key "splitt"'),
    ("split", "is no filter; write key=value"),
  ],
)
def test_a_filter_that_keeps_nothing_is_an_error(write, where, message):
  path = write([{"split": "train"}, {"split": "val"}])
  with pytest.raises(errors.UserError, match=message):
    sources.Jsonl(path, where)


@pytest.mark.parametrize(
  "line, message",
  [
    ('{"a": 1', r"data.jsonl:2: broken JSON, .* at column 8"),
    ('{"a": ' + "9" * 5000 + "}", r"data.jsonl:2: JSON that cannot be read \(Exceeds .*digits"),
    ('{"a": ' + "[" * 100_000, r"data.jsonl:2: JSON that cannot be read \(maximum recursion"),
    ("[1, 2]", r"data.jsonl:2: found a list, wanted an object"),
  ],
)
def test_a_broken_line_is_named(write, line, message):
  source = sources.Jsonl(write(['{"a": 0}', line]))
  with pytest.raises(errors.UserError, match=message):
    source[1]


def test_an_empty_file_is_an_error(write):
  with pytest.raises(errors.UserError, match=r"data.jsonl: no examples \(the file is empty\)"):
    sources.Jsonl(write([]))


def test_the_most_images_of_a_record_are_known(write):
  path = write([{"image": "a"}, {"image": ["a", "b", "c"]}, {"image": "a", "suffix": ["x"] * 9}])
  assert sources.Jsonl(path).max_images == 3


def test_open_source_names_the_config_key(write, tmp_path):
  with pytest.raises(errors.UserError, match="set --config.train.data.a.path=FILE.jsonl"):
    sources.open_source({"path": ""}, "train.data.a")
  with pytest.raises(errors.UserError, match="No such file.* correct --config.train.data.a.path"):
    sources.open_source({"path": str(tmp_path / "no.jsonl")}, "train.data.a")
  with pytest.raises(errors.UserError, match=r'a.kind: "json" is unknown; did you mean "jsonl"'):
    sources.open_source({"kind": "json", "path": "x"}, "a")


def test_a_changed_file_is_indexed_anew(write):
  path = write([{"a": 1}])
  assert len(sources.open_source({"path": path})) == 1
  write([{"a": 1}, {"a": 2}])
  assert len(sources.open_source({"path": path})) == 2


@pytest.mark.parametrize(
  "folder, path, want",
  [
    ("/d", "a.png", "/d/a.png"),
    ("/d", "/e/a.png", "/e/a.png"),
    ("/d", "gs://b/a.png", "gs://b/a.png"),
    ("gs://b/d", "x/a.png", "gs://b/d/x/a.png"),
  ],
)
def test_paths_are_relative_to_the_file(folder, path, want):
  assert files.join(folder, path) == want


def test_urls_are_read_through_the_file_system_layer(tmp_path):
  import fsspec

  memory = fsspec.filesystem("memory")
  memory.pipe_file("/d/data.jsonl", b'{"image": "a.png"}\n')
  memory.pipe_file("/d/a.png", b"bytes")
  source = sources.Jsonl("memory://d/data.jsonl")
  path = files.join(source.folder, source[0]["image"])
  assert source.place(0) == "memory://d/data.jsonl:1"
  assert files.read_bytes(path) == b"bytes" and files.exists(path)
  with pytest.raises(errors.UserError, match="x:1: cannot read memory://d/no.png"):
    files.read_bytes("memory://d/no.png", "x:1")


def test_pictures_inside_a_line_are_data_urls(write):
  import base64

  url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
  records = [
    {"image": url, "prefix": "data:image/png"},
    {"image": ["a.png", url], "objects": [{"label": "a", "mask": url}]},
    {"image": "data:image/png;base64,%%%"},
  ]
  one, two, broken = sources.Jsonl(write(records))
  assert one == {"image": b"\x89PNG", "prefix": "data:image/png"}
  assert two["image"] == ["a.png", b"\x89PNG"] and two["objects"][0]["mask"] == b"\x89PNG"
  assert broken["image"] == b""  # no picture; named with its line when it is decoded


def test_a_url_is_copied_once_and_again_when_it_changes():
  import fsspec

  memory = fsspec.filesystem("memory")
  memory.pipe_file("/copied/a.jsonl", b'{"a": 1}\n')
  first = files.fetched("memory://copied/a.jsonl")
  assert files.fetched("memory://copied/a.jsonl") == first and first.endswith("/a.jsonl")
  config = {"path": "memory://copied/a.jsonl"}
  assert len(sources.open_source(config)) == 1
  memory.pipe_file("/copied/a.jsonl", b'{"a": 1}\n{"a": 2}\n')
  assert len(sources.open_source(config)) == 2


def test_patterns_name_files_here_and_in_stores(tmp_path):
  import fsspec

  for name in ("b.x", "a.x", "c.y"):
    (tmp_path / name).touch()
    fsspec.filesystem("memory").touch(f"/glob/{name}")
  assert files.glob(f"{tmp_path}/*.x") == [f"{tmp_path}/a.x", f"{tmp_path}/b.x"]
  assert files.glob("memory://glob/*.x") == ["memory:///glob/a.x", "memory:///glob/b.x"]
  assert files.glob("memory://glob/c.y") == ["memory://glob/c.y"]


@pytest.mark.parametrize("url", ["memory://nowhere/a.jsonl", "nosuchstore://a/b.jsonl"])
def test_what_a_store_does_not_give_is_told(url):
  with pytest.raises(errors.UserError, match=f"{url}"):
    sources.open_source({"path": url})


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
  target = tmp_path / "new" / "a.bin"
  files.write_whole(target, b"1")
  with pytest.raises(TypeError):
    files.write_whole(target, "no bytes")
  assert target.read_bytes() == b"1" and list(target.parent.iterdir()) == [target]


def test_two_who_write_a_file_at_a_time_leave_it_whole(tmp_path):
  """Two machines that share a cache may have the same process id."""
  target = tmp_path / "a.bin"

  def pieces():
    yield b"slow "
    files.write_whole(target, b"fast")
    yield b"one"

  files.write_whole(target, pieces())
  assert target.read_bytes() == b"slow one" and list(tmp_path.iterdir()) == [target]
