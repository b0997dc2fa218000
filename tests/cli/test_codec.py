"""`paligemma codec`: trained on masks of a JSONL file, then there and back."""

import json

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.processing import masks


@pytest.fixture(scope="module")
def disc():
  """A mask of 60 x 80 pixels."""
  y, x = np.mgrid[:60, :80]
  return (y - 30) ** 2 + (x - 40) ** 2 < 20**2


@pytest.fixture(scope="module")
def codec(tmp_path_factory, disc):
  """The path of a small codec that has seen one disc, as a picture and as run lengths."""
  from paligemma_jax.cli import main

  folder = tmp_path_factory.mktemp("codec")
  Image.fromarray(disc).save(folder / "disc.png")
  box = [20, 10, 61, 51]
  objects = [
    {"label": "disc", "box": box, "mask": mask} for mask in ("disc.png", masks.encode_rle(disc))
  ]
  line = {"image": "disc.png", "objects": objects}
  (folder / "masks.jsonl").write_text(json.dumps(line))
  size = ("--hidden", "4", "--embedding", "8", "--batch-size", "4", "--steps", "150")
  argv = ["codec", "train", "--data", f"{folder}/masks.jsonl", "--out", f"{folder}/codec.npz"]
  assert main.main([*argv, *size]) == 0
  return folder / "codec.npz"


def test_a_mask_comes_back_from_its_tokens(codec, disc, run, tmp_path):
  Image.fromarray(disc).save(tmp_path / "disc.png")
  encode = ("codec", "encode", "--codec", codec, "--mask", tmp_path / "disc.png")
  text = run(*encode, "--label", "disc").strip()
  assert text.startswith("<loc0188>") and text.endswith("> disc") and text.count("<seg") == 16
  back = tmp_path / "back.png"
  decode = ("codec", "decode", "--codec", codec, "--size", 60, 80, "--out", back)
  run(*decode, "--text", text)
  with Image.open(back) as picture:
    found = np.asarray(picture) > 0
  assert found.shape == disc.shape
  assert (found & disc).sum() / (found | disc).sum() > 0.8


@pytest.mark.parametrize(
  "objects, words",
  [
    (["disc"], "objects[0] needs a"),
    ({"box": [1, 2, 3, 4]}, "objects[0] needs a"),
    ([{"box": [1, 2, 3, 4], "mask": ["disc.png"]}], "objects[0] needs a"),
    ([{"box": [1, 2, 3], "mask": "disc.png"}], "objects[0] needs a"),
    ([{"box": [1, 2, 3, 400], "mask": "disc.png"}], "objects[0].box: "),
  ],
)
def test_a_line_that_holds_no_masks_is_named(disc, refuse, tmp_path, objects, words):
  Image.fromarray(disc).save(tmp_path / "disc.png")
  data = tmp_path / "masks.jsonl"
  data.write_text(json.dumps({"image": "disc.png", "objects": objects}))
  said = refuse("codec", "train", "--data", data, "--out", tmp_path / "codec.npz")
  assert f"{data}:1: {words}" in said


def test_a_box_that_lies_outside_is_refused(codec, disc, refuse, tmp_path):
  Image.fromarray(disc).save(tmp_path / "disc.png")
  encode = ("codec", "encode", "--codec", codec, "--mask", tmp_path / "disc.png")
  assert "lies outside 80 x 60 px" in refuse(*encode, "--box", 0, 0, 90, 10)
  Image.fromarray(np.zeros((4, 4), bool)).save(tmp_path / "disc.png")
  assert "nothing is inside" in refuse(*encode)
