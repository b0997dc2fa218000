"""`paligemma generate`: one answer in all its forms, and a file of them."""

import base64
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import structs
from paligemma_jax.cli import answers
from paligemma_jax.processing import masks
from paligemma_jax.train import codec as codec_lib

# One sampler for all: every other one would be compiled anew.
FEW = ("--max-new-tokens", "4", "--sampler", "temperature:2")


@pytest.fixture
def one(ckpt, pictures):
  return ("generate", "--ckpt", ckpt, "--image", pictures[0], "--prompt", "caption en", *FEW)


def test_text_json_and_stream_say_the_same_and_follow_the_seed(run, one):
  text = run(*one)
  said = json.loads(run(*one, "--json"))
  assert text == said["text"] + "\n" == run(*one, "--stream")
  assert 1 <= len(said["tokens"]) <= 4 and said["logprob"] < 0
  assert set(said) >= {"text", "tokens", "logprob"}
  assert json.loads(run(*one, "--json", "--seed", 1))["tokens"] != said["tokens"]


def test_a_constrained_answer_holds_boxes_alone(run, one):
  detect = [*one[:5], "--prompt", "detect cat ; dog", "--max-new-tokens", "24", *one[-2:]]
  detect += ["--constrain", "detect"]
  said = json.loads(run(*detect, "--json"))
  assert {b["label"] for b in said.get("boxes", [])} <= {"cat", "dog"}
  assert len(said.get("boxes", [])) == said["text"].count("<loc") / 4
  assert all(0 <= b["score"] <= 1 for b in said.get("boxes", []))
  assert run(*detect, "--stream") == said["text"] + "\n"


def test_several_pictures_make_one_prompt(run, one, pictures):
  both = json.loads(run(*one, "--image", pictures[1], "--json"))
  assert both["logprob"] != json.loads(run(*one, "--json"))["logprob"]


def test_draw_writes_a_picture_of_the_same_size(run, one, tmp_path):
  run(*one, "--draw", tmp_path / "out.png")
  with Image.open(tmp_path / "out.png") as drawn:
    assert drawn.size == (40, 30)
  assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


@pytest.fixture(scope="module")
def codec():
  params = codec_lib.init(__import__("jax").random.key(0), hidden=2, embedding=8, codes=128)
  return {name: np.asarray(x) for name, x in params.items()}


def test_boxes_and_masks_are_in_pixels_of_the_picture(codec, tmp_path):
  # y0 x0 y1 x1 in 1/1023 of 100 x 200 pixels: the right half, without a mask and with one.
  half = "<loc0000><loc0512><loc1023><loc1023>"
  text = f"{half} cat ; {half}{'<seg005>' * 16} dog"
  tokens, at = np.array([[7, 8, 1, 0]]), text.index(" cat")
  spans = [[(0, at), (at, len(text))]]  # two tokens that are no real ones
  output = structs.Output([text], tokens, np.array([[-1.0, -0.5, -0.25, 0.0]]), spans)
  answer = answers.answers(output, [(100, 200)], codec)[0]
  said = json.loads(json.dumps(answers.to_json(answer)))
  assert said["tokens"] == [7, 8, 1] and said["logprob"] == -1.75
  assert [b["label"] for b in said["boxes"]] == ["cat", "dog"]
  np.testing.assert_allclose([b["score"] for b in said["boxes"]], np.exp(-0.5))
  np.testing.assert_allclose(said["boxes"][0]["box"], [512 / 1023 * 200, 0, 200, 100])
  assert said["masks"][0] is None and said["masks"][1]["size"] == [100, 200]
  assert not masks.decode_rle(said["masks"][1])[:, :100].any()
  answers.save_drawing(str(tmp_path / "x.png"), np.zeros((100, 200, 3), np.uint8), answer)
  assert np.asarray(Image.open(tmp_path / "x.png")).any()


def test_an_answer_without_objects_has_no_boxes():
  output = structs.Output(["a cat"], np.array([[5, 1]]), np.array([[-1.0, -1.0]]), [[(0, 5)]])
  answer = answers.answers(output, [(10, 10)], None)[0]
  assert answers.to_json(answer) == {"text": "a cat", "tokens": [5, 1], "logprob": -2.0}


@pytest.fixture
def questions(write_jsonl, pictures):
  prefixes = ["caption en", "detect cat", "answer en what colour?", "caption en", "segment cat"]
  records = [{"image": pictures[i % 2], "prefix": p, "id": i} for i, p in enumerate(prefixes)]
  return write_jsonl("questions.jsonl", records)


@pytest.fixture
def many(ckpt, questions):
  return ("generate", "--ckpt", ckpt, "--input", questions, "--text-len", "32", *FEW)


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_answered_in_order_whatever_the_batch_size(run, many, tmp_path, one):
  for size in (2, 3):
    run(*many, "--output", tmp_path / f"{size}.jsonl", "--batch-size", size)
  two, three = rows_of(tmp_path / "2.jsonl"), rows_of(tmp_path / "3.jsonl")
  assert [r["id"] for r in two] == [0, 1, 2, 3, 4]
  assert [(r["prefix"], r["tokens"]) for r in two] == [(r["prefix"], r["tokens"]) for r in three]
  assert two[0]["tokens"] == json.loads(run(*one, "--json"))["tokens"]

  # Killed while it wrote the fourth line, then started again.
  out = tmp_path / "2.jsonl"
  lines = out.read_bytes().splitlines(keepends=True)
  out.write_bytes(b"".join(lines[:3]) + lines[3][:10])
  assert "2 answers" in run(*many, "--output", out, "--batch-size", "2")
  assert rows_of(out) == two
  assert "all 5 answers are there" in run(*many, "--output", out)


