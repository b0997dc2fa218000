"""The product with a weight of few bits, which is widened for this one product and never kept.

Weight-only: rows stay floats, and nothing is rounded more than in a product of floats. The backward
pass has codes and scales alone, and widens them again.

The compiler for TPUs widens int8 codes while a product loads them (seen in programs for v5e; that for
GPUs should). On a CPU it writes the widened matrix to memory and reads it again, which takes ten times
as long as a product of floats with one row. There instead:

- A few outputs at a time are widened and multiplied, so that their floats stay in the cache.
- One or two rows and int8 codes are multiplied as integers. A row becomes three of 8 bits, which add
  up to all that float32 says beside the largest value of the row. Where the processor has
  instructions for such products (VNNI, AMX), up to 64 rows are.

[rows, 2048] x [2048, 16384], float32, two cores of an AMD EPYC (AVX2, no VNNI) shared with much other
work, jax 0.10.2; ms, the better of two runs; the ratios count:

    rows                              1      2      8     64    256
    float32, weights [in, out]      6.6     27     55     95    333
    float32, weights [out, in]      5.4     11     13     66    308
    int8                            4.8    9.4     17     73    353
    nf4                              14     17     20     81    374
    nf4, double quantisation         13     17     19     79    315
    int4                             13     17     20     77    334
"""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from paligemma_jax.models import codebooks, quant, tree

_PIECES = 3  # of 8 bits: 127 * 254 * 254 steps up to the largest value; float32 has 2^23 and more
_FEW = 64  # rows
# So many values are widened at a time: with few rows as many as stay in the cache; with more the
# product takes longer than the widening, and is faster when it is large.
_SMALL, _LARGE = 2**19, 2**22


@functools.partial(jax.jit, static_argnums=2)  # traced once for each shape
def forward(
  x: Float[Array, "*b in"], parts: dict, is_stack: bool = False
) -> tuple[Float[Array, "*b out"], ...]:
  """x @ w.T, of each weight w [out, in] that codes and scales stand for.

  Args:
    x: rows; operands and results have its dtype, sums are float32.
    parts: of one matrix, as `quant.quantise` returns them, or of several, one behind the other.
    is_stack: whether there are several.
  """
  forms = dict(cpu=_by_blocks, default=_each_at_once)
  return jax.lax.platform_dependent(x, parts, **_for(is_stack, forms))


@functools.partial(jax.jit, static_argnums=2)
def input_gradient(
  dys: tuple[Float[Array, "*b out"], ...], parts: dict, is_stack: bool = False
) -> Float[Array, "*b in"]:
  """The sum of dy @ w, the gradient of x.

  4 bits are widened to bfloat16 for it, whatever dy is: as bitsandbytes does where a file's state
  names this dtype, which that of every published file does.

  Args:
    dys: gradients of the results of `forward`; operands and result have their dtype, sums are float32.
    parts, is_stack: as `forward`.
  """
  forms = dict(cpu=_gradient_by_blocks, default=_gradient_of_each)
  return jax.lax.platform_dependent(dys, parts, **_for(is_stack, forms))


def _for(is_stack, forms):
  return {where: functools.partial(form, is_stack) for where, form in forms.items()}


def _apart(parts):
  """The arrays of each matrix."""
  return [{key: x[i] for key, x in parts.items()} for i in range(len(parts["absmax"]))]


def _each_at_once(is_stack, x, parts):
  return tuple(_at_once(x, one) for one in (_apart(parts) if is_stack else [parts]))


def _gradient_of_each(is_stack, dys, parts):
  each = _apart(parts) if is_stack else [parts]
  return sum(_gradient_at_once(dy, one) for dy, one in zip(dys, each, strict=True))


def _now(x, parts):
  """Both; what is made of `parts` waits for `x`, so that no loop over steps makes it beforehand.

  Where int8 codes go into a product as they are they need none, and it would copy each layer's.
  """
  return jax.lax.optimization_barrier((x, parts))


