"""`data import`: what is said, and its options. The formats have their own tests."""

import json

import pytest
from PIL import Image


@pytest.fixture
def folders(tmp_path):
  """A folder of pictures for each of two classes."""
  for name in ("cat", "dog"):
    (tmp_path / "set" / name).mkdir(parents=True)
    Image.new("RGB", (4, 3)).save(tmp_path / "set" / name / "1.png")
  return tmp_path / "set"


def test_import_tells_what_it_wrote(run, folders, tmp_path):
  out = tmp_path / "out.jsonl"
  said = run("data", "import", "folders", folders, out, "--prefix", "answer en what?")
  assert said == f"{out}: 2 examples\n"
  first = json.loads(out.read_text().split("\n")[0])
  assert first == {"image": "set/cat/1.png", "prefix": "answer en what?", "suffix": "cat"}


def test_import_of_csv_takes_the_names_of_its_columns(run, folders, tmp_path):
  (tmp_path / "t.csv").write_text("file,question,answer\nset/cat/1.png,q,a\n")
  columns = "image=file,prefix=question,suffix=answer"
  run("data", "import", "csv", tmp_path / "t.csv", tmp_path / "out.jsonl", "--columns", columns)
  want = {"image": "set/cat/1.png", "prefix": "q", "suffix": "a"}
  assert json.loads((tmp_path / "out.jsonl").read_text()) == want


@pytest.mark.parametrize(
  "argv, words",
  [
    (["coc", "a", "b.jsonl"], "invalid choice: 'coc'"),
    (["yolo", "nowhere", "b.jsonl"], "nowhere: no such file or folder"),
    (["yolo", ".", "b.json"], "b.json: name a .jsonl file"),
    (["yolo", ".", "nowhere/b.jsonl"], "nowhere/b.jsonl: the folder"),
    (["yolo", ".", "b.jsonl", "--prefix", "x"], "unrecognized arguments: --prefix"),
    (["folders", ".", "b.jsonl"], "--prefix"),
    (["csv", ".", "b.jsonl", "--columns", "imgae=file"], '--columns "imgae=file"; wanted'),
    (["coco", ".", "b.jsonl"], "Is a directory"),
  ],
)
def test_import_refuses_in_one_line(refuse, tmp_path, monkeypatch, argv, words):
  monkeypatch.chdir(tmp_path)
  assert words in refuse("data", "import", *argv)
  assert not list(tmp_path.iterdir())
