"""Weights of 8 and 4 bits: codes, scales, and back to float32.

The forms are those of bitsandbytes, bit for bit: LLM.int8 (arXiv:2208.07339), NF4 with and without
double quantisation (QLoRA, arXiv:2305.14314) and FP4; and a plain symmetric int4. A matrix here is one
linear map [out, in], as PyTorch lays it. Every function takes NumPy or JAX, also under `jax.jit`,
and returns its kind, with the same bits: checkpoints are read and written without JAX.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float

from paligemma_jax.models import codebooks, tree

_TINY = np.finfo(np.float32).tiny
_PIECE = 2**15  # values that NumPy works on at a time


def quantise(matrix: Float[Array | np.ndarray, "out in"], quant: tree.Quant) -> dict:
  """The codes and scales of a matrix.

  The weights are taken as float32 whatever their dtype; int8 sees them rounded to float16, as
  bitsandbytes does. Nearest value, of two as near the lower one.

  Returns:
    "int8": int8[out, in] with "absmax" float32[out]; or the kind: uint8[out, in / 2], two codes a
    byte, the first in the high half ([1, ceil(out * in / 2)] where `in` is odd), with "absmax"
    [out, in / block] ([1, ceil(out * in / block)] where `block` does not divide `in`), float32, of
    int4 bfloat16. With double quantisation "absmax" is uint8, and there are "nested"
    float32[ceil(blocks / 256)] and "offset" float32[].
  """
  out, width = matrix.shape
  matrix = matrix if matrix.dtype == np.float32 else matrix.astype(np.float32)
  if quant.kind == "int8":
    codes, absmax = _by_pieces(_int8_codes, matrix)
    return {"int8": codes, "absmax": absmax}
  total, flat = out * width, matrix.reshape(-1)
  function = functools.partial(
    _int4_codes if quant.kind == "int4" else _book_codes, kind=quant.kind
  )
  codes, absmax = _by_pieces(function, _blocks(flat, quant.block), total % quant.block)
  parts = {}
  if quant.double:
    values = absmax - (offset := _mean(absmax))
    absmax, nested = _by_pieces(
      _nested_codes, _blocks(values, tree.NESTED), values.size % tree.NESTED
    )
    absmax, parts = absmax.reshape(-1)[: values.size], {"nested": nested, "offset": offset}
  codes = codes.reshape(-1)[: -(-total // 2)]
  return {
    quant.kind: codes.reshape(out if width % 2 == 0 else 1, -1),
    "absmax": absmax.reshape(out if width % quant.block == 0 else 1, -1),
    **parts,
  }


def widen(parts: dict, shape: tuple[int, int]) -> Float[Array | np.ndarray, "out in"]:
  """The weights, float32[out, in], that codes and scales stand for.

  Args:
    parts: as `quantise` returns them.
    shape: (out, in).
  """
  absmax, total = parts["absmax"], shape[0] * shape[1]
  if "int8" in parts:  # 1/127 in float32; the order of the products counts
    return parts["int8"] * absmax[:, None] * np.float32(1 / 127)
  absmax = scales(parts)
  kind = next(k for k in codebooks.BOOKS if k in parts)
  values = _values(parts[kind].reshape(-1), codebooks.BOOKS[kind])
  block = tree.block_size(parts[kind].shape, parts["absmax"].shape)
  blocks = _blocks(values[:total], block) * absmax.reshape(-1, 1)
  return blocks.reshape(-1)[:total].reshape(shape)


def scales(parts: dict):
  """float32 scales of blocks, in the shape of "absmax"."""
  if "nested" not in parts:
    return parts["absmax"].astype(np.float32)
  codes = parts["absmax"].reshape(-1)
  values = _dynamic(codes)
  wide = _product(_blocks(values, tree.NESTED), parts["nested"][:, None])
  return (wide.reshape(-1)[: codes.size] + parts["offset"]).reshape(parts["absmax"].shape)


def _dynamic(codes):
  """The values of 8-bit codes of the signed dynamic map."""
  book = codebooks.dynamic_map(signed=True)
  if isinstance(codes, np.ndarray):
    return np.take(book, codes)
  return jax.lax.platform_dependent(
    codes,
    tpu=lambda codes: choose(codes, book),
    default=lambda codes: jnp.take(jnp.asarray(book), codes.astype(np.int32)),
  )


def _namespace(x):
  return np if isinstance(x, np.ndarray) else jnp


def _blocks(flat, block: int):
  """[blocks, block], the last one filled up with zeros."""
  rest = -flat.size % block
  flat = _namespace(flat).pad(flat, (0, rest)) if rest else flat
  return flat.reshape(-1, block)


def _by_pieces(function, rows, rest: int = 0):
  """`function(rows)` -> (codes, absmax) of each row.

  NumPy works piece by piece, of a size that stays in the cache. Of an incomplete last row, one of `rest`
  values, the function is told.
  """
  size = len(rows)
  if isinstance(rows, np.ndarray):
    size = max(1, _PIECE // rows.shape[1])
  whole = len(rows) - bool(rest)
  pieces = [function(rows[i : min(i + size, whole)]) for i in range(0, whole, size)]
  if rest:
    pieces.append(function(rows[whole:], is_rest=True))
  concatenate = _namespace(rows).concatenate
  return pieces[0] if len(pieces) == 1 else tuple(map(concatenate, zip(*pieces)))


def _int8_codes(rows):
  xp, smallest = _namespace(rows), 2.0**-24  # of float16; nothing is divided by 0
  rows = _rounded(rows, 10, smallest)
  absmax = xp.abs(rows).max(1)
  scale = 1 / xp.maximum(absmax, np.float32(smallest)) * np.float32(127)
  return xp.round(rows * scale[:, None]).astype(np.int8), absmax


def _int4_codes(blocks, kind: str, is_rest: bool = False):
  xp = _namespace(blocks)
  absmax = _rounded(xp.abs(blocks).max(1), 7)
  codes = xp.round(blocks * (7 / xp.maximum(absmax, _TINY * 8))[:, None]) + 8
  return _packed(xp.clip(codes, 1, 15).astype(np.uint8)), absmax.astype(ml_dtypes.bfloat16)


def _book_codes(blocks, kind: str, is_rest: bool = False):
  scaled, absmax = _scaled(blocks, is_rest)
  order = np.argsort(codebooks.BOOKS[kind], stable=True)
  codes = _nearest(scaled, codebooks.BOOKS[kind][order])
  if kind == "fp4":  # its codes are not in the order of their values
    xp = _namespace(blocks)
    codes = xp.take(xp.asarray(order.astype(np.uint8)), codes.astype(np.int32))
  return _packed(codes), absmax


def _nested_codes(blocks, is_rest: bool = False):
  scaled, absmax = _scaled(blocks, is_rest)
  xp, values = _namespace(blocks), codebooks.dynamic_map(signed=True)
  middles = xp.asarray((values[:-1] + values[1:]) / np.float32(2))
  return xp.searchsorted(middles, scaled).astype(np.uint8), absmax


def _scaled(blocks, is_rest: bool):
  """(blocks, each divided by its largest absolute value; that value).

  As bitsandbytes: by its reciprocal, but for an incomplete last block.
  """
  xp = _namespace(blocks)
  absmax = xp.abs(blocks).max(1)
  divisor = xp.maximum(absmax, _TINY)[:, None]
  return blocks / divisor if is_rest else blocks * (1 / divisor), absmax


def _rounded(x, bits: int, smallest: float = 0.0):
  """float32 rounded to a narrower float with `bits` after the point and steps of `smallest` at least.

  To a sum with 1.5 * 2^(23 - bits) times the power of two in x, float32 rounds x so. It takes a fifth of
  the time of NumPy's casts to float16, and XLA leaves two casts away.
  """
  power = (x.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
  large = power * np.float32(1.5 * 2 ** (23 - bits))
  large = _namespace(x).maximum(large, np.float32(1.5 * 2**23 * smallest))
  return (x + large) - large


def _nearest(x, values: np.ndarray):
  """uint8, which of the sorted `values` is nearest; of two the lower one."""
  middles = (values[:-1] + values[1:]) / np.float32(2)
  if isinstance(x, np.ndarray):
    ranks, above = np.zeros(x.shape, np.uint8), np.empty(x.shape, bool)
    for middle in middles:
      ranks += np.greater(x, middle, out=above).view(np.uint8)
    return ranks
  return sum((x > middle).astype(np.int32) for middle in middles).astype(np.uint8)


def _packed(codes):
  """Two codes a byte, the first in the high half."""
  pairs = codes.reshape(*codes.shape[:-1], -1, 2)
  if isinstance(codes, np.ndarray):
    pairs = pairs.view("<u2")[..., 0]
  else:  # indexing the last axis costs four times as much on a CPU
    pairs = jax.lax.bitcast_convert_type(pairs, np.uint16)
  return (pairs << 4 | pairs >> 8).astype(np.uint8)


def _values(codes, book: np.ndarray):
  """The values float32[2 n] of uint8[n], two codes a byte."""
  halves = np.arange(256)
  pairs = np.stack([book[halves >> 4], book[halves & 15]], 1)
  if isinstance(codes, np.ndarray):
    return np.take(pairs.view(np.complex64)[:, 0], codes).view(np.float32)
  # Where there is no gather in hardware it is slow; where there is one it takes half the time.
  values = jax.lax.platform_dependent(
    codes,
    tpu=lambda codes: _selected(codes, book),
    default=lambda codes: jnp.take(jnp.asarray(pairs), codes.astype(np.int32), axis=0),
  )
  return values.reshape(-1)


def _selected(codes, book: np.ndarray):
  """As a table."""
  wide = codes.astype(np.uint16)
  return choose(jax.lax.bitcast_convert_type(wide >> 4 | (wide & 15) << 8, np.uint8), book)


def choose(codes, book: np.ndarray):
  """book[codes] of uint8 codes without a gather: by choices on the bits of a code."""
  return _choose(codes, tuple(book.tolist()))


@functools.partial(jax.jit, static_argnums=1)  # traced once for each shape
def _choose(codes, book: tuple[float, ...]):
  values = [jnp.float32(value) for value in book]
  for bit in range(len(book).bit_length() - 1):
    is_set = codes & (1 << bit) != 0
    values = [jnp.where(is_set, odd, even) for even, odd in zip(values[::2], values[1::2])]
  return values[0]


def _mean(x):
  """Of numbers from 0 on: their sum, rounded once, over their count."""
  count = np.float32(x.size)
  if isinstance(x, np.ndarray):
    return x.sum(dtype=np.float64).astype(np.float32) / count
  rest = jnp.zeros_like(x)  # what rounding took from x
  while x.size > 1:
    (a, b), (c, d) = (_blocks(v, -(-v.size // 2)) for v in (x, rest))
    x, error = _two_sum(a, b)
    rest = c + d + error
  # By a constant XLA does not divide but multiplies.
  return (x[0] + rest[0]) / jnp.maximum(count, -x[0])


def _two_sum(a, b):
  """(a + b, what rounding took from it). Source: Knuth, TAOCP 2, 4.2.2."""
  total = a + b
  part = total - a
  return total, (a - (total - part)) + (b - part)


def _product(a, b):
  """The product, rounded. XLA rounds a product and the sum it goes into only once."""
  return a * b if isinstance(a, np.ndarray) else jnp.maximum(a * b, -np.finfo(np.float32).max)
