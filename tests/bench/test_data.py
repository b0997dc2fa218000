import io
import itertools

import numpy as np
from PIL import Image

from paligemma_jax.bench import data
from paligemma_jax.processing import image


def test_rates_are_pictures_a_second_and_ratios_to_the_peer_of_the_same_round():
  ticks = itertools.accumulate(itertools.cycle([0.0, 0.5]))  # every measurement takes 0.5 s
  found = data.run(sizes=(28,), rounds=3, repeats=2, clock=lambda: next(ticks))["sizes"][28]
  assert set(found) == {"peer", *image.METHODS}
  assert found["peer"] == {"images_per_second": 4.0, "lowest": 4.0, "highest": 4.0}
  assert all(found[method]["of_peer"] == 1.0 for method in image.METHODS)


def test_the_peer_makes_the_same_picture_as_our_bicubic():
  ours = image.resize(image.decode(data.picture()), 56, "bicubic")
  np.testing.assert_array_equal(data.peer(data.picture(), 56), ours)


def test_the_picture_is_as_large_as_a_photo():
  opened = Image.open(io.BytesIO(data.picture()))
  assert opened.format == "JPEG" and opened.size == (640, 480)
  assert 50_000 < len(data.picture()) < 200_000
