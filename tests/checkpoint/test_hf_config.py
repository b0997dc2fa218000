"""Defaults from section 6 of the shared notes on checkpoints, checked there against transformers."""

import dataclasses

import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import hf_config
from paligemma_jax.models import variants
from tests import toy

# As published (ColPali's copy for PaliGemma 1, the conversion script for PaliGemma 2).
PG1 = {
  "model_type": "paligemma",
  "image_token_index": 257152,
  "text_config": {
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "model_type": "gemma",
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "vocab_size": 257216,
  },
  "vision_config": {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
  },
}
PG2_28B = {
  **PG1,
  "text_config": {
    "hidden_size": 4608,
    "num_hidden_layers": 46,
    "intermediate_size": 36864,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "query_pre_attn_scalar": 144,
    "model_type": "gemma2",
    "vocab_size": 257216,
  },
}


def test_published_configs():
  assert hf_config.read(PG1, "x").model == variants.preset("paligemma-3b")
  at_448 = {**PG1, "vision_config": {**PG1["vision_config"], "image_size": 448}}
  assert hf_config.read(at_448, "x").model == variants.preset("paligemma-3b", 448)
  found = hf_config.read(PG2_28B, "x").model
  # The Hub's files say cap 30 and window 4096; the preset is what fine-tuning uses.
  wanted = variants.preset("paligemma2-28b", final_logits_softcap=30.0, sliding_window=4096)
  assert found == wanted


def test_absent_parts_mean_the_defaults_of_the_class():
  found = hf_config.read({"model_type": "paligemma", "image_token_index": 257152}, "x")
  assert found.rows == 257152
  assert found.llm == variants.GEMMA_2B
  assert found.img == dataclasses.replace(variants.SO400M, mlp_dim=4096)
  partial = hf_config.read({"text_config": {"model_type": "gemma"}, "vision_config": {"a": 0}}, "x")
  assert partial.llm == variants.DecoderConfig(3072, 28, 24576, 16, 16, 256, vocab_size=256000)
  assert partial.img == variants.ImageConfig(768, 12, 3072, 12, 16, 224)
  gemma2 = hf_config.read({"text_config": {"model_type": "gemma2"}}, "x").llm
  assert (gemma2.width, gemma2.depth, gemma2.final_logits_softcap) == (2304, 26, 30.0)


@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("norm", variants.QUERY_NORMS)
def test_settings_of_gemma2_go_there_and_back(cap, window, norm):
  cfg = toy.config(
    "paligemma2", final_logits_softcap=cap, sliding_window=window, query_pre_attn_norm=norm
  )
  assert hf_config.read(hf_config.write(cfg, "float32"), "x").model == cfg


def test_no_window_and_no_cap_as_transformers_wants_them():
  text = hf_config.write(toy.config("paligemma2"), "float32")["text_config"]
  assert text["final_logit_softcapping"] is None
  assert text["layer_types"] == ["full_attention"] * 2
  assert text["sliding_window"] == 4096  # null crashes transformers 5


@pytest.mark.parametrize("preset", [p for p in variants.PRESETS])
def test_every_preset_goes_there_and_back(preset):
  cfg = variants.preset(preset, 448)
  assert hf_config.read(hf_config.write(cfg, "bfloat16"), "x").model == cfg


def test_settings_that_gemma_1_does_not_have_in_transformers():
  with pytest.raises(errors.UserError, match=r"no final_logits_softcap \(30.0\)"):
    hf_config.write(toy.config(final_logits_softcap=30.0), "float32")
  with pytest.raises(errors.UserError, match="query_pre_attn_norm"):
    hf_config.write(toy.config(query_pre_attn_norm="rsqrt_emb_per_head"), "float32")


@pytest.mark.parametrize(
  "change, said",
  [
    ({"model_type": "llava"}, "model_type 'llava' is not of"),
    ({"text_config": {"model_type": "llama"}}, "'llama' is not of gemma, gemma2"),
    ({"text_config": {"rope_theta": 1e6}}, "rope_theta 1000000.0 is not supported"),
    ({"text_config": {"model_type": "gemma2", "query_pre_attn_scalar": 7}}, "scalar 7 is neither"),
    (
      {
        "text_config": {
          "model_type": "gemma2",
          "layer_types": ["full_attention", "sliding_attention"],
        }
      },
      "neither all full_attention nor alternating",
    ),
    ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
    ({"image_token_index": 300000}, "300000 is beyond the 257216 rows"),
  ],
)
def test_what_is_not_supported_is_said(change, said):
  with pytest.raises(errors.UserError, match=said):
    hf_config.read({**PG1, **change}, "config.json")


@pytest.mark.parametrize("vocab, rows", [(257152, 257216), (210, 256), (1535, 1536), (1536, 1600)])
def test_room_for_the_image_token(vocab, rows):
  assert hf_config.padded_rows(vocab) == rows
