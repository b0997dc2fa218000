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
  partial = hf_config.read({"text_config": {"model_type": "gemma"}, "vision_config": {}}, "x")
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
  assert hf_config.read(hf_config.write(cfg, "float32", cfg.llm.vocab_size), "x").model == cfg


def test_no_window_and_no_cap_as_transformers_wants_them():
  text = hf_config.write(toy.config("paligemma2"), "float32", 1500)["text_config"]
  assert text["final_logit_softcapping"] is None
  assert text["layer_types"] == ["full_attention"] * 2
  assert text["sliding_window"] == 4096  # null crashes transformers 5


@pytest.mark.parametrize("preset", [p for p in variants.PRESETS])
def test_every_preset_goes_there_and_back(preset):
  cfg = variants.preset(preset, 448)
  assert hf_config.read(hf_config.write(cfg, "bfloat16", cfg.llm.vocab_size), "x").model == cfg


def test_settings_that_gemma_1_does_not_have_in_transformers():
  with pytest.raises(errors.UserError, match=r"no final_logits_softcap \(30.0\)"):
    hf_config.write(toy.config(final_logits_softcap=30.0), "float32", 1500)
  with pytest.raises(errors.UserError, match="query_pre_attn_norm"):
    hf_config.write(toy.config(query_pre_attn_norm="rsqrt_emb_per_head"), "float32", 1500)


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
      "neither 26 times full_attention nor alternating",
    ),
    ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
    ({"image_token_index": 300000}, "300000 is beyond the 257216 rows"),
  ],
)
def test_what_is_not_supported_is_said(change, said):
  with pytest.raises(errors.UserError, match=said):
    hf_config.read({**PG1, **change}, "config.json")


ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {"type": "linear", "factor": 2.0}

# What every release writes beside the model itself. The first two lines: PretrainedConfig of
# transformers 4.38 to 4.40, which wrote every key of the nested parts.
HARMLESS = {
  "chunk_size_feed_forward": 0, "add_cross_attention": False, "bad_words_ids": None, "top_k": 50,
  "pruned_heads": {}, "torchscript": False, "id2label": {"0": "LABEL_0"}, "is_decoder": False,
  "_name_or_path": "google/x", "transformers_version": "4.41.0", "architectures": ["X"],
  "torch_dtype": "bfloat16", "dtype": "float16", "output_attentions": False, "return_dict": True,
  "is_encoder_decoder": False, "problem_type": None, "a_key_of_tomorrow": None,
  "_vocab_size": 257152, "_ignore_index": -100, "initializer_range": 0.02, "use_cache": True,
}  # fmt: skip


@pytest.mark.parametrize("key", HARMLESS)
@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
@pytest.mark.parametrize("config", [PG1, PG2_28B], ids=["gemma", "gemma2"])
def test_what_is_harmless_changes_nothing(config, part, key):
  more = {key: HARMLESS[key]}
  changed = {**config, part: config[part] | more} if part else config | more
  assert hf_config.read(changed, "x") == hf_config.read(config, "x")


@pytest.mark.parametrize(
  "part, change",
  [
    ("text_config", {"rope_parameters": ROPE}),
    ("text_config", {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}),
    ("text_config", {"rope_scaling": None, "rope_theta": 10000}),
    ("text_config", {"rope_scaling": {"rope_type": "default"}}),
    ("text_config", {"hidden_act": "gelu"}),  # Gemma's first configs; means the one with tanh
    ("text_config", {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}),
    ("text_config", {"rms_norm_eps": 1.0e-06, "attention_bias": False, "attention_dropout": 0.1}),
    ("text_config", {"use_bidirectional_attention": True, "tie_word_embeddings": True}),
    ("text_config", {"eos_token_id": [1, 107], "cache_implementation": "hybrid"}),
    ("vision_config", {"image_size": [224, 224], "patch_size": [14, 14], "num_channels": 3}),
    ("vision_config", {"hidden_act": "gelu_new", "vision_use_head": True}),
  ],
)
def test_what_says_the_default_changes_nothing(part, change):
  changed = {**PG1, part: PG1[part] | change}
  assert hf_config.read(changed, "x") == hf_config.read(PG1, "x")


def test_the_image_token_has_two_names():
  other = {k: v for k, v in PG1.items() if k != "image_token_index"} | {"image_token_id": 257152}
  assert hf_config.read(other, "x") == hf_config.read(PG1, "x")


