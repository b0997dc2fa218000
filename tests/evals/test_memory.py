"""Rows in memory become examples as those of a file do."""

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.evals import memory
from paligemma_jax.processing import masks
from tests import toy

TALL, WIDE = toy.pictures()[3], toy.pictures()[0]  # 50 x 31 and 30 x 40
CAT = {"label": "cat", "box": [0, 0, 10, 10]}
ROW = {"image": WIDE, "prefix": "detect cat"}


def only(row):
  ((_, made),) = memory.examples([row], "detect")
  return made


def test_the_size_is_the_pictures_whatever_a_key_of_the_row_says():
  made = only({**ROW, "height": 1.82, "width": "wide", "id": "a"})  # a person's, and words
  assert (made["height"], made["width"], made["id"]) == (30, 40, "a")


def test_of_several_pictures_it_is_that_of_the_one_with_the_objects():
  pair = {**ROW, "image": [TALL, WIDE]}
  assert only(pair)["height"] == 30
  assert only({**pair, "objects": [{**CAT, "image": 0}]})["height"] == 50


@pytest.mark.parametrize("kind", [bool, np.uint8, "rle", "picture"])
def test_masks_are_true_inside_in_whatever_form_they_come(kind):
  mask = np.zeros((30, 40), bool)
  mask[2:5, 3:7] = True
  given = {"rle": masks.encode_rle(mask), "picture": Image.fromarray(mask)}.get(kind)
  given = mask.astype(kind) * 2 if given is None else given
  (made,) = only({**ROW, "objects": [{**CAT, "mask": given}]})["objects"]
  np.testing.assert_array_equal(made["mask"], mask)


def test_a_mask_of_another_size_than_its_picture_is_refused():
  wrong = {**CAT, "mask": np.ones((40, 30), bool)}
  with pytest.raises(errors.UserError, match=r"rows\[0\]: a mask has the shape \(40, 30\)"):
    only({**ROW, "objects": [wrong]})


def test_the_pictures_of_rows_are_read_after_their_keys_are_looked_at():
  (pair,) = memory.truths([{"image": "none.png", "prefix": "a"}], "text")
  assert pair == ("rows[0]", {"image": "none.png", "prefix": "a"})
  with pytest.raises(errors.UserError, match=r'rows\[0\]: no key "prefix"'):
    list(memory.truths([{"image": "none.png"}], "text"))
