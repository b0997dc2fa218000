"""The scenes of handwritten digits: honest splits, answers that fit the picture."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.datasets import digits
from paligemma_jax.processing import masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("digits")
  digits.build(path, seed=3, sizes={"train": 12, "val": 6})
  return path


def lines(folder, name):
  return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_no_image_of_a_digit_serves_both_splits():
  _, labels = digits.images()
  parts = digits.split(labels)
  assert sorted(np.concatenate(list(parts.values()))) == list(range(1797))
  shares = [np.bincount(labels[parts["val"]]) / np.bincount(labels)]
  np.testing.assert_allclose(shares, 0.2, atol=0.01)  # of every class


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
  digits.build(tmp_path, seed=3, sizes={"train": 12, "val": 6})
  found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
  assert len(found) == 12 + 6 + 2 * len(digits.TASKS)
  assert all((folder / p).read_bytes() == (tmp_path / p).read_bytes() for p in found)


def test_another_seed_gives_other_scenes(folder, tmp_path):
  digits.build(tmp_path, seed=4, sizes={"train": 1, "val": 1})
  assert (folder / "train/00000.png").read_bytes() != (tmp_path / "train/00000.png").read_bytes()


def test_pictures_are_small_and_answers_agree_with_each_other(folder):
  count = {r["image"]: int(r["suffix"]) for r in lines(folder, "train_count")}
  for r in lines(folder, "train_caption"):
    said = re.findall(r"\ban? (\d)", r["suffix"])
    assert len(said) == count[r["image"]]
    asked = [q["suffix"] for q in lines(folder, "train_question") if q["image"] == r["image"]]
    assert said == asked  # both in reading order
    assert max(Image.open(folder / r["image"]).size) <= 112


def test_places_name_the_quadrant_of_the_box():
  pictures, labels = digits.images()
  for seed in range(20):
    _, found = digits.scene(np.random.default_rng(seed), pictures, labels)
    for d in found:
      x0, y0, x1, y1 = d.box
      half = digits.SIDE / 2
      assert (y0 >= half, x0 >= half) == divmod(d.place, 2)
      assert (y1 > half, x1 > half) == divmod(d.place, 2)


def test_boxes_are_tight_and_digits_do_not_touch(folder):
  taken = {}
  for r in lines(folder, "train_segment"):
    (item,) = r["objects"]
    mask = masks.decode_rle(item["mask"])
    assert masks.box_of(mask) == tuple(item["box"])
    seen = taken.setdefault(r["image"], np.zeros_like(mask))
    assert not (seen & mask).any()
    seen |= mask


def test_ink_differs_from_paper(folder):
  for r in lines(folder, "train_segment"):
    picture = np.asarray(Image.open(folder / r["image"]), float)
    mask = masks.decode_rle(r["objects"][0]["mask"])
    assert np.abs(picture[mask].mean(0) - np.median(picture, axis=(0, 1))).max() > 60


def test_detect_lists_every_digit_of_a_label_and_segment_only_single_ones(folder):
  labels = {}
  for r in lines(folder, "train_question"):
    labels.setdefault(r["image"], []).append(r["suffix"])
  for r in lines(folder, "train_detect"):
    (label,) = {o["label"] for o in r["objects"]}
    assert len(r["objects"]) == labels[r["image"]].count(label)
  for r in lines(folder, "train_segment"):
    assert labels[r["image"]].count(r["objects"][0]["label"]) == 1


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(errors.UserError, match=r"pip install paligemma_jax\[demo\]"):
    digits.images()
