"""The dimensions of every variant, and how to recognise one from the shapes of its parameters.

Plain dataclasses and tuples; imports neither JAX nor Flax, so that a checkpoint can be inspected
in well under a second. PaliGemma arXiv:2407.07726, PaliGemma 2 arXiv:2412.03555, Gemma
arXiv:2403.08295 table 1, Gemma 2 arXiv:2408.00118 table 1, SigLIP So400m/14 arXiv:2305.13035.
"""

import dataclasses
import math
import numbers
from typing import Any

from paligemma_jax import errors

VOCAB_SIZE = 257_152  # 256000 pieces of Gemma, 1024 <loc….>, 128 <seg…>
QUERY_NORMS = ("rsqrt_head_dim", "rsqrt_emb_per_head")


# What shapes cannot tell of a decoder; `pg.load(config=…)` may override these.
SETTINGS = ("attn_logits_softcap", "final_logits_softcap", "sliding_window", "query_pre_attn_norm")


def _check_sizes(config):
  for f in dataclasses.fields(config):
    x = getattr(config, f.name)
    if f.type is int and f.name not in SETTINGS and not (_is(x, numbers.Integral) and x > 0):
      raise errors.UserError(f"{f.name} is {x!r}; give a number from 1")


def _is(x: Any, kind: type) -> bool:
  return isinstance(x, kind) and not isinstance(x, bool)


@dataclasses.dataclass(frozen=True)
class ImageConfig:
  """A SigLIP image tower without pooling."""

  width: int  # W
  depth: int
  mlp_dim: int
  num_heads: int
  patch_size: int  # pixels; stride is the same
  res: int  # pixels a side; what the position embedding was made for

  def __post_init__(self):
    _check_sizes(self)
    if self.res < self.patch_size:
      raise errors.UserError(f"res is {self.res}, less than one patch of {self.patch_size} pixels")

  @property
  def grid(self) -> int:
    """Patches a side; pixels that do not fill a patch are dropped."""
    return self.res // self.patch_size

  @property
  def num_tokens(self) -> int:
    """Image tokens per image."""
    return self.grid**2

  @property
  def head_dim(self) -> int:
    """h, width of one attention head."""
    return self.width // self.num_heads


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A Gemma 1 or Gemma 2 decoder. 0.0 and 0 turn a soft-cap and the window off."""

  width: int  # D
  depth: int
  mlp_dim: int  # F
  num_heads: int  # N
  num_kv_heads: int  # K
  head_dim: int  # H
  vocab_size: int = VOCAB_SIZE  # rows of the table, without the extra rows of the Hub files
  post_norms: bool = False  # Gemma 2: a norm after attention and after the MLP
  attn_logits_softcap: float = 0.0
  final_logits_softcap: float = 0.0  # on every path alike
  sliding_window: int = 0  # tokens; on layers 0, 2, 4, …
  query_pre_attn_norm: str = "rsqrt_head_dim"  # or "rsqrt_emb_per_head", (D/N)^-0.5

  def __post_init__(self):
    _check_sizes(self)
    for name in ("attn_logits_softcap", "final_logits_softcap"):
      x = getattr(self, name)
      if not _is(x, numbers.Real) or not 0 <= x < math.inf:
        raise errors.UserError(f"{name} is {x!r}; give a number, 0 for off")
    if not _is(self.sliding_window, numbers.Integral) or self.sliding_window < 0:
      raise errors.UserError(f"sliding_window is {self.sliding_window!r}; give tokens, 0 for off")
    if self.query_pre_attn_norm not in QUERY_NORMS:
      more = errors.did_you_mean(self.query_pre_attn_norm, QUERY_NORMS)
      raise errors.UserError(f'query_pre_attn_norm "{self.query_pre_attn_norm}" is unknown{more}')

  @property
  def query_scale(self) -> float:
    """What queries are multiplied with before the dot product."""
    dim = (
      self.head_dim
      if self.query_pre_attn_norm == "rsqrt_head_dim"
      else self.width // self.num_heads
    )
    return dim**-0.5


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A vision-language model: image tower, linear head of shape [W, D], decoder."""

  img: ImageConfig
  llm: DecoderConfig

  @property
  def family(self) -> str:
    """ "paligemma" or "paligemma2"."""
    return "paligemma2" if self.llm.post_norms else "paligemma"

  @property
  def name(self) -> str:
    """A published name such as "paligemma2-10b-448", else "FAMILY-custom-RES".

    Tokens that were added to a published model do not change its name.
    """
    for size, (img, llm) in PRESETS.items():
      if _sizes(img) == _sizes(self.img) and _dims(llm) == _dims(self.llm):
        return f"{size}-{self.img.res}"
    return f"{self.family}-custom-{self.img.res}"

  def replace(self, *, res: int | None = None, **settings: Any) -> "ModelConfig":
    """Returns a copy with another resolution (pixels) or other decoder fields, e.g. soft-caps."""
    img = self.img if res is None else dataclasses.replace(self.img, res=res)
    return ModelConfig(img, dataclasses.replace(self.llm, **settings))

  def to_dict(self) -> dict:
    """Plain dicts for JSON; `from_dict` is the inverse."""
    return dataclasses.asdict(self)

  @classmethod
  def from_dict(cls, d: dict) -> "ModelConfig":
    """Inverse of `to_dict`."""
    return cls(ImageConfig(**d["img"]), DecoderConfig(**d["llm"]))


