"""config.json of Hugging Face, both ways.

Published files hold only what differs from the defaults of the class that reads them, so the
defaults stand here. Source: transformers 4.49 to 5.23, configuration classes of PaliGemma, Gemma,
Gemma 2 and SigLIP; some are surprising (a partial Gemma `text_config` means the 7B sizes).
"""

from typing import Any, NamedTuple

from paligemma_jax import errors
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
  llm: variants.DecoderConfig | None
  rows: int  # of the table in the file, extra rows included

  @property
  def model(self) -> variants.ModelConfig | None:
    """The whole model, None for one tower."""
    return variants.ModelConfig(self.img, self.llm) if self.img and self.llm else None


def read(d: dict[str, Any], where: str) -> Read:
  """Reads the contents of a config.json of PaliGemma, Gemma, Gemma 2 or SigLIP.

  Raises:
    UserError: another model, or a setting that this one does not have.
  """
  kind = d.get("model_type", "paligemma")
  if kind == "paligemma":
    return _read_paligemma(d, where)
  if kind in ("gemma", "gemma2"):
    text = {**d, "model_type": kind}
    rows = text.get("vocab_size", 256_000)
    return Read(None, _decoder(text, rows, where), rows)
  if kind in ("siglip", "siglip_vision_model"):
    return Read(_image(d.get("vision_config", {}) if kind == "siglip" else d, where), None, 0)
  raise errors.UserError(
    f"{where}: model_type {kind!r} is not of paligemma, gemma, gemma2, siglip, siglip_vision_model"
  )


def _read_paligemma(d: dict, where: str) -> Read:
  text = d.get("text_config") or _NO_TEXT
  vision = d.get("vision_config") or _NO_VISION
  rows = text.get("vocab_size", 256_000)
  real = d.get("image_token_index", d.get("image_token_id", 256_000))
  found = Read(_image(vision, where), _decoder(text, real, where), rows)
  if real > rows:
    raise errors.UserError(
      f"{where}: image_token_index {real} is beyond the {rows} rows of text_config.vocab_size"
    )
  return found


def _image(d: dict, where: str) -> variants.ImageConfig:
  _expect(d, "hidden_act", ("gelu_pytorch_tanh",), where)
  _expect(d, "layer_norm_eps", (1e-6,), where)
  d = {**_SIGLIP, **d}
  return variants.ImageConfig(
    width=d["hidden_size"],
    depth=d["num_hidden_layers"],
    mlp_dim=d["intermediate_size"],
    num_heads=d["num_attention_heads"],
    patch_size=d["patch_size"],
    res=d["image_size"],
  )


def _decoder(d: dict, vocab_size: int, where: str) -> variants.DecoderConfig:
  kind = d.get("model_type", "gemma")
  if kind not in ("gemma", "gemma2"):
    raise errors.UserError(f"{where}: text_config.model_type {kind!r} is not of gemma, gemma2")
  _expect(d, "rms_norm_eps", (1e-6,), where)
  _expect(d, "rope_theta", (10_000,), where)
  rope = d.get("rope_parameters") or {}
  _expect(rope, "rope_theta", (10_000,), where)
  _expect(rope, "rope_type", ("default",), where)
  _expect(d, "attention_bias", (False,), where)
  post_norms = kind == "gemma2"
  given, d = d, {**(_GEMMA2 if post_norms else _GEMMA), **d}
  sizes = dict(
    width=d["hidden_size"],
    depth=d["num_hidden_layers"],
    mlp_dim=d["intermediate_size"],
    num_heads=d["num_attention_heads"],
    num_kv_heads=d["num_key_value_heads"],
    head_dim=d["head_dim"],
    vocab_size=vocab_size,
    post_norms=post_norms,
  )
  if not post_norms:
    return variants.DecoderConfig(**sizes)
  return variants.DecoderConfig(
    **sizes,
    attn_logits_softcap=float(d["attn_logit_softcapping"] or 0.0),
    final_logits_softcap=float(d["final_logit_softcapping"] or 0.0),
    sliding_window=_window(given, d["sliding_window"], where),
    query_pre_attn_norm=_query_norm(d, where),
  )


def _window(d: dict, window: int | None, where: str) -> int:
  layers = d.get("layer_types")
  if not layers:
    return window or 0
  if set(layers) == {"full_attention"}:
    return 0
  alternating = ["sliding_attention", "full_attention"] * len(layers)
  if list(layers) != alternating[: len(layers)]:
    raise errors.UserError(
      f"{where}: layer_types {layers[:4]}… are neither all full_attention nor alternating from "
      "sliding_attention, the only ones supported"
    )
  return window or 0


def _query_norm(d: dict, where: str) -> str:
  scalar = d["query_pre_attn_scalar"]
  if scalar == d["head_dim"]:
    return "rsqrt_head_dim"
  if scalar == d["hidden_size"] // d["num_attention_heads"]:
    return "rsqrt_emb_per_head"
  raise errors.UserError(
    f"{where}: query_pre_attn_scalar {scalar} is neither head_dim nor "
    "hidden_size / num_attention_heads, the only ones supported"
  )


def _expect(d: dict, key: str, allowed: tuple, where: str):
  if d.get(key) is not None and d[key] not in allowed:
    raise errors.UserError(f"{where}: {key} {d[key]!r} is not supported (only {allowed[0]!r})")


def padded_rows(vocab_size: int) -> int:
  """Rows of the table in a Hub folder: room for `<image>`, rounded up (257152 -> 257216)."""
  return -(-(vocab_size + 1) // ROW_MULTIPLE) * ROW_MULTIPLE


def write(config: variants.ModelConfig, dtype: str) -> dict[str, Any]:
  """The contents of config.json, readable by transformers 4.49 to 5.23.

  Args:
    config: sizes and settings.
    dtype: of most tensors, "float32", "bfloat16" or "float16".

  Raises:
    UserError: a Gemma 1 decoder has a setting that transformers' Gemma cannot express.
  """
  img, llm = config.img, config.llm
  return {
    "architectures": ["PaliGemmaForConditionalGeneration"],
    "bos_token_id": 2,
    "eos_token_id": 1,
    "hidden_size": llm.width,
    "ignore_index": -100,
    "image_token_index": llm.vocab_size,
    "model_type": "paligemma",
    "pad_token_id": 0,
    "projection_dim": llm.width,
    "text_config": _write_decoder(llm, img.num_tokens, dtype),
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
    "vocab_size": padded_rows(llm.vocab_size),
  }
  if not llm.post_norms:
    plain = dict(attn_logits_softcap=0.0, final_logits_softcap=0.0, sliding_window=0)
    set_ = {k: getattr(llm, k) for k, v in plain.items() if getattr(llm, k) != v}
    if round(llm.query_scale**-2) != llm.head_dim:
      set_["query_pre_attn_norm"] = llm.query_pre_attn_norm
    if set_:
      raise errors.UserError(
        f"transformers' Gemma 1 has no {', '.join(f'{k} ({v})' for k, v in set_.items())}; "
        "write an npz or orbax checkpoint, or load with config= to turn it off"
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
