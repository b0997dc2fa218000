"""Sizes of the published variants, and recognising them."""

import math

import pytest

from paligemma_jax.models import tree, variants

# PaliGemma arXiv:2407.07726 and PaliGemma 2 arXiv:2412.03555; counted on the reference models.
NUM_PARAMS = {
  "paligemma-3b": (2_923_335_408, 2_924_220_144, 2_927_759_088),
  "paligemma2-3b": (3_032_094_960, 3_032_979_696, 3_036_518_640),
  "paligemma2-10b": (9_662_409_456, 9_663_294_192, 9_666_833_136),
  "paligemma2-28b": (27_650_192_112, 27_651_076_848, 27_654_615_792),
}


@pytest.mark.parametrize("name", NUM_PARAMS)
def test_parameter_counts(name):
  for res, want in zip((224, 448, 896), NUM_PARAMS[name], strict=True):
    shapes = tree.param_shapes(variants.preset(name, res))
    assert sum(math.prod(s) for s in shapes.values()) == want


@pytest.mark.parametrize("res", [224, 448, 896])
@pytest.mark.parametrize("name", NUM_PARAMS)
def test_every_variant_is_recognised_from_its_shapes(name, res):
  config = variants.preset(name, res)
  found = variants.recognise(tree.param_shapes(config))
  assert found == config
  assert found.name == f"{name}-{res}"


@pytest.mark.parametrize("name", NUM_PARAMS)
@pytest.mark.parametrize("vocab_size", [257_216, 257_155, 256_000])
def test_a_variant_is_recognised_with_any_vocabulary(name, vocab_size):
  config = variants.preset(name, vocab_size=vocab_size)
  found = variants.recognise(tree.param_shapes(config))
  assert found == config  # of the 28B: queries are scaled by 144^-0.5, not by 128^-0.5
  assert found.name == f"{name}-224"


def test_the_query_scale_of_27b_is_by_width_per_head():
  assert variants.GEMMA2_27B.query_scale == 144**-0.5
  assert variants.GEMMA2_9B.query_scale == 256**-0.5


def test_a_missing_tensor_is_named():
  shapes = tree.param_shapes(variants.preset("tiny"))
  del shapes["img/pos_embedding"]
  with pytest.raises(KeyError, match="img/pos_embedding"):
    variants.recognise(shapes)


def test_a_head_of_another_decoder_is_refused():
  shapes = tree.param_shapes(variants.preset("paligemma2-3b"))
  shapes["img/head/kernel"] = (1152, 2048)
  with pytest.raises(ValueError, match=r"img/head/kernel has shape \[1152, 2048\].*\[1152, 2304\]"):
    variants.recognise(shapes)


def test_config_survives_json():
  config = variants.preset("paligemma2-28b", 448, sliding_window=4096, final_logits_softcap=30.0)
  assert variants.ModelConfig.from_dict(config.to_dict()) == config
