"""Rules, meshes and placed arrays, on eight simulated devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paligemma_jax import errors, sharding
from paligemma_jax.models import paligemma, variants
from tests import toy

RULES = (
  ("batch", ("data", "fsdp")),
  ("heads", "tensor"),
  ("kv_heads", "tensor"),
  ("mlp", "tensor"),
  ("auto", "fsdp"),
)


def specs(name, **axes):
  mesh = sharding.make_mesh({"data": 1, "fsdp": -1, "tensor": 1, **axes})
  shapes = variants.param_shapes(variants.preset(name))
  return {k: tuple(s.spec) for k, s in sharding.param_shardings(shapes, mesh, RULES).items()}


def test_fsdp_splits_the_largest_axis_that_divides_and_never_the_layers():
  got = specs("paligemma2-3b")
  assert got["llm/embedder/input_embedding"] == ("fsdp", None)
  assert got["llm/layers/mlp/linear"] == (None, "fsdp", None)
  assert got["llm/final_norm/scale"] in ((), (None,))  # too small to be worth a gather


def test_one_kv_head_is_replicated_over_tensor():
  got = specs("paligemma-3b", fsdp=4, tensor=2)
  assert got["llm/layers/attn/kv_einsum/w"] == (None, None, None, "fsdp", None)
  assert got["llm/layers/attn/q_einsum/w"] == (None, "tensor", "fsdp", None)


def test_every_parameter_of_every_variant_has_named_axes():
  for name in variants.PRESETS:
    for key, shape in variants.param_shapes(variants.preset(name)).items():
      assert len(sharding.logical_axes(key, len(shape))) == len(shape)
  with pytest.raises(ValueError, match="llm/unknown"):
    sharding.logical_axes("llm/unknown", 2)


def test_a_mesh_that_does_not_fill_the_devices_is_refused():
  with pytest.raises(errors.UserError, match="8 devices"):
    sharding.make_mesh({"data": 3, "fsdp": -1})


def test_flatten_and_unflatten_are_inverse():
  tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
  assert sharding.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
  assert sharding.unflatten(sharding.flatten(tree)) == tree


def test_put_batch_splits_rows_or_replicates_what_does_not_divide():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 4})
  for rows, spec in ((16, P(("data", "fsdp"))), (3, P())):
    x = sharding.put_batch({"x": np.arange(rows)}, mesh, RULES)["x"]
    np.testing.assert_array_equal(x, np.arange(rows))
    assert x.sharding.spec == spec


def test_activations_are_constrained_only_inside_a_mesh():
  config = toy.config("paligemma", vocab_size=64)
  model = paligemma.PaliGemma(config, rules=RULES)
  params = sharding.unflatten(toy.flat_params(config))
  image, text = np.zeros((8, 28, 28, 3), np.uint8), np.ones((8, 4), np.int32)
  count = lambda: (
    jax.jit(lambda p: model.apply({"params": p}, image, text, text)[0])
    .lower(params)
    .as_text()
    .count("sharding_constraint")
  )
  assert count() == 0
  with jax.set_mesh(sharding.make_mesh({"fsdp": 4, "tensor": 2})):
    assert count() > 0
