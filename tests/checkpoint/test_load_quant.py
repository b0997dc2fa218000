"""Weights that become few bits while they are loaded."""

import jax
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.checkpoint import formats, load
from paligemma_jax.models import quant, tree
from tests.checkpoint import toys


@pytest.mark.parametrize("file", ["x", "x.npz"])
@pytest.mark.parametrize("spelled", ["int8", "nf4-dq", "int4-32"])
def test_codes_are_those_of_numpy_whatever_devices_are_set(tmp_path, file, spelled):
  cfg, flat = toys.write(tmp_path / file, "paligemma2", "bfloat16")
  forms = tree.parse_quant(spelled, cfg)
  with jax.set_mesh(sharding.make_mesh({"fsdp": 8})):
    found = sharding.flatten(load.load_params(formats.open(tmp_path / file), cfg, quant=forms))
  for name, form in forms.items():
    leaf = tree.plain(cfg)[name]
    for place in np.ndindex(leaf.stacked):
      axes = [i - leaf.stack for i in (*leaf.outer, *leaf.summed)]
      matrix = flat[name][place].transpose(axes).reshape(leaf.matrix)
      for part, want in quant.quantise(matrix, form).items():
        np.testing.assert_array_equal(found[f"{name}/{part}"][place], want, err_msg=name)
