"""`data import` and `data check`: what is said, and their options."""

import json
import pathlib
import shutil

import pytest
from PIL import Image

from paligemma_jax.cli import main
from tests import toy

REPORTS = pathlib.Path(__file__).resolve().parents[1] / "data" / "reports"


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
  (tmp_path / "t.csv").write_text('file,"question, in English",answer\nset/cat/1.png,q,a\n')
  columns = "image=file,prefix=question,, in English,suffix=answer"
  run("data", "import", "csv", tmp_path / "t.csv", tmp_path / "out.jsonl", "--columns", columns)
  want = {"image": "set/cat/1.png", "prefix": "q", "suffix": "a"}
  assert json.loads((tmp_path / "out.jsonl").read_text()) == want


@pytest.mark.parametrize(
  "argv, words",
  [
    (["coc", "a", "b.jsonl"], '"coc" is unknown; did you mean "coco"?'),
    (["yolo", "nowhere", "b.jsonl"], "nowhere: no such file or folder"),
    (["yolo", ".", "b.json"], "b.json: name a .jsonl file"),
    (["yolo", ".", "nowhere/b.jsonl"], "nowhere/b.jsonl: the folder"),
    (["yolo", ".", "b.jsonl", "--prefix", "x"], "unrecognized arguments: --prefix"),
    (["folders", ".", "b.jsonl"], "--prefix"),
    (["csv", ".", "b.jsonl", "--columns", "imgae=file"], '--columns "imgae=file"; wanted'),
    (["coco", ".", "b.jsonl"], "a folder; give the file in it"),
  ],
)
def test_import_refuses_in_one_line(refuse, tmp_path, monkeypatch, argv, words):
  monkeypatch.chdir(tmp_path)
  assert words in refuse("data", "import", *argv)
  assert not list(tmp_path.iterdir())


CONFIG = """
from paligemma_jax.transfers import common


def get_config():
  c = common.base(res=0, text_len=32)
  c.model.init = "{ckpt}"
  c.train.data.questions = common.jsonl("{folder}/train.jsonl")
  c.train.data.cats = common.jsonl("{folder}/cats.jsonl", task="segment")
  c.evals.val = common.evaluate(common.jsonl("{folder}/val.jsonl"), "exact_match")
  return c
"""
BOX, MASK = [5, 3, 20, 9], {"size": [30, 40], "counts": [303, 6, 891]}
PLANTED = {  # line of a file -> what is wrong with it, what is said about it
  "train.jsonl:3": ('{"image": "0.png", "pre', "broken JSON"),
  "train.jsonl:4": ({"image": None}, '"image" is null'),
  "train.jsonl:5": ({"image": "lost.png"}, "no image file"),
  "train.jsonl:6": ({"image": "cut.jpg"}, "cut.jpg: the image is cut off"),
  "train.jsonl:7": ({"image": "text.png"}, "text.png: not an image"),
  "train.jsonl:8": ({"suffix": ""}, '"suffix" is empty'),
  "train.jsonl:9": ({"suffix": "yes " * 40}, "text_len 32 would cut it"),
  "train.jsonl:10": ({"prefix": 3}, '"prefix" is a number'),
  "train.jsonl:11": ({"suffix": ["yes", ""]}, '"suffix"[1] is empty'),
  "train.jsonl:12": ({"id": 1}, 'the "id" 1 is that of'),
  "train.jsonl:13": ({"prefix": "first"}, "a copy of"),
  "train.jsonl:14": ({"suffix": "<loc9999>"}, "<loc9999>, which is no token"),
  "cats.jsonl:2": ({"box": [5, 3, 41, 9]}, "is outside the picture of 40 x 30"),
  "cats.jsonl:3": ({"box": [20, 3, 5, 9]}, "is [20, 3, 5, 9]; wanted"),
  "cats.jsonl:4": ({"box": [5, 3, 5, 9]}, "(the same kind in 1 more: line 4)"),
  "cats.jsonl:5": ({"mask": {"size": [9, 9], "counts": [81]}}, "mask has the size [9, 9]"),
  "cats.jsonl:6": ({"mask": {"size": [30, 40], "counts": [7]}}, "the runs cover 7 pixels"),
  "cats.jsonl:7": ({"label": None}, 'objects[0].label" is null'),
  "cats.jsonl:8": ({"label": "cat;dog"}, 'holds ";", which ends a label'),
  "cats.jsonl:9": ({"image": 4}, "objects refer to picture 4"),
  "val.jsonl:2": ({"prefix": "first"}, "which is trained on"),
}  # fmt: skip


