"""config.json of Hugging Face, both ways.

Published files hold only what differs from the defaults of the class that reads them, so the
defaults stand here. Source: transformers 4.49 to 5.23, configuration classes of PaliGemma, Gemma,
Gemma 2 and SigLIP; some are surprising (a partial Gemma `text_config` means the 7B sizes).
"""

import dataclasses
import math
from typing import Any, NamedTuple

from paligemma_jax import errors
from paligemma_jax.checkpoint import hf_keys
from paligemma_jax.models import variants

ROW_MULTIPLE = 64  # the table is padded to a multiple of this, `<image>` being the first extra row

_GEMMA = dict(
  hidden_size=3072,
  num_hidden_layers=28,
  intermediate_size=24_576,
  num_attention_heads=16,
  num_key_value_heads=16,
  head_dim=256,
  vocab_size=256_000,
)
_GEMMA2 = dict(
  hidden_size=2304,
  num_hidden_layers=26,
  intermediate_size=9216,
  num_attention_heads=8,
  num_key_value_heads=4,
  head_dim=256,
  vocab_size=256_000,
  query_pre_attn_scalar=256,
  attn_logit_softcapping=50.0,
  final_logit_softcapping=30.0,
  sliding_window=4096,
)
_NO_TEXT = dict(
  model_type="gemma",
  hidden_size=2048,
  num_hidden_layers=18,
  intermediate_size=16_384,
  num_attention_heads=8,
  num_key_value_heads=1,
  vocab_size=257_152,
)
_SIGLIP = dict(
  hidden_size=768,
  intermediate_size=3072,
  num_hidden_layers=12,
  num_attention_heads=12,
  patch_size=16,
  image_size=224,
)
_NO_VISION = dict(
  hidden_size=1152,
  intermediate_size=4096,
  num_hidden_layers=27,
  num_attention_heads=16,
  patch_size=14,
  image_size=224,
)


class Read(NamedTuple):
  """What a config.json says: the towers it has, and the rows of the stored table."""

  img: variants.ImageConfig | None
  llm: variants.DecoderConfig | None  # with the rows that are more than padding
  rows: int  # of the table in the file
  tied: bool = True  # False: there must be an output matrix

  @property
  def model(self) -> variants.ModelConfig | None:
    """The whole model, None for one tower."""
    return variants.ModelConfig(self.img, self.llm) if self.img and self.llm else None


def read(d: dict[str, Any], where: str, tokens: int = 0) -> Read:
  """Reads the contents of a config.json of PaliGemma, Gemma, Gemma 2 or SigLIP.

  Args:
    d: the contents.
    where: the file, for messages.
    tokens: of the tokenizer beside it, `<image>` and added ones included; 0 if there is none.

  Raises:
    UserError: another model, a setting that this one does not have, or an unknown key.
  """
  kind, at = d.get("model_type") or "paligemma", f"{where}: "
  if kind == "paligemma":
    return _read_paligemma(d, at, tokens)
  if kind in ("gemma", "gemma2"):
    llm = _decoder({**d, "model_type": kind}, at)
    return Read(None, llm, llm.vocab_size, d.get("tie_word_embeddings") is not False)
  if kind == "siglip":
    hf_keys.check(d, kind, at)
    return Read(_image(d.get("vision_config") or {}, f"{at}vision_config."), None, 0)
  if kind == "siglip_vision_model":
    return Read(_image(d, at), None, 0)
  raise errors.UserError(
    f"{at}model_type {kind!r} is not of paligemma, gemma, gemma2, siglip, siglip_vision_model"
  )


def _read_paligemma(d: dict, at: str, tokens: int) -> Read:
  hf_keys.check(d, "paligemma", at)
  text, vision = d.get("text_config"), d.get("vision_config")
  text = _NO_TEXT if text is None else text
  img = _image(_NO_VISION if vision is None else vision, f"{at}vision_config.")
  llm = _decoder(text, f"{at}text_config.")
  key = next((k for k in ("image_token_index", "image_token_id") if d.get(k) is not None), None)
  real = 256_000 if key is None else _number(d, key, at)
  if real > llm.vocab_size:
    raise errors.UserError(
      f"{at}image_token_index {real} is beyond the {llm.vocab_size} rows of text_config.vocab_size"
    )
  tied = all(part.get("tie_word_embeddings") is not False for part in (d, text))
  ours = d.get(hf_keys.VOCAB_SIZE) or 0
  vocab_size = _vocabulary(real, llm.vocab_size, tokens, ours, at)
  return Read(img, dataclasses.replace(llm, vocab_size=vocab_size), llm.vocab_size, tied)


