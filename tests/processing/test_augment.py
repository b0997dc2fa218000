"""Random changes of pictures; every draw is seeded."""

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import augment
from tests import toy

HEIGHT, WIDTH = 60, 80
# A pixel's value says where it was: channel 0 the row, channel 1 the column.
WHERE = np.stack(
  [*np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)], axis=-1
)


def draws(*steps, boxes=(), image=WHERE, count=200, res=28):
  """`count` results of the steps, each from its own generator."""
  parsed = augment.parse(steps)
  rngs = (np.random.default_rng(k) for k in range(count))
  return [augment.apply(image, np.array(boxes), parsed, rng, res) for rng in rngs]


def content(changed, k=0):
  """(rows, columns) of the original picture that the k-th box holds: first and last of each."""
  x0, y0, x1, y1 = (int(v) for v in changed.boxes[k])
  inside = changed.image[y0:y1, x0:x1]
  return inside[..., 0].min(), inside[..., 0].max(), inside[..., 1].min(), inside[..., 1].max()


@pytest.mark.parametrize("least", [5, 50, 100])
def test_inception_crop_keeps_its_share_of_the_area_and_its_sides(least):
  sizes = np.array([c.image.shape[:2] for c in draws(f"inception_crop:{least}", count=400)])
  share = sizes.prod(axis=1) / (HEIGHT * WIDTH)
  assert share.min() >= least / 100 and share.max() <= 1
  if least < 100:
    aspect = sizes[:, 1] / sizes[:, 0]
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.4  # whole pixels
    assert share.min() < least / 100 + 0.1 and share.max() > 0.85  # all sizes come up


def test_windows_are_everywhere():
  corners = np.array([c.image[0, 0, :2] for c in draws("random_crop:0.5", count=400)])
  assert (corners.min(axis=0) == 0).all()
  assert (corners.max(axis=0) == [HEIGHT - 30, WIDTH - 30]).all()


def test_random_crop_is_a_square_of_seven_eighths_of_the_shorter_side():
  assert {c.image.shape for c in draws("random_crop", count=20)} == {(52, 52, 3)}  # 52.5


@pytest.mark.parametrize("step", ["inception_crop:10", "random_crop", "random_flip"])
def test_boxes_go_with_what_they_hold(step):
  box = [20, 10, 50, 40]  # rows 10..39, columns 20..49
  results = draws(step, boxes=[box])
  assert len({c.image.shape for c in results} | {c.is_mirrored for c in results}) > 1 or (
    step == "random_crop"
  )
  for changed in results:
    assert content(changed) == (10, 39, 20, 49)


def test_a_window_that_would_cut_a_box_is_not_taken():
  everything = [[0, 0, WIDTH, HEIGHT]]
  for changed in draws("inception_crop:5", "random_crop", boxes=everything, count=10):
    assert changed.image is WHERE and (changed.boxes == everything).all()


def test_half_of_the_pictures_are_mirrored():
  results = draws("random_flip", boxes=[[0, 10, 30, 60]], count=400)
  mirrored = [c for c in results if c.is_mirrored]
  assert 160 < len(mirrored) < 240
  np.testing.assert_array_equal(mirrored[0].image, WHERE[:, ::-1])
  np.testing.assert_array_equal(mirrored[0].boxes, [[50, 10, 80, 60]])


def test_mirrored_twice_is_upright():
  for changed in draws("random_flip", "random_flip", count=20):
    assert changed.is_mirrored == (changed.image[0, 0, 1] != 0)


@pytest.mark.parametrize("probability, low, high", [(1.0, 200, 200), (0.5, 75, 125), (0.1, 8, 35)])
def test_jpeg_comes_with_its_probability(probability, low, high):
  results = draws(f"random_jpeg:{probability}")
  changed = sum(c.image is not WHERE for c in results)
  assert low <= changed <= high
  assert all(np.abs(c.image.astype(int) - WHERE).mean() < 3 for c in results)


def test_random_resize_gives_the_models_size_by_all_filters():
  noise = np.random.default_rng(0).integers(0, 256, WHERE.shape, dtype=np.uint8)
  results = draws("random_resize", boxes=[[20, 15, 60, 30]], image=noise, res=32)
  assert {c.image.shape for c in results} == {(32, 32, 3)}
  assert all((c.boxes == [[8, 8, 24, 16]]).all() for c in results)
  assert len({c.image.tobytes() for c in results}) == 10


@pytest.mark.parametrize(
  "kernel, pillow",
  [
    ("triangle", Image.Resampling.BILINEAR),
    ("keys", Image.Resampling.BICUBIC),
    ("lanczos3", Image.Resampling.LANCZOS),
  ],
)
@pytest.mark.parametrize("res", [9, 21, 96])
def test_the_filters_are_pillows_but_for_rounding(kernel, pillow, res):
  for picture in toy.pictures():
    picture = picture // 2 + 64  # Pillow clips between its two passes
    ours = augment.resized(picture, res, kernel, antialias=True)
    theirs = np.asarray(Image.fromarray(picture).resize((res, res), pillow))
    assert np.abs(ours.astype(int) - theirs).max() <= 2  # truncated here, rounded twice there


def test_mitchell_and_keys_have_their_published_values():
  # Mitchell and Netravali: (6 - 2B)/6 at 0 and B/6 at 1, for B = 1/3; Keys interpolates: 1 and 0.
  x = np.array([0, 1, 2], np.float32)
  mitchell, keys = (augment.KERNELS[name][0](x) for name in ("mitchell", "keys"))
  np.testing.assert_allclose(mitchell, [8 / 9, 1 / 18, 0], atol=1e-6)
  np.testing.assert_allclose(keys, [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("kernel", augment.KERNELS)
@pytest.mark.parametrize("antialias", [True, False])
def test_flat_pictures_stay_flat(kernel, antialias):
  flat = np.full((50, 37, 3), 200, np.uint8)
  for res in (8, 37, 90):
    assert set(np.unique(augment.resized(flat, res, kernel, antialias))) <= {199, 200}


def test_the_same_generator_gives_the_same_picture():
  steps = ("inception_crop:30", "random_flip", "random_resize", "random_jpeg")
  for a, b in zip(draws(*steps, count=20), draws(*steps, count=20)):
    np.testing.assert_array_equal(a.image, b.image)


def test_numbers_are_read_and_have_defaults():
  steps = ("inception_crop:50", "inception_crop", "random_flip")
  assert augment.parse(steps) == (
    ("inception_crop", 50.0), ("inception_crop", 5.0), ("random_flip", 0.0)
  )  # fmt: skip


@pytest.mark.parametrize(
  "step, message",
  [
    ("inception_corp", 'a.augment: "inception_corp" is unknown; did you mean "inception_crop"'),
    ("inception_crop:0", "wanted a number above 0, at most 100, as in inception_crop:5"),
    ("random_jpeg:2", "at most 1, as in random_jpeg:0.5"),
    ("random_crop:half", "wanted a number"),
    ("random_flip:1", "random_flip takes no number"),
  ],
)
def test_mistakes_are_named(step, message):
  with pytest.raises(errors.UserError, match=message):
    augment.parse((step,), "a.augment")