@pytest.fixture
def planted(tmp_path, ckpt, pictures):
  """A config with three sources; each line of `PLANTED` has its defect, the others have none."""
  noise = Image.effect_noise((64, 64), 50)
  noise.save(tmp_path / "cut.jpg")
  (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
  (tmp_path / "text.png").write_text("<html>404</html>")
  shutil.copy(pictures[0], tmp_path / "0.png")
  Image.open(pictures[0]).save(tmp_path / "same.bmp")
  for name, count in (("train", 15), ("cats", 10), ("val", 3)):
    lines = []
    for number in range(1, count + 1):
      changes, _ = PLANTED.get(f"{name}.jsonl:{number}", ({}, ""))
      if isinstance(changes, str):
        lines.append(changes)
        continue
      line = {"image": "same.bmp" if name == "val" else "0.png", "id": number}
      if name == "cats":
        line["objects"] = [{"label": f"cat {number}", "box": BOX, "mask": MASK, **changes}]
      else:
        first = name == "train" and number == 1
        line |= {"prefix": "first" if first else f"{name} {number}", "suffix": "yes", **changes}
      lines.append(json.dumps(line))
    (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
  (tmp_path / "config.py").write_text(CONFIG.format(ckpt=ckpt, folder=tmp_path))
  return tmp_path


def test_check_finds_every_planted_defect(planted, capsys):
  out = planted / "check.html"
  argv = ["data", "check", "--config", str(planted / "config.py"), "--out", str(out)]
  assert main.main(argv) == 2
  said = capsys.readouterr()
  defects = said.out.partition("defects:\n")[2].partition("\n\n")[0].splitlines()
  assert len(PLANTED) > 15
  for place, (_, words) in PLANTED.items():
    file, number = place.split(":")
    (line,) = [x for x in defects if words in x and file in x]
    assert f"/{place}: " in line or f"line {number})" in line, (place, line)
  found = sum(int(x.split()[0]) for x in defects)
  assert found == len(PLANTED)
  page = out.read_text()
  assert all(place in page for place in PLANTED)


def test_check_names_evaluations_that_have_nothing_to_compare_with(planted, capsys):
  argv = [
    "data",
    "check",
    "--config",
    str(planted / "config.py"),
    "--config.evals.val.metric=boxes",
  ]
  assert main.main(argv) == 2
  _, _, said = capsys.readouterr().out.partition("evaluations that cannot be scored:\n")
  assert said.startswith("evals.val: no objects to compare with in 3 examples; ")


@pytest.fixture
def tokenizer(tmp_path):
  """Path of the toy tokenizer's file."""
  (tmp_path / "toy.model").write_bytes(toy.tokenizer().to_files()["tokenizer.model"])
  return tmp_path / "toy.model"


def test_check_of_a_lone_file_that_is_clean(run, write_jsonl, pictures, tokenizer, tmp_path):
  path = write_jsonl(
    "a.jsonl", [{"image": p, "prefix": "caption en", "suffix": "x"} for p in pictures]
  )
  said = run("data", "check", path, "--tokenizer", tokenizer, "--out", tmp_path / "a.html")
  head, row, _, total, _, name = said.splitlines()
  assert total == "no defects found in 2 examples, 2 pictures, 0 objects"
  assert row.split()[:4] == ["data", "2", "2", "0"] and head.split()[4] == "longest"
  assert name == str(tmp_path / "a.html") and "no defects" in (tmp_path / "a.html").read_text()
  assert "no defects found" in run("data", "check", path)  # without a tokenizer, too


def test_check_of_several_files_compares_them(run, write_jsonl, pictures, capsys):
  records = [{"image": p, "prefix": "caption en", "suffix": "x"} for p in pictures]
  files = [write_jsonl(f"{k}.jsonl", [record]) for k, record in enumerate(records)]
  said = run("data", "check", *files, files[0])  # named twice is once
  assert "no defects found in 2 examples, 2 pictures, 0 objects" in said
  assert [row.split()[0] for row in said.splitlines()[1:3]] == ["data1", "data2"]
  assert main.main(["data", "check", *files, write_jsonl("again.jsonl", records)]) == 2
  said = capsys.readouterr().out
  assert f"again.jsonl:1: a copy of {files[0]}:1" in said and "no defects" not in said


def test_check_needs_no_model(run, write_jsonl, pictures, tokenizer):
  path = write_jsonl("a.jsonl", [{"image": pictures[0], "prefix": "p", "suffix": "a cat"}])
  config = f"transfers/forkme.py:train={path},tokenizer={tokenizer},text_len=9"
  said = run("data", "check", "--config", config)
  assert "no defects found in 1 example, 1 picture, 0 objects" in said
  assert said.splitlines()[1].split()[5] == "9"  # text_len, which lengths are compared with
  assert "no defects found" in run("data", "check", "--config", f"transfers/forkme.py:train={path}")


def test_check_counts_boxes_that_stand_in_the_answers(run, write_jsonl, pictures):
  boxes = "<loc0000><loc0000><loc0512><loc0512> cat ; <loc0100><loc0000><loc0512><loc0512> dog"
  record = {"image": pictures[0], "prefix": "detect cat ; dog", "suffix": boxes}
  said = run("data", "check", write_jsonl("a.jsonl", [record]))
  assert "no defects found in 1 example, 1 picture, 2 objects" in said


def test_what_is_only_worth_a_look_is_no_error(run, write_jsonl, pictures):
  records = [{"image": pictures[0], "prefix": "p", "suffix": s} for s in "xy"]
  said = run("data", "check", write_jsonl("a.jsonl", records))
  assert "worth a look:\n1 × " in said and "no defects found in 2 examples" in said


@pytest.mark.parametrize(
  "argv, words",
  [
    ([], "give --config FILE.py or a FILE.jsonl"),
    (["a.jsonl", "--config", "c.py"], "give --config FILE.py or a FILE.jsonl"),
    (["a.jsonl", "--config.train.lr=1"], "--config.train.lr is for --config"),
    (["--config", "c.py", "--text-len", "8"], "set --config.input.text_len"),
    (["a.jsonl", "--text-len", "-1"], "--text-len is -1"),
    (["a.jsonl", "--text-len", "8"], "no tokenizer"),
    (["a.jsonl", "--out", "a.png"], "name an .html file"),
    (["a.jsonl", "--out", "nowhere/a.html"], "the folder"),
    (["lost.jsonl"], "lost.jsonl: No such file or directory; correct the path\n"),
    (["."], "a folder; correct the path to the JSONL file in it"),
  ],
)
def test_check_refuses_in_one_line(refuse, write_jsonl, tmp_path, monkeypatch, argv, words):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv("PALIGEMMA_TOKENIZER", raising=False)
  write_jsonl("a.jsonl", [{"image": "p.png", "prefix": "p", "suffix": "s"}])
  assert words in refuse("data", "check", *argv)


def test_a_lone_file_is_not_told_to_set_a_config(tmp_path, capsys):
  file = tmp_path / "lone.jsonl"
  file.write_text('{"image": "a.png", "prefx": "x", "suffix": "y"}\n')
  assert main.main(["data", "check", str(file)]) == 2
  said = "".join(capsys.readouterr())
  assert "Rename the key\n" in said and "--config" not in said


@pytest.mark.parity
def test_check_of_parquet_whose_pictures_are_plain_structs(run, tmp_path, monkeypatch):
  monkeypatch.chdir(REPORTS / "hf_parquet")
  (tmp_path / "toy.model").write_bytes(toy.tokenizer().to_files()["tokenizer.model"])
  config = f"cfg.py:path=plain_struct.parquet,tokenizer={tmp_path / 'toy.model'}"
  said = run("data", "check", "--config", config)
  assert "plain_struct.parquet" in said and "worth a look" not in said