def _vocabulary(image: int, rows: int, tokens: int, ours: int, at: str) -> int:
  """The rows to keep: those before `<image>`, or all when there is more than padding behind it.

  Padding is what conversion scripts put there: up to the next multiple of 64, without tokens, and
  not what we said to be none.
  """
  if tokens > max(rows, image + 1):
    raise errors.UserError(
      f"{at}text_config.vocab_size is {rows}, the tokenizer beside it has {tokens} tokens: "
      f"{tokens - rows} that were added have no row and would be lost. Call "
      "model.resize_token_embeddings(len(tokenizer)) before saving"
    )
  is_padded = rows <= image + 1 or rows == padded_rows(image)
  return image if is_padded and tokens <= image + 1 and min(ours, rows) <= image else rows


def _image(d: dict, at: str) -> variants.ImageConfig:
  hf_keys.check(d, "siglip_vision_model", at)
  d = {**_SIGLIP, **{k: v for k, v in d.items() if v is not None}}
  for key in ("image_size", "patch_size"):  # also as height and width
    if isinstance(d[key], list) and d[key] and d[key] == d[key][:1] * 2:
      d[key] = d[key][0]
  return variants.ImageConfig(
    width=_number(d, "hidden_size", at),
    depth=_number(d, "num_hidden_layers", at),
    mlp_dim=_number(d, "intermediate_size", at),
    num_heads=_number(d, "num_attention_heads", at),
    patch_size=_number(d, "patch_size", at),
    res=_number(d, "image_size", at),
  )


def _decoder(d: dict, at: str) -> variants.DecoderConfig:
  """With all rows of the table."""
  kind = d.get("model_type") or "gemma"
  if kind not in ("gemma", "gemma2"):
    raise errors.UserError(f"{at}model_type {kind!r} is not of gemma, gemma2")
  hf_keys.check(d, kind, at)
  post_norms = kind == "gemma2"
  off = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")  # if null
  given = {k: v for k, v in d.items() if v is not None or k in off}
  d = {**(_GEMMA2 if post_norms else _GEMMA), **given}
  llm = variants.DecoderConfig(
    width=_number(d, "hidden_size", at),
    depth=_number(d, "num_hidden_layers", at),
    mlp_dim=_number(d, "intermediate_size", at),
    num_heads=_number(d, "num_attention_heads", at),
    num_kv_heads=_number(d, "num_key_value_heads", at),
    head_dim=_number(d, "head_dim", at),
    vocab_size=_number(d, "vocab_size", at),
    post_norms=post_norms,
    query_pre_attn_norm=_query_norm(d, post_norms, at),
  )
  if not post_norms:
    _window(given, llm.depth, at)
    return llm
  return dataclasses.replace(
    llm,
    attn_logits_softcap=float(_number(d, "attn_logit_softcapping", at, float)),
    final_logits_softcap=float(_number(d, "final_logit_softcapping", at, float)),
    sliding_window=_number(d, "sliding_window", at, int, 0) if _window(given, llm.depth, at) else 0,
  )


def _number(d: dict, key: str, at: str, kind: type = int, least: int = 1):
  """A size, at least 1, or a soft-cap, of which null is 0."""
  x = d[key]
  if kind is float or not least:
    x, least = 0 if x is None else x, 0
  is_number = type(x) in (int, kind) and math.isfinite(x)
  if not is_number or not least <= x < 2**31:
    raise errors.UserError(
      f"{at}{key} is {x!r}, which is no {'size' if least else 'number from 0'}"
    )
  return x


def _window(given: dict, depth: int, at: str) -> bool:
  """Whether the even layers have a window."""
  layers = given.get("layer_types")
  if layers is None:
    return True
  if layers == ["full_attention"] * depth:
    return False
  if layers != (["sliding_attention", "full_attention"] * depth)[:depth]:
    raise errors.UserError(
      f"{at}layer_types {str(layers)[:60]} are neither {depth} times full_attention nor alternating "
      "from sliding_attention, the only ones supported"
    )
  return True