SO400M = ImageConfig(width=1152, depth=27, mlp_dim=4304, num_heads=16, patch_size=14, res=224)
GEMMA_2B = DecoderConfig(2048, 18, 16_384, 8, 1, 256)
# The reference fine-tunes Gemma 2 with the attention cap on, the final cap off and no window.
_GEMMA2 = dict(post_norms=True, attn_logits_softcap=50.0)
GEMMA2_2B = DecoderConfig(2304, 26, 9_216, 8, 4, 256, **_GEMMA2)
GEMMA2_9B = DecoderConfig(3584, 42, 14_336, 16, 8, 256, **_GEMMA2)
GEMMA2_27B = DecoderConfig(
  4608, 46, 36_864, 32, 16, 128, query_pre_attn_norm="rsqrt_emb_per_head", **_GEMMA2
)
# Chosen for the embedded default, not from a paper: learns scenes of four big digits from scratch
# within minutes on two CPU cores. A patch is a quadrant of the scene.
TINY_IMG = ImageConfig(width=128, depth=2, mlp_dim=384, num_heads=4, patch_size=56, res=112)
TINY_LLM = DecoderConfig(128, 3, 384, 4, 1, 32, vocab_size=1536)
# Chosen for benchmarks on a CPU: the published shapes at a fifteenth of the size.
MID_IMG = ImageConfig(width=384, depth=12, mlp_dim=1536, num_heads=6, patch_size=14, res=224)
MID_LLM = DecoderConfig(768, 8, 6144, 8, 1, 256, vocab_size=32_768)

PRESETS = {
  "paligemma-3b": (SO400M, GEMMA_2B),
  "paligemma2-3b": (SO400M, GEMMA2_2B),
  "paligemma2-10b": (SO400M, GEMMA2_9B),
  "paligemma2-28b": (SO400M, GEMMA2_27B),
  "tiny": (TINY_IMG, TINY_LLM),
  "mid": (MID_IMG, MID_LLM),
}


def preset(name: str, res: int | None = None, **settings: Any) -> ModelConfig:
  """Returns the named variant, e.g. `preset("paligemma2-3b", res=448)`.

  Args:
    name: a key of `PRESETS`.
    res: pixels a side; None for the preset's own (224, tiny 112).
    **settings: decoder fields to override, e.g. final_logits_softcap=30.0.

  Raises:
    KeyError: for a name that is not in `PRESETS`.
  """
  img, llm = PRESETS[name]
  return ModelConfig(img, llm).replace(res=res, **settings)


def recognise(shapes: dict[str, tuple[int, ...]]) -> ModelConfig:
  """Returns the configuration that the shapes of a whole model's parameters imply.

  Settings that shapes cannot tell (`SETTINGS`) are those of the matching preset, whatever its
  vocabulary; of a decoder that is no preset, those of its family's 2B model. The number of heads of
  the image tower and everything else is read off the shapes; a non-published patch grid must be
  square.

  Args:
    shapes: slash-joined name -> shape, layers stacked, as `tree.param_shapes` gives them.

  Raises:
    KeyError: a tensor that is needed to tell is missing; its name is the argument.
    ValueError: the position embedding is of no square grid, or the head does not fit the decoder.
  """
  img, llm = recognise_image(shapes), recognise_decoder(shapes)
  head = shapes["img/head/kernel"]
  if head != (img.width, llm.width):
    raise ValueError(
      f"img/head/kernel has shape {list(head)}, the two towers ask for {[img.width, llm.width]}"
    )
  return ModelConfig(img, llm)


def recognise_image(shapes: dict[str, tuple[int, ...]]) -> ImageConfig:
  """The image tower's part of `recognise`."""
  patch = shapes["img/embedding/kernel"][0]
  tokens = shapes["img/pos_embedding"][1]
  L, W, A, _ = shapes["img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"]
  M = shapes["img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"][-1]
  grid = math.isqrt(tokens)
  if grid**2 != tokens:
    raise ValueError(f"img/pos_embedding has {tokens} positions, which is no square grid")
  return ImageConfig(W, L, M, A, patch, grid * patch)


def recognise_decoder(shapes: dict[str, tuple[int, ...]]) -> DecoderConfig:
  """The decoder's part of `recognise`."""
  L, N, D, H = shapes["llm/layers/attn/q_einsum/w"]
  K = shapes["llm/layers/attn/kv_einsum/w"][2]
  F = shapes["llm/layers/mlp/linear"][1]
  vocab = shapes["llm/embedder/input_embedding"][0]
  post_norms = "llm/layers/post_ffw_norm/scale" in shapes
  found = DecoderConfig(D, L, F, N, K, H, vocab, post_norms)
  for _, llm in PRESETS.values():
    if _dims(llm) == _dims(found):
      break
  else:
    llm = GEMMA2_2B if post_norms else GEMMA_2B
  return dataclasses.replace(found, **{k: getattr(llm, k) for k in SETTINGS})


def _sizes(img: ImageConfig) -> ImageConfig:
  return dataclasses.replace(img, res=img.patch_size)


def _dims(llm: DecoderConfig) -> DecoderConfig:
  """Without settings and vocabulary: tokens may have been added to a published decoder."""
  other = (*SETTINGS, "vocab_size")
  default = {f.name: f.default for f in dataclasses.fields(DecoderConfig) if f.name in other}
  return dataclasses.replace(llm, **default)