def _at_once(x, parts):
  shape = _other_size(parts, x.shape[-1]), x.shape[-1]
  if not _is_paired(parts, shape):
    return _scaled(_dot(x, _unscaled(parts, shape, x.dtype), 1), parts).astype(x.dtype)
  x, parts = _now(x, parts)
  x = jnp.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
  return _dot(x, _even_first(parts, shape, x.dtype), 1).astype(x.dtype)


def _gradient_at_once(dy, parts):
  shape = dy.shape[-1], _other_size(parts, dy.shape[-1])
  if not _is_paired(parts, shape):
    w = _unscaled(parts, shape, _of_gradient(parts, dy)).astype(dy.dtype)
    return _dot(_scaled(dy, parts), w, 0).astype(dy.dtype)
  dy, parts = _now(dy, parts)
  w = _even_first(parts, shape, _of_gradient(parts, dy)).astype(dy.dtype)
  dx = _dot(dy, w, 0).astype(dy.dtype)
  # Not as the transpose of those slices: padding with gaps keeps the TPU's compiler busy for minutes.
  return jnp.stack(jnp.split(dx, 2, axis=-1), axis=-1).reshape(*dy.shape[:-1], -1)


def _of_gradient(parts, dy):
  """The dtype that weights are widened to for the gradient of rows."""
  return dy.dtype if "int8" in parts else jnp.bfloat16


def _is_paired(parts, shape):
  """Whether a byte holds two codes of one output."""
  return "int8" not in parts and shape[1] % 2 == 0


