"""Every `fit` with every task, in training and in evaluation: boxes, masks and pixels keep together."""

import itertools

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import pipeline, tasks
from paligemma_jax.processing import masks

BOX = [10.0, 6.0, 30.0, 24.0]  # in a picture of 40 x 30 pixels
MASK = np.zeros((30, 40), bool)
MASK[8:20, 12:28] = True
OBJECT = {"label": "cat", "box": BOX, "mask": masks.encode_rle(MASK), "sentences": ["the cat"]}
RECORD = {
  "image": "p0.png", "prefix": "caption en", "suffix": "a cat", "objects": [OBJECT],
  "choices": ["cat", "dog"], "answer": 0, "structure": ["<table>", "<td", ">", "</td>"],
}  # fmt: skip
TEXTS = {
  "options": dict(prefix="{indexed_choices}", suffix="{indexed_answer}"), "table": dict(prefix="t")
}  # fmt: skip


def _locs(height, width):
  """y0 x0 y1 x1 of BOX as tokens, of a picture of this size: in 1/1023, half to even."""
  x0, y0, x1, y1 = (np.round(np.array(BOX) / [width, height, width, height] * 1023)).astype(int)
  return f"<loc{y0:04d}><loc{x0:04d}><loc{y1:04d}><loc{x1:04d}>"


@pytest.mark.parametrize(
  "fit, task, phase", [*itertools.product(tasks.FITS, tasks.TASKS, ["train", "eval", "scored"])]
)
def test_every_fit_works_with_every_task(pictures, write, processor, codec, fit, task, phase):
  height, width = (40, 40) if fit == "pad" else (30, 40)
  source = {"path": write([RECORD]), "task": task, "fit": fit, **TEXTS.get(task, {})}
  options = dict(batch_size=1, text_len=96, codec=codec)
  if phase == "train":
    with pipeline.train_batches({"x": source}, processor, seed=0, **options) as batches:
      batch = next(batches)
  else:
    with_suffix = phase == "scored"
    with pipeline.eval_batches(source, processor, with_suffix=with_suffix, **options) as batches:
      ((batch, (row,)),) = list(batches)
    assert (row["height"], row["width"]) == (height, width)
    (item,) = row["objects"]
    assert item["box"] == BOX and item["mask"].shape == (height, width)
    np.testing.assert_array_equal(item["mask"][:30], MASK)
    assert not item["mask"][30:].any()
  below = batch.image[0, 23:] >= 254  # of 28 rows
  assert below.all() if fit == "pad" else not below.all()
  said = processor.tokenizer.decode(batch.text[0][batch.mask_loss[0] > 0])
  if phase != "eval":
    assert (_locs(height, width) in said) == (task in ("detect", "segment", "refer"))


@pytest.mark.parametrize("fit", tasks.FITS)
def test_an_outline_stays_around_what_it_is_around(write, tmp_path, processor, fit):
  Image.new("RGB", (56, 28)).save(tmp_path / "wide.png")
  record = {"image": "wide.png", "prefix": "p", "suffix": "s", "around": [0.0, 0.0, 1.0, 0.5]}
  source = {"path": write([record]), "fit": fit, "outline": "around"}
  with pipeline.eval_batches(source, processor, batch_size=1, text_len=16) as batches:
    ((batch, _),) = list(batches)
  red = (batch.image[0] == [255, 0, 0]).all(axis=-1)
  rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
  assert rows[0] == columns[0] == 0
  assert abs(rows[-1] - (13 if fit == "pad" else 27)) <= 1 and abs(columns[-1] - 13) <= 1
