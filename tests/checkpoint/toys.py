"""Checkpoints of the toy model on disk, for the tests of this folder."""

import numpy as np

from paligemma_jax.checkpoint import formats, lazy
from tests import toy

FAMILIES = ("paligemma", "paligemma2")
DTYPES = tuple(lazy.FLOATS)


def write(path, family="paligemma", dtype="float32", format=None, seed=0, assets=None, **config):
  """Saves the toy model; returns (its config, flat name -> array)."""
  cfg = toy.config(family, **config)
  flat = toy.flat_params(cfg, seed)
  formats.save(path, reader(flat), cfg, assets or {}, dtype, format)
  return cfg, {name: x.astype(lazy.FLOATS[dtype]) for name, x in flat.items()}


def reader(flat):
  """The callable that `formats.save` asks for."""
  return lambda name, layer: flat[name] if layer is None else flat[name][layer]


def bits(x) -> np.ndarray:
  """The bytes of an array, to compare exactly."""
  return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def assert_same(source, flat):
  """Every tensor of an opened checkpoint has the dtype and the bits of `flat`."""
  assert sorted(source.arrays) == sorted(flat)
  for name, x in flat.items():
    assert source.dtypes[name] == x.dtype, name
    assert source.shapes[name] == x.shape, name
    np.testing.assert_array_equal(bits(source.read(name)), bits(x), err_msg=name)
