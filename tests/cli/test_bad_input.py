"""Every mistake of a user is one line and status 2, and nothing is written."""

import json
import pathlib
import re
import shutil

import pytest

from paligemma_jax.cli import main
from tests import golden, toy

REPORTS = pathlib.Path(__file__).parent.parent / "data/reports/truncated_pictures"


@pytest.fixture
def examples(write_jsonl, pictures):
  """examples(line 17) -> path of a JSONL file whose line 17 is the one given."""

  def write(line=None, **changes):
    good = {"image": pictures[0], "prefix": "caption en", "suffix": "a cat"}
    records = [dict(good) for _ in range(20)]
    records[16] = (good | changes) if line is None else line
    return write_jsonl("data.jsonl", records)

  return write


@pytest.fixture
def train(ckpt, tmp_path, refuse):
  """train(data, …) -> what `paligemma train` says against it; nothing may be written."""

  def call(data, *more, args="", init=None):
    config = f"transfers/forkme.py:train={data},init={init or ckpt}{args}"
    workdir = tmp_path / "workdir"
    said = refuse("train", "--config", config, "--workdir", workdir, *more)
    assert not workdir.exists() or not any(workdir.iterdir())
    return said

  return call


def test_a_misspelt_key_is_named_with_its_line(train, examples, pictures):
  said = train(examples({"image": pictures[0], "prefix": "caption en", "sufix": "a cat"}))
  assert "data.jsonl:17: " in said and 'no key "suffix" (found: image, prefix, sufix)' in said


def test_a_torn_line(train, examples):
  assert "data.jsonl:17: broken JSON" in train(examples('{"image": "a.png", "pref'))


def test_no_such_data(train, tmp_path):
  assert "missing.jsonl: No such file" in train(tmp_path / "missing.jsonl")


def test_an_image_that_is_no_image(train, examples, tmp_path):
  (tmp_path / "fake.png").write_text("<html>404</html>")
  said = train(examples(image="fake.png"))
  assert "data.jsonl:17: " in said and "fake.png" in said


def test_an_image_that_is_not_there(train, examples):
  said = train(examples(image="lost.png"))
  assert "data.jsonl:17: " in said and "lost.png" in said


def test_a_box_outside_the_picture(train, write_jsonl, pictures):
  good = {"image": pictures[0], "objects": [{"label": "cat", "box": [1, 2, 30, 20]}]}
  bad = {"image": pictures[0], "objects": [{"label": "cat", "box": [1, 2, 400, 20]}]}
  said = train(write_jsonl("boxes.jsonl", [good] * 16 + [bad]), args=",task=detect")
  assert "boxes.jsonl:17: " in said and "400" in said and "40 x 30" in said


def test_an_evaluation_that_has_nothing_to_compare_with(train, refuse, examples, ckpt):
  data = examples()
  words = "evals.val: no objects to compare with in 20 examples; "
  assert words in train(data, "--config.evals.val.metric=boxes", args=f",val={data}")
  config = f"transfers/forkme.py:train={data},val={data},init={ckpt}"
  more = ("--ckpt", ckpt, "--evals", "val", "--config.evals.val.metric=boxes")
  assert words in refuse("eval", "--config", config, *more)


def test_suffixes_longer_than_text_len_are_counted(train, examples):
  said = train(examples(suffix="yes " * 100), args=",text_len=32")
  assert "text_len 32 would cut 1 of 20 examples" in said and "data.jsonl:17" in said


def test_a_config_key_that_does_not_exist(train, examples):
  said = train(examples(), "--config.train.lrr=1")
  words = 'paligemma: --config.train.lrr does not exist; did you mean "train.lr"? Known: train.'
  assert said.startswith(words) and said.count("\n") == 1


@pytest.mark.parametrize(
  "override, words",
  [
    ("train.recipe=ful", 'did you mean "full"'),
    ("mesh=fdsp", 'did you mean "fsdp"'),
    ("train.optimizer=adma", 'did you mean "adam"'),
    ("train.steps=many", "takes a whole number"),
  ],
)
def test_a_config_value_that_cannot_be(train, examples, override, words):
  assert words in train(examples(), f"--config.{override}")


