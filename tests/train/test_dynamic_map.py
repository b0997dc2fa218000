"""The maps are bitsandbytes' own, and the code of a value is that of the nearest one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.train import dynamic_map
from tests import golden_adapters

MAPS = {True: "qmap1", False: "qmap2"}


@pytest.fixture(scope="module")
def golden():
  return golden_adapters.arrays("quant/adam8bit")


@pytest.mark.parametrize("signed", MAPS)
def test_every_code_is_the_value_of_bitsandbytes(signed, golden):
  widen = jax.jit(dynamic_map.DynamicMap(signed).widen)
  got = widen(jnp.arange(256, dtype=jnp.uint8))
  np.testing.assert_array_equal(got, golden[MAPS[signed]])


def hard(values):
  """Values of a map, the floats around the middle of each two, and a million of all magnitudes."""
  rng = np.random.default_rng(0)
  middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
  around = [middle, np.nextafter(middle, np.float32(2)), np.nextafter(middle, np.float32(-2))]
  spread = rng.uniform(-1, 1, 10**6) * 10.0 ** rng.uniform(-9, 0, 10**6)
  return np.concatenate([values, *around, spread.astype(np.float32)])


@pytest.mark.parametrize("signed", MAPS)
def test_the_code_is_that_of_the_nearest_value(signed, golden):
  values = golden[MAPS[signed]].astype(np.float64)
  x = hard(golden[MAPS[signed]])
  x = x if signed else np.abs(x)
  got = np.asarray(jax.jit(dynamic_map.DynamicMap(signed).narrow)(x))
  above = np.clip(np.searchsorted(values, x), 1, 255)
  nearest = np.minimum(np.abs(x - values[above - 1]), np.abs(x - values[above]))
  np.testing.assert_array_equal(np.abs(x - values[got]), nearest)