def _even_first(parts, shape, dtype):
  """The weights [out, in], inputs of even number first.

  In their own order, those of one byte beside each other, an axis of two would be the last one, which
  takes 64 times the memory on a TPU. There is no gather from a table either.
  """
  kind, half = _kind(parts), shape[1] // 2
  pairs, scales = parts[kind].reshape(-1, half), quant.scales(parts)
  block = tree.block_size(pairs.shape, scales.shape)
  scales = jnp.repeat(scales, block // 2, axis=1).reshape(-1)[: pairs.size].reshape(-1, half)
  codes = jnp.concatenate([pairs >> 4, pairs & 15], axis=1).astype(jnp.int32)
  values = quant.choose(codes, codebooks.BOOKS[kind])
  return (values * jnp.concatenate([scales, scales], axis=1)).astype(dtype)


# On a CPU all matrices of a stack are multiplied together: to take one out of it would copy it.


def _stacked(is_stack, parts):
  """With an axis of matrices in front. (Before `_now`, the compiler would copy the codes for it.)"""
  return parts if is_stack else {key: x[None] for key, x in parts.items()}


def _by_blocks(is_stack, x, parts):
  x, parts = _now(x, parts)
  parts = _stacked(is_stack, parts)
  rows = x.reshape(-1, into := x.shape[-1])
  if "int8" in parts and len(rows) <= _integer_rows():
    ys = _by_integers(rows, parts["int8"])
  else:
    out, count = _other_size(parts, into), len(parts["absmax"])
    size = _SMALL if len(rows) <= _FEW else _LARGE

    def add(ys, start, _, n, block):
      w = _all_unscaled(block, (n, into), x.dtype)
      return jax.lax.dynamic_update_slice(ys, _dot(w, rows, 1), (0, start, 0))

    # Overwritten, whatever it is; zeros would be there for all layers from the start.
    start = jnp.broadcast_to(rows[0, 0].astype(jnp.float32), (count, out, len(rows)))
    ys = _over_blocks(add, start, parts, (out, into), size)
  return tuple(
    _scaled(y.T, one).astype(x.dtype).reshape(*x.shape[:-1], -1)
    for y, one in zip(ys, _apart(parts), strict=True)
  )


def _gradient_by_blocks(is_stack, dys, parts):
  dys, parts = _now(dys, parts)
  parts = _stacked(is_stack, parts)
  out, dtype, lead = dys[0].shape[-1], dys[0].dtype, dys[0].shape[:-1]
  into = _other_size(parts, out)
  rows = [_scaled(dy.reshape(-1, out), one) for dy, one in zip(dys, _apart(parts), strict=True)]
  rows = jnp.stack(rows, 1)

  def add(dx, start, old, n, block):
    w = _all_unscaled(block, (n, into), _of_gradient(block, dys[0])).astype(dtype)
    new = jax.lax.dynamic_slice_in_dim(rows, start, n, 2)
    new = jnp.where(jnp.arange(n)[None, None] < old, 0, new)
    axes = ((1, 2), (0, 1)), ((), ())
    return dx + jax.lax.dot_general(new, w, axes, preferred_element_type=jnp.float32)

  dx = _over_blocks(add, jnp.zeros((len(rows), into)), parts, (out, into), _LARGE)
  return dx.astype(dtype).reshape(*lead, -1)


def _over_blocks(add, total, parts, shape, size):
  """`total` after `add` (total, first output, how many are not new, outputs, their parts) of all blocks.

  About `size` weights are a block, but all outputs where rows share a scale. There are at least two
  blocks: without a loop, the compiler widens the matrices of all layers before the first product.
  """
  kind = _kind(parts)
  parts = {kind: parts[kind], "absmax": jax.vmap(quant.scales)(parts)}
  out, into = shape
  if any(part.shape[1] != out for part in parts.values()):
    return add(total, 0, 0, out, parts)
  count = min(out, max(2, -(-out * into * len(parts[kind]) // size)))
  n = -(-out // count)

  def one(i, total):
    start = jnp.minimum(i * n, out - n)  # the last one may repeat outputs of the one before
    block = {k: jax.lax.dynamic_slice_in_dim(part, start, n, 1) for k, part in parts.items()}
    return add(total, start, i * n - start, n, block)

  return jax.lax.fori_loop(0, count, one, total)


def _by_integers(rows, codes):
  """rows @ codes.T of each matrix as integers, float32[m, out, n], to 1e-7 of the largest value in a row."""
  rows = rows.astype(jnp.float32)
  largest = jnp.maximum(jnp.max(jnp.abs(rows), axis=1, keepdims=True), np.finfo(np.float32).tiny)
  rest, pieces = rows / largest * 127, []
  for _ in range(_PIECES):
    piece = jnp.round(rest)
    pieces.append(piece.astype(jnp.int8))
    rest = (rest - piece) * 254
  # Codes first, and so that the compiler does not turn it back: in two thirds of the time.
  sums = jax.lax.optimization_barrier(_dot(codes, jnp.concatenate(pieces), 1, jnp.int32))
  total = 0
  for piece in reversed(jnp.split(sums.astype(jnp.float32), _PIECES, axis=2)):
    total = total / 254 + piece
  return total * (largest.T[None] / 127)


@functools.cache
def _integer_rows() -> int:
  """So many rows at most are faster as integers on this CPU."""
  try:
    flags = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    flags = ""
  return _FEW if re.search(r"\b(avx_vnni|avx512_vnni|amx_int8)\b", flags) else 2


def _dot(x, w, axis: int, dtype=jnp.float32):
  """x [*b, n] times w, whose `axis` is n, in `dtype`."""
  return jax.lax.dot_general(
    x, w, (((x.ndim - 1,), (axis,)), ((), ())), preferred_element_type=dtype
  )


def _unscaled(parts, shape, dtype):
  """[out, in] in `dtype`; the scales of int8 codes are left to `_scaled`."""
  if "int8" in parts:
    return parts["int8"].astype(dtype)
  return quant.widen(parts, shape).astype(dtype)


def _all_unscaled(parts, shape, dtype):
  """[m, out, in], as `_unscaled` of every matrix."""
  return jax.vmap(lambda one: _unscaled(one, shape, dtype))(parts)


def _scaled(y, parts):
  """y [*b, out], times the scales of int8 codes."""
  if "int8" not in parts:
    return y
  scale = parts["absmax"] * np.float32(1 / 127)
  return (y * jnp.expand_dims(scale, range(y.ndim - 1))).astype(y.dtype)


def _kind(parts):
  return next(kind for kind in tree.KINDS if kind in parts)


def _other_size(parts, size):
  """`in` of `out`, or `out` of `in`; `parts` of matrices one behind the other, or of one."""
  kind = _kind(parts)
  number = parts[kind].size // (len(parts[kind]) if parts[kind].ndim == 3 else 1)
  return number * (1 if kind == "int8" else 2) // size