@pytest.mark.parametrize(
  "part, change, said",
  [
    ("text_config", {"rope_scaling": LINEAR}, "rope_scaling.type 'linear' is not supported"),
    ("text_config", {"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling.rope_type 'yarn'"),
    ("text_config", {"rope_parameters": {**ROPE, "factor": 2.0}}, "rope_parameters.factor 2.0"),
    ("text_config", {"rope_parameters": {**ROPE, "rope_theta": 5e5}}, "rope_parameters.rope_theta"),
    ("text_config", {"rope_parameters": {"sliding_attention": LINEAR}}, "sliding_attention.type"),
    ("text_config", {"partial_rotary_factor": 0.5}, "text_config.partial_rotary_factor 0.5"),
    ("text_config", {"hidden_activation": "silu"}, "text_config.hidden_activation 'silu'"),
    ("text_config", {"hidden_activation": "gelu"}, "text_config.hidden_activation 'gelu'"),
    ("text_config", {"hidden_act": "relu"}, "text_config.hidden_act 'relu'"),
    ("text_config", {"rms_norm_eps": 1e-5}, "text_config.rms_norm_eps 1e-05"),
    ("text_config", {"attention_bias": True}, "text_config.attention_bias True"),
    ("text_config", {"is_causal": False}, "text_config.is_causal False"),
    (
      "text_config",
      {"final_logit_softcapping": 30.0},
      "final_logit_softcapping 30.0",
    ),  # of Gemma 1
    ("text_config", {"sliding_window": 4096}, "text_config.sliding_window 4096"),
    ("text_config", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar 100"),
    ("text_config", {"use_qk_norm": True}, r"text_config.use_qk_norm \(True\): unknown here"),
    ("text_config", {"scale_embeddings": False}, r"scale_embeddings \(False\): unknown here"),
    ("text_config", {"hidden_size": "2048"}, "hidden_size is '2048', which is no size"),
    ("text_config", {"num_attention_heads": 0}, "num_attention_heads is 0, which is no size"),
    ("text_config", {"head_dim": True}, "head_dim is True, which is no size"),
    ("vision_config", {"hidden_act": "gelu"}, "vision_config.hidden_act 'gelu'"),
    ("vision_config", {"hidden_act": "quick_gelu"}, "vision_config.hidden_act 'quick_gelu'"),
    ("vision_config", {"layer_norm_eps": 1e-5}, "vision_config.layer_norm_eps 1e-05"),
    ("vision_config", {"num_channels": 1}, "vision_config.num_channels 1"),
    ("vision_config", {"image_size": [224, 448]}, r"image_size is \[224, 448\], which is no size"),
    ("vision_config", {"model_type": "clip_vision_model"}, "model_type 'clip_vision_model'"),
    (None, {"rope_scaling": LINEAR}, r"config.json: rope_scaling .*: unknown here"),
    (None, {"auto_map": {"AutoModel": "mine.Model"}}, "auto_map .*: unknown here"),  # other code
    (None, {"eos_token_id": [1, 107]}, r"eos_token_id \[1, 107\] is not supported"),
    (None, {"image_token_index": -1}, "image_token_index is -1, which is no size"),
  ],
)
def test_what_would_change_the_function_is_refused(part, change, said):
  changed = {**PG1, part: PG1[part] | change} if part else PG1 | change
  with pytest.raises(errors.UserError, match=said) as e:
    hf_config.read(changed, "config.json")
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  "change, said",
  [
    ({"attn_logit_softcapping": "50"}, "attn_logit_softcapping is '50'"),
    ({"final_logit_softcapping": -1.0}, "final_logit_softcapping is -1.0"),
    ({"final_logit_softcapping": float("nan")}, "final_logit_softcapping is nan"),
    ({"sliding_window": 4096.5}, "sliding_window is 4096.5"),
    ({"layer_types": ["full_attention"]}, "neither 46 times full_attention"),
    ({"layer_types": 7}, "neither 46 times full_attention"),
    ({"sliding_window_pattern": 6}, "sliding_window_pattern 6"),
  ],
)
def test_settings_of_gemma2_that_cannot_be_are_refused(change, said):
  changed = {**PG2_28B, "text_config": PG2_28B["text_config"] | change}
  with pytest.raises(errors.UserError, match=said):
    hf_config.read(changed, "config.json")


def test_gemma2_switches_its_settings_off_with_null():
  off = dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "sliding_window"))
  found = hf_config.read({**PG2_28B, "text_config": PG2_28B["text_config"] | off}, "x").llm
  assert (found.attn_logits_softcap, found.final_logits_softcap, found.sliding_window) == (0, 0, 0)


@pytest.mark.parametrize("vocab, rows", [(257152, 257216), (210, 256), (1535, 1536), (1536, 1600)])
def test_room_for_the_image_token(vocab, rows):
  assert hf_config.padded_rows(vocab) == rows