def test_a_batch_that_does_not_divide_over_the_devices(train, examples):
  said = train(examples(), "--config.train.batch_size=12")
  assert "batch_size 12 is not divisible by 8 devices; the nearest that are: 8, 16" in said


def test_a_checkpoint_of_another_variant(train, examples):
  said = train(examples(), args=",preset=paligemma2-3b")
  assert "paligemma2-3b" in said and "paligemma-custom" in said


def test_a_checkpoint_without_its_tokenizer(train, examples, ckpt, tmp_path):
  bare = tmp_path / "bare"
  shutil.copytree(ckpt, bare, ignore=shutil.ignore_patterns("token*", "special*"))
  said = train(examples(), init=bare)
  assert "no tokenizer" in said and "$PALIGEMMA_TOKENIZER" in said


@pytest.fixture
def ask(ckpt, pictures, refuse):
  """ask(ckpt=…, image=…, …) -> what `paligemma generate` says against it."""

  def call(*more, ckpt=ckpt, image=pictures[0]):
    return refuse("generate", "--ckpt", ckpt, "--image", image, "--prompt", "caption en", *more)

  return call


def test_no_such_checkpoint(ask, refuse, tmp_path):
  assert "no.npz does not exist" in ask(ckpt=tmp_path / "no.npz")
  assert "no.npz does not exist" in refuse("inspect", tmp_path / "no.npz")
  assert "no.npz does not exist" in refuse("convert", tmp_path / "no.npz", tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 100, 0.5, -30])
def test_a_truncated_npz(ask, refuse, tmp_path, kept):
  data = golden.weights_path(golden.TAGS[0]).read_bytes()
  path = tmp_path / "cut.npz"
  path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
  assert "cut.npz" in ask(ckpt=path)
  assert "cut.npz" in refuse("convert", path, tmp_path / "out")
  assert [p.name for p in tmp_path.iterdir()] == ["cut.npz"]


@pytest.mark.parametrize("kept", [0, 100, 0.5, -30])
def test_a_truncated_folder(ask, refuse, ckpt, tmp_path, kept):
  folder = tmp_path / "cut"
  shutil.copytree(ckpt, folder)
  path = folder / "model.safetensors"
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
  assert "model.safetensors" in ask(ckpt=folder)
  assert "model.safetensors" in refuse("convert", folder, tmp_path / "out.npz")
  assert [p.name for p in tmp_path.iterdir()] == ["cut"]