def test_pictures_inside_the_lines_are_answered_alike(run, many, write_jsonl, pictures, tmp_path):
  data = base64.b64encode(pathlib.Path(pictures[0]).read_bytes()).decode()
  rows = []
  for image in (pictures[0], f"data:image/png;base64,{data}"):
    path = write_jsonl("some.jsonl", [{"image": image, "prefix": "caption en"}] * 2)
    options = [path if o == many[4] else o for o in many]
    run(*options, "--output", tmp_path / f"{len(rows)}.jsonl")
    rows.append(rows_of(tmp_path / f"{len(rows)}.jsonl"))
  assert [r["tokens"] for r in rows[0]] == [r["tokens"] for r in rows[1]]
  assert rows[1][0]["image"] == f"data:;base64,{data}"
  assert "all 2 answers are there" in run(*options, "--output", tmp_path / "1.jsonl")


@pytest.mark.parametrize(
  "more, prompts",
  [
    ((), ["detect cat ; dog", "detect cat", "caption en"]),
    (("--prompt", "caption en"), ["caption en"] * 3),
    (("--prompt", "segment {label}"), ["segment cat ; dog", "segment cat", "segment none"]),
    (("--prompt", "answer en what is {id}?"), [f"answer en what is {i}?" for i in range(3)]),
  ],
)
def test_lines_with_objects_and_one_prompt_for_all(
  run, refuse, many, write_jsonl, pictures, tmp_path, more, prompts
):
  cat, dog = ({"label": label, "box": [0, 0, 9, 9]} for label in ("cat", "dog"))
  lines = [{"objects": [cat, dog, cat]}, {"objects": [cat]}]
  lines += [{"objects": [], "label": "none", "prefix": "caption en"}]
  path = write_jsonl(
    "objects.jsonl", [{"image": pictures[0], "id": i} | o for i, o in enumerate(lines)]
  )
  options = [path if o == many[4] else o for o in many]
  out = tmp_path / "answers.jsonl"
  run(*options, *more, "--output", out)
  rows = rows_of(out)
  assert [row["prefix"] for row in rows] == prompts
  assert [row["objects"] for row in rows] == [line["objects"] for line in lines]

  out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:2]))
  assert "1 answers" in run(*options, *more, "--output", out)
  assert rows_of(out) == rows
  other = refuse(*options, "--prompt", "caption de", "--output", out)
  assert 'answers.jsonl:1: not an answer to "caption de" of ' in other


@pytest.mark.parametrize(
  "line, prompt, words",
  [
    ({"objects": []}, None, 'no key "prefix", and no objects to detect (found: image, objects)'),
    ({"objects": ["cat"]}, None, '"objects" is no list'),
    ({"objects": [{"box": [0, 0, 1, 1]}]}, None, 'no key "label"'),
    ({"prefix": "x"}, "what is {colour}?", 'no key "colour"'),
    ({"prefix": "x"}, "what {", '--prompt: "what {" is no template'),
  ],
)
def test_lines_that_cannot_be_asked(
  refuse, many, write_jsonl, pictures, tmp_path, line, prompt, words
):
  path = write_jsonl("bad.jsonl", [{"image": pictures[0]} | line])
  more = () if prompt is None else ("--prompt", prompt)
  options = [path if o == many[4] else o for o in many]
  said = refuse(*options, *more, "--output", tmp_path / "out.jsonl")
  assert words in said and not (tmp_path / "out.jsonl").exists()


def test_answers_to_something_else_are_not_continued(refuse, many, tmp_path):
  out = tmp_path / "out.jsonl"
  out.write_text('{"image": "other.png", "prefix": "x", "text": "y"}\n')
  assert "out.jsonl:1: not an answer to" in refuse(*many, "--output", out)
  assert len(out.read_text().splitlines()) == 1


@pytest.mark.parametrize(
  "more, words",
  [
    (["--stream", "--json"], "--stream prints words only"),
    (["--input", "x.jsonl"], "--input takes pictures from its lines; leave out --image"),
    (["--output", "x.jsonl"], "leave out --image"),
    (["--draw", "out.txt"], "--draw out.txt: write to a .png"),
    (["--draw", "no/such/out.png"], "--draw no/such/out.png: the folder"),
    (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
    (["--sampler", "gredy"], "gredy"),
    (["--constrain", "detct"], 'did you mean "detect"'),
    (["--constrain", "detect"], 'prompt "caption en" is not "detect LABEL ; LABEL"'),
    (["--stream", "--sampler", "beam:3"], "cannot stream"),
    (["--codec", "no.npz"], "no.npz: no such file"),
    (["--tokenizer", "no.model"], "no.model"),
  ],
)
def test_options_that_cannot_be_are_told(refuse, one, more, words):
  assert words in refuse(*one, *more)
