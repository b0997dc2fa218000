"""What is known of every key of a config.json: read, of one value only, or harmless.

A key that is none of these is refused: it may change what the model computes, and nobody would notice.
Harmless are what transformers 4.38 to 5.24 and common trainers write beside the model itself.
Source: the configuration and model classes of these releases.
"""

import math
from typing import Any

from paligemma_jax import errors

META = "paligemma_jax"  # key of ours, under which `meta` is kept
# Another of ours: rows that are no padding, where the tokenizer has fewer tokens than the table rows.
VOCAB_SIZE = "paligemma_jax_vocab_size"

# Why a key does not change the function -> the keys.
_HARMLESS = {
  "what wrote the file": "architectures transformers_version _name_or_path name_or_path _commit_hash"
  " _auto_class license tokenizer_class processor_class unsloth_version unsloth_fixed"
  f" _from_model_config {META} {VOCAB_SIZE}",
  "the dtype is that of the tensors": "torch_dtype dtype use_bfloat16",
  "the tensors tell what bitsandbytes quantised": "quantization_config",
  "how it is computed, not what": "_attn_implementation attn_implementation use_cache"
  " _attn_implementation_autoset _attn_implementation_internal _experts_implementation"
  " _experts_implementation_internal experts_implementation _flash_attn_2_enabled torchscript"
  " xla_device chunk_size_feed_forward cache_implementation gradient_checkpointing pretraining_tp",
  "what a call returns": "output_attentions output_hidden_states return_dict use_return_dict"
  " return_dict_in_generate output_scores _output_attentions",
  "where training begins, and its own noise and loss": "initializer_range initializer_factor"
  " attention_dropout ignore_index _ignore_index tf_legacy_loss",
  "heads that this model does not have": "id2label label2id num_labels problem_type finetuning_task"
  " vision_use_head is_decoder tie_encoder_decoder cross_attention_hidden_size",
  "how answers are sampled, which is said at the call": "max_length max_new_tokens min_length"
  " do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p"
  " typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size"
  " bad_words_ids num_return_sequences remove_invalid_values exponential_decay_length_penalty"
  " suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id prefix"
  " decoder_start_token_id task_specific_params sep_token_id pad_token_id bos_token_id",
  "the shapes of the tensors tell": "projection_dim projection_size num_image_tokens num_positions"
  " _vocab_size",
  "the positions of the rotation have no end": "max_position_embeddings model_max_length",
  "read by no release": "projector_hidden_act sliding_window_size",
}
_ANY = frozenset(" ".join(_HARMLESS.values()).split())

# All spellings of the GELU with tanh.
_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh")
# Keys of which one value alone is computed; the first is what it means to leave the key out.
_BASE = {"is_encoder_decoder": (False,), "add_cross_attention": (False,), "pruned_heads": ({},)}
_TEXT = {
  **_BASE,
  "rms_norm_eps": (1e-6,),
  "rope_theta": (10_000,),
  "partial_rotary_factor": (1,),
  "attention_bias": (False,),
  "is_causal": (True,),
}
ONLY = {  # part of the config -> key -> values
  "paligemma": {**_BASE, "eos_token_id": (1, [1])},
  "siglip": _BASE,
  "siglip_vision_model": {
    **_BASE,
    "hidden_act": _TANH,
    "layer_norm_eps": (1e-6,),
    "num_channels": (3,),
    "model_type": ("siglip_vision_model",),
  },
  "gemma": {
    **_TEXT,
    "hidden_act": (*_TANH, "gelu"),  # "gelu" of the first releases means the one with tanh
    "hidden_activation": _TANH,
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "sliding_window": (0,),
  },
  "gemma2": {
    **_TEXT,
    "hidden_act": (*_TANH, "gelu"),  # hidden_activation counts
    "hidden_activation": _TANH,
    "sliding_window_pattern": (2,),
    "_sliding_window_pattern": (2,),
  },
}
_SIZES = "hidden_size intermediate_size num_hidden_layers num_attention_heads"
_DECODER = f"{_SIZES} num_key_value_heads head_dim vocab_size model_type eos_token_id layer_types"
_DECODER += " tie_word_embeddings query_pre_attn_scalar rope_scaling rope_parameters"
_DECODER += " use_bidirectional_attention"  # in a PaliGemma the prefix says who sees whom
_READ = {  # part of the config -> keys that `hf_config` reads, or checks with others
  # Sizes beside the two parts are copies of older releases.
  "paligemma": "model_type text_config vision_config image_token_index image_token_id"
  f" tie_word_embeddings vocab_size {_SIZES}",
  "siglip": "model_type text_config vision_config tie_word_embeddings",
  "siglip_vision_model": f"{_SIZES} patch_size image_size vocab_size eos_token_id"
  " tie_word_embeddings",
  "gemma": _DECODER,
  "gemma2": f"{_DECODER} attn_logit_softcapping final_logit_softcapping sliding_window",
}


def check(d: dict[str, Any], kind: str, where: str) -> None:
  """Raises a UserError when a key of `d` may change what the model computes and is not read.

  Null is what it means to leave a key out.

  Args:
    d: a config.json, or a part of one.
    kind: its model_type, a key of `ONLY`.
    where: the file, and "text_config." of a part, for messages.
  """
  only, read = ONLY[kind], {*_READ[kind].split(), *_ANY}
  for key, values in only.items():
    if d.get(key) is not None and not any(_same(d[key], v) for v in values):
      raise errors.UserError(f"{where}{key} {d[key]!r} is not supported (only {values[0]!r})")
  unknown = [f"{k} ({v!r})"[:80] for k, v in d.items() if v is not None and k not in {*only, *read}]
  if unknown:
    raise errors.UserError(
      f"{where}{', '.join(unknown[:5])}: unknown here, and may change what the model computes. If "
      "you know that it does not, take it out of the file"
    )
  for key in ("rope_scaling", "rope_parameters"):
    _check_rope(d.get(key) or {}, f"{where}{key}.")


def _same(found: Any, value: Any) -> bool:
  if isinstance(found, float) and isinstance(value, (int, float)):
    return math.isclose(found, value)
  return found == value and isinstance(found, bool) == isinstance(value, bool)


def _check_rope(d: dict[str, Any], where: str) -> None:
  """Only the plain rotation is computed: release 4 spells it `type`, 5 `rope_type`, also by layers."""
  plain = {"rope_type": "default", "type": "default", "rope_theta": 10_000}
  plain["partial_rotary_factor"] = 1
  for key, value in d.items():
    if isinstance(value, dict):  # of the layers with and without a window
      _check_rope(value, f"{where}{key}.")
    elif value is not None and not (key in plain and _same(value, plain[key])):
      known = f"only {plain[key]!r}" if key in plain else "only a plain rotation, without it"
      raise errors.UserError(f"{where}{key} {value!r} is not supported ({known})")