def test_a_folder_without_its_weights(ask, ckpt, tmp_path):
  shutil.copytree(ckpt, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
  assert "bare" in ask(ckpt=tmp_path / "bare")


def test_a_file_that_is_no_checkpoint(ask, tmp_path):
  (tmp_path / "notes.txt").write_text("hello")
  assert "notes.txt is no checkpoint" in ask(ckpt=tmp_path / "notes.txt")


def test_pictures_that_cannot_be_read(ask, tmp_path, pictures):
  assert "lost.png" in ask(image=tmp_path / "lost.png")
  (tmp_path / "fake.png").write_text("<html>404</html>")
  assert "fake.png" in ask(image=tmp_path / "fake.png")
  (tmp_path / "cut.png").write_bytes(pathlib.Path(pictures[0]).read_bytes()[:300])
  assert "cut.png" in ask(image=tmp_path / "cut.png")
  for name in ("half.webp", "half.gif", "cut_in_header.jpg", "cut_in_pixels.jpg"):
    assert f"{name}: the image is cut off" in ask(image=REPORTS / name)
  assert "big_text.png: the texts in the PNG are too large" in ask(image=REPORTS / "big_text.png")


def test_a_tokenizer_that_is_none(ask, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(b"nonsense")
  assert "tokenizer.model" in ask("--tokenizer", tmp_path / "tokenizer.model")


def test_a_codec_that_is_none(ask, tmp_path):
  (tmp_path / "codec.npz").write_bytes(b"nonsense")
  assert "codec.npz" in ask("--codec", tmp_path / "codec.npz")


def test_a_prompt_that_is_too_long_says_by_how_much(ask):
  said = ask("--text-len", "4")
  assert "text_len" in said and "4" in said


@pytest.mark.parametrize(
  "record, words",
  [
    ({"image": "lost.png", "prefix": "caption en"}, "q.jsonl:2: "),
    ({"image": "fake.png", "prefix": "caption en"}, "fake.png: not an image"),
    ({"prefix": "caption en"}, 'q.jsonl:2: no key "image" (found: prefix)'),
    ({"image": "fake.png", "prompt": "x"}, 'q.jsonl:2: no key "prefix"'),
    ({"image": 7, "prefix": "caption en"}, 'q.jsonl:2: "image"'),
    ({"image": "fake.png", "prefix": 7}, 'q.jsonl:2: "prefix"'),
    ('{"image": ', "q.jsonl:2: broken JSON"),
  ],
)
def test_lines_of_questions(refuse, ckpt, write_jsonl, pictures, tmp_path, record, words):
  (tmp_path / "fake.png").write_text("<html>404</html>")
  path = write_jsonl("q.jsonl", [{"image": pictures[0], "prefix": "caption en"}, record])
  out = tmp_path / "answers.jsonl"
  assert words in refuse("generate", "--ckpt", ckpt, "--input", path, "--output", out)
  assert not out.exists()


@pytest.mark.parametrize(
  "record, more, words",
  [
    ({"image": "lost.png"}, (), "q.jsonl:21: no image file .*lost.png"),
    ({"image": "a\0b.png"}, (), "q.jsonl:21: no image file"),
    ({"prefix": "caption en " * 9}, ("--text-len", 16), "q.jsonl:21: the prompt has [0-9]+ tokens"),
  ],
)
def test_a_late_line_is_told_before_the_first_is_answered(
  refuse, ckpt, write_jsonl, pictures, tmp_path, record, more, words
):
  good = {"image": pictures[0], "prefix": "caption en"}
  path, out = write_jsonl("q.jsonl", [good] * 20 + [good | record]), tmp_path / "answers.jsonl"
  assert re.search(
    words, refuse("generate", "--ckpt", ckpt, "--input", path, "--output", out, *more)
  )
  assert not out.exists()


def test_destinations_that_are_taken_stay_as_they_are(refuse, ckpt, tmp_path):
  (tmp_path / "hf").mkdir()
  (tmp_path / "hf" / "notes.txt").write_text("mine")
  assert "exists already" in refuse("convert", ckpt, tmp_path / "hf")
  assert [p.name for p in (tmp_path / "hf").iterdir()] == ["notes.txt"]
  assert "npz" in refuse("convert", ckpt, tmp_path / "x.npz", "--to", "hf")


def test_codec_commands(refuse, tmp_path, write_jsonl, pictures):
  nothing = write_jsonl("plain.jsonl", [{"image": pictures[0], "prefix": "x", "suffix": "y"}])
  out = tmp_path / "codec.npz"
  assert "plain.jsonl: no masks" in refuse("codec", "train", "--data", nothing, "--out", out)
  assert "name an .npz file" in refuse("codec", "train", "--data", nothing, "--out", "codec.bin")
  decode = ("codec", "decode", "--codec", out, "--size", "4", "4", "--out", tmp_path / "m.png")
  assert "codec.npz: no such file" in refuse(*decode, "--text", "<loc0000>")
  assert [p.name for p in tmp_path.iterdir()] == ["plain.jsonl"]


def test_several_findings_are_told_at_once(ckpt, examples, tmp_path, capsys):
  data = examples({"image": "lost.png", "prefix": "caption en"})
  lines = pathlib.Path(data).read_text().splitlines()
  lines[2] = json.dumps({"image": "gone.png", "prefix": "caption en", "suffix": "x"})
  pathlib.Path(data).write_text("\n".join(lines))
  config = f"transfers/forkme.py:train={data},init={ckpt}"
  assert main.main(["train", "--config", config, "--workdir", str(tmp_path / "w")]) == 2
  said = capsys.readouterr().err
  assert "data.jsonl:3: " in said and "data.jsonl:17: " in said


def test_the_toy_checkpoint_itself_is_accepted(run, ckpt):
  assert toy.config().name in run("inspect", ckpt)
