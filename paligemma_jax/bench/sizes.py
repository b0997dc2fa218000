"""The models, prompts and lengths that the benchmarks use."""

import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

from paligemma_jax.checkpoint import formats
from paligemma_jax.models import tree, variants

TINY = variants.ModelConfig(
  variants.ImageConfig(width=128, depth=3, mlp_dim=512, num_heads=2, patch_size=14, res=224),
  variants.DecoderConfig(256, 4, 1024, 4, 1, 64, vocab_size=2048),
)
SIZES = {"tiny": TINY, "mid": variants.preset("mid"), "3b": variants.preset("paligemma-3b")}

BATCHES = (1, 8)
PROMPT = 16  # tokens
NEW_TOKENS = (32, 128)
TEXT, SUPERVISED = 128, 32  # tokens of a training example, the last ones supervised
RATE = 1e-5  # of learning


class Tokens(NamedTuple):
  """What both sides are fed; the same for every contender."""

  image: np.ndarray  # float32[B, H, W, 3] in -1..1
  text: np.ndarray  # int32[B, T], BOS first, no padding
  is_suffix: np.ndarray  # bool[B, T]


def tokens(config: variants.ModelConfig, batch_size: int, length: int, suffix: int = 0) -> Tokens:
  """Random pictures and tokens, `suffix` of each row's `length` tokens being supervised."""
  rng = np.random.default_rng(0)
  res = config.img.res
  image = rng.uniform(-1, 1, (batch_size, res, res, 3)).astype(np.float32)
  text = rng.integers(4, config.llm.vocab_size, (batch_size, length), dtype=np.int32)
  text[:, 0] = 2  # BOS
  is_suffix = np.broadcast_to(np.arange(length) >= length - suffix, text.shape)
  return Tokens(image, text, is_suffix)


def num_bytes(config: variants.ModelConfig, dtype: str = "float32") -> int:
  """Of all parameters."""
  width = {"float32": 4, "bfloat16": 2}[dtype]
  return width * sum(math.prod(shape) for shape in tree.param_shapes(config).values())


def write(config: variants.ModelConfig, path: str | os.PathLike, dtype: str = "float32") -> None:
  """A checkpoint of random weights, one slice in memory at a time.

  Args:
    config: dimensions.
    path: NAME.npz, or a folder in the format of the Hub.
    dtype: "float32" or "bfloat16".
  """
  rng, shapes = np.random.default_rng(0), tree.param_shapes(config)

  def read(name: str, layer: int | None = None) -> np.ndarray:
    shape = shapes[name] if layer is None else shapes[name][1:]
    wide = rng.standard_normal(math.prod(shape), np.float32).reshape(shape)
    # Small ones where the network starts from zeros or ones, so that activations stay in range.
    return wide * np.float32(0.02 if len(shape) < 2 or "embedding" in name else shape[-2] ** -0.5)

  formats.save(pathlib.Path(path), read, config, {}, dtype)
