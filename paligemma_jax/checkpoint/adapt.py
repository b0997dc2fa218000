"""A checkpoint fitted to what was asked for: other settings, another resolution, more tokens."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy, source
from paligemma_jax.models import variants

POSEMB = "img/pos_embedding"
TABLE = "llm/embedder/input_embedding"
PREPROCESSING = ("resize", "alpha")  # settings of the processor, which knows their values
SETTINGS = {  # what a user may say of any checkpoint -> its type
  "attn_logits_softcap": float,
  "final_logits_softcap": float,
  "sliding_window": int,
  "query_pre_attn_norm": str,
  "res": int,
  **dict.fromkeys(PREPROCESSING, str),
}


def parse(assignments: list[str]) -> dict[str, Any]:
  """["final_logits_softcap=30", …] -> {name: value}, as `pg.load(config=…)` takes it.

  Raises:
    UserError: no assignment, an unknown name, or a number that is none.
  """
  found = {}
  for text in assignments:
    name, equals, value = text.partition("=")
    if not equals:
      raise errors.UserError(f'"{text}" sets nothing; write KEY=VALUE')
    kind = _type(name)
    try:
      found[name] = kind(value)
    except ValueError:
      raise errors.UserError(f'{name} is "{value}", which is no {kind.__name__}') from None
  return found


def settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits what a user says of a checkpoint into (fields of the model, of the processor).

  Raises:
    UserError: an unknown name, or a value of another type.
  """
  model, processor = {}, {}
  for name, value in given.items():
    kind = _type(name)
    if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
      raise errors.UserError(f"{name} is {value!r}, which is no {kind.__name__}")
    (processor if name in PREPROCESSING else model)[name] = kind(value)
  return model, processor


def _type(name: str) -> type:
  if name not in SETTINGS:
    raise errors.UserError(f'config: "{name}" is unknown{errors.did_you_mean(name, SETTINGS)}')
  return SETTINGS[name]


def changed(src: source.Source, model: Mapping[str, Any]) -> source.Source:
  """The same checkpoint with other settings, and of another resolution when "res" is given.

  Args:
    src: a whole model.
    model: from `settings`.

  Raises:
    UserError: a value that cannot be.
  """
  config = src.config.replace(**model)
  arrays = fitted(src, config)
  arrays = {
    n: x if x.dtype == src.dtypes[n] else lazy.Cast(x, src.dtypes[n]) for n, x in arrays.items()
  }
  return source.Source(
    src.path, src.format, arrays, config, src.assets, src.meta, src.verify, src.quantised
  )


def fitted(src: source.Source, config: variants.ModelConfig, extend_vocab: bool = False) -> dict:
  """The source's arrays, fitted to another resolution and, when asked, a larger vocabulary."""
  found = dict(src.arrays)
  posemb = found.get(POSEMB)
  tokens = config.img.num_tokens
  if posemb is not None and len(posemb.shape) == 3 and posemb.shape[1] != tokens:
    wide = np.asarray(posemb).astype(np.float32)
    found[POSEMB] = _InMemory(resample_posemb(wide, config.img.grid))
  table, rows = found.get(TABLE), config.llm.vocab_size
  if extend_vocab and table is not None and table.shape[0] < rows:
    found[TABLE] = _Extended(table, rows)
  return found


def resample_posemb(x: np.ndarray, grid: int) -> np.ndarray:
  """Position embedding [1, n, W] of a square grid -> [1, grid * grid, W].

  Linear with aligned corners: the outermost patches keep their embedding.
  Source: big_vision models/vit.py, which calls scipy.ndimage.zoom(order=1).

  Raises:
    ValueError: n is no square.
  """
  old = math.isqrt(x.shape[1])
  if old**2 != x.shape[1]:
    raise ValueError(f"{x.shape[1]} positions are no square grid")
  if old == grid:
    return x
  table = x.reshape(old, old, -1).astype(np.float64)
  at = np.arange(grid) * ((old - 1) / max(1, grid - 1))
  low = np.minimum(at.astype(int), max(0, old - 2))
  high, weight = np.minimum(low + 1, old - 1), at - low
  rows = table[low] * (1 - weight)[:, None, None] + table[high] * weight[:, None, None]
  both = rows[:, low] * (1 - weight)[None, :, None] + rows[:, high] * weight[None, :, None]
  return both.reshape(1, grid * grid, -1).astype(x.dtype)


class _InMemory(lazy.Array):
  """An array that is there already."""

  def __init__(self, x: np.ndarray):
    self.x, self.shape, self.dtype = x, x.shape, x.dtype

  def read(self, index):
    """See `lazy.Array.read`."""
    return self.x[index]


class _Extended(lazy.Array):
  """A table with random rows after its own."""

  def __init__(self, table: lazy.Array, rows: int):
    self.table, self.dtype, self.shape = table, table.dtype, (rows, table.shape[1])
    more = np.random.default_rng(0).normal(size=(rows - table.shape[0], table.shape[1]))
    self.more = (0.02 * more).astype(np.float32).astype(table.dtype)

  def read(self, index):
    """See `lazy.Array.read`."""
    first, columns = index
    own = self.table.shape[0]
    parts = []
    if first.start < own:
      parts.append(self.table.read((slice(first.start, min(first.stop, own)), columns)))
    if first.stop > own:
      parts.append(self.more[max(0, first.start - own) : first.stop - own, columns])
    return np.concatenate(parts) if parts else self.more[:0, columns]
