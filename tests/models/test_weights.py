"""A weight with an adapter beside it."""

import jax
import numpy as np

from paligemma_jax import sharding
from paligemma_jax.models import paligemma, tree
from tests import toy


def test_an_adapter_whose_b_is_zero_changes_no_bit():
  config, rng = toy.config("paligemma2"), np.random.default_rng(0)
  flat, model = toy.flat_params(config), paligemma.PaliGemma(config)
  every = {name: tree.Adapter(3) for name, leaf in tree.plain(config).items() if leaf.summed}
  beside = dict(flat)
  for name, leaf in tree.formed(config, tree.Form({}, every)).items():
    if name.endswith(".lora/a"):
      beside[name] = rng.normal(size=leaf.shape).astype(np.float32)
    elif ".lora/" in name:
      beside[name] = np.full(leaf.shape, name.endswith("scale"), np.float32)
  image = rng.integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
  text = rng.integers(0, config.llm.vocab_size, (2, 6), dtype=np.int32)
  logits = jax.jit(lambda params: model.apply({"params": params}, image, text, text * 0 + 1)[0])
  want, got = (logits(sharding.unflatten(x)) for x in (flat, beside))
  np.testing.assert_array_equal(got, want)