def _query_norm(d: dict, post_norms: bool, at: str) -> str:
  scalar = d.get("query_pre_attn_scalar", d["head_dim"])  # Gemma 1 has none
  if scalar == d["head_dim"]:
    return "rsqrt_head_dim"
  if post_norms and scalar == d["hidden_size"] // d["num_attention_heads"]:
    return "rsqrt_emb_per_head"
  raise errors.UserError(
    f"{at}query_pre_attn_scalar {scalar} is neither head_dim nor hidden_size / num_attention_heads, "
    "the only ones supported"
  )


def padded_rows(vocab_size: int) -> int:
  """Rows of the table in a Hub folder: room for `<image>`, rounded up (257152 -> 257216)."""
  return -(-(vocab_size + 1) // ROW_MULTIPLE) * ROW_MULTIPLE


def rows(vocab_size: int, image: int) -> int:
  """Rows of the table in a Hub folder: padded, unless `<image>` and what follows are among ours."""
  return padded_rows(vocab_size) if image >= vocab_size else vocab_size


def write(config: variants.ModelConfig, dtype: str, image: int) -> dict[str, Any]:
  """The contents of config.json, readable by transformers 4.49 to 5.23.

  Args:
    config: sizes and settings.
    dtype: of most tensors, "float32", "bfloat16" or "float16".
    image: id of `<image>`, `vocab_size` unless there are rows of ours behind it.

  Raises:
    UserError: a Gemma 1 decoder has a setting that transformers' Gemma cannot express.
  """
  img, llm = config.img, config.llm
  ours = {hf_keys.VOCAB_SIZE: llm.vocab_size} if image < llm.vocab_size else {}
  return ours | {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "hidden_size": llm.width,
    "ignore_index": -100,
    "image_token_index": image,
    "model_type": "paligemma",
    "pad_token_id": 0,
    "projection_dim": llm.width,
    "text_config": _write_decoder(llm, img.num_tokens, dtype)
    | {"vocab_size": rows(llm.vocab_size, image)},
    "torch_dtype": dtype,
    "transformers_version": "4.49.0",
    "vision_config": {
      "hidden_act": "gelu_pytorch_tanh",
      "hidden_size": img.width,
      "image_size": img.res,
      "intermediate_size": img.mlp_dim,
      "layer_norm_eps": 1e-6,
      "model_type": "siglip_vision_model",
      "num_attention_heads": img.num_heads,
      "num_hidden_layers": img.depth,
      "num_image_tokens": img.num_tokens,
      "patch_size": img.patch_size,
      "projection_dim": llm.width,
      "projector_hidden_act": "gelu_fast",
      "vision_use_head": False,
    },
  }


def _write_decoder(llm: variants.DecoderConfig, num_image_tokens: int, dtype: str) -> dict:
  d = {
    "attention_bias": False,
    "head_dim": llm.head_dim,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": llm.width,
    "intermediate_size": llm.mlp_dim,
    "max_position_embeddings": 8192,
    "model_type": "gemma2" if llm.post_norms else "gemma",
    "num_attention_heads": llm.num_heads,
    "num_hidden_layers": llm.depth,
    "num_image_tokens": num_image_tokens,
    "num_key_value_heads": llm.num_kv_heads,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "torch_dtype": dtype,
  }
  if not llm.post_norms:
    plain = dict(attn_logits_softcap=0.0, final_logits_softcap=0.0, sliding_window=0)
    set_ = {k: getattr(llm, k) for k, v in plain.items() if getattr(llm, k) != v}
    if round(llm.query_scale**-2) != llm.head_dim:
      set_["query_pre_attn_norm"] = llm.query_pre_attn_norm
    if set_:
      raise errors.UserError(
        f"transformers' Gemma 1 has no {', '.join(f'{k} ({v})' for k, v in set_.items())}; "
        "write an npz or orbax checkpoint, or turn it off (convert --set, pg.load(config=…))"
      )
    return d
  # Without a window: layer_types say so, and sliding_window stays a number, since null crashes
  # transformers 5.
  windowed = ["full_attention" if i % 2 else "sliding_attention" for i in range(llm.depth)]
  return d | {
    "attn_logit_softcapping": llm.attn_logits_softcap or None,
    "final_logit_softcapping": llm.final_logits_softcap or None,
    "layer_types": windowed if llm.sliding_window else ["full_attention"] * llm.depth,
    "query_pre_attn_scalar": round(llm.query_scale**-2),
    "sliding_window": llm.sliding_window or 4096,
  }
