import numpy as np

from paligemma_jax.data import pipeline, show


def test_the_sheet_holds_the_pictures_as_the_model_gets_them(pictures, write, processor):
  rows = [
    {"image": f"p{i}.png", "prefix": "caption en", "suffix": "a cat and a dog"} for i in range(3)
  ]
  sources = {"x": {"path": write(rows)}}
  options = dict(text_len=16, seed=0)
  image = np.array(show.contact_sheet(sources, processor, count=3, **options))
  with pipeline.train_batches(sources, processor, batch_size=3, **options) as batches:
    batch = next(batches)
  for picture in batch.image:
    enlarged = picture.repeat(8, axis=0).repeat(8, axis=1)  # 28 -> 224
    assert _contains(image, enlarged)


def test_boxes_and_masks_of_the_target_are_drawn(pictures, write, processor, codec):
  mask = {"size": [30, 40], "counts": [600, 600]}
  record = {"image": "p0.png", "objects": [{"label": "cat", "box": [20, 0, 40, 30], "mask": mask}]}
  sources = {"x": {"path": write([record]), "task": "segment"}}
  options = dict(text_len=48, count=1, codec=codec)
  sheet = np.array(show.contact_sheet(sources, processor, **options))
  sources["x"]["task"] = "detect"
  plain = np.array(show.contact_sheet(sources, processor, **options))
  orange = [255, 122, 26]
  assert (sheet == orange).all(-1).any() and (plain == orange).all(-1).any()


def test_rows_that_are_not_valid_are_left_out(pictures, write, processor):
  path = write([{"image": "p0.png", "prefix": "p", "suffix": "s"}])
  ((batch, _),) = pipeline.eval_batches({"path": path}, processor, batch_size=4, text_len=8)
  one = batch._replace(**{k: v[:1] for k, v in batch._asdict().items()})
  assert show.sheet(batch, processor).size == show.sheet(one, processor).size


def _contains(image, part):
  height, width = part.shape[:2]
  starts = np.argwhere((image[: -height + 1, : -width + 1] == part[0, 0]).all(-1))
  return any((image[y : y + height, x : x + width] == part).all() for y, x in starts)
