"""The dynamic maps of bitsandbytes (`models.codebooks.dynamic_map`) as arithmetic.

A map gives 8 bits to a value in -1..1. It holds zero, 1.0 and seven decades, 10^(d-7) to 10^(d-6)
for d = 0..6; a decade is cut into 2^e equal parts, of which it has the centres. The signed map has
e = d and both signs (-0.993 to 1; zero is code 127), the other e = d + 1 (0 to 1). So value number
j, counted from zero, is part k of the decade where j, or j + 1, is 2^e + k: the form in which a
float keeps a whole number.

No table is looked into: on a CPU the nearest code takes 3 ns a value so, and 100 by bisection; a
TPU has no fast look-up at all. What bitsandbytes computes in float32 is up to two units in the last
place off. Two bits for each value say by how much, so that its codes come out even where a value
lies between two.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from paligemma_jax.models import codebooks

_DECADES = 7
_SCALES = np.float32(10.0 ** (_DECADES - np.arange(_DECADES)))  # decade d times this is 1..10
_PER_WORD = 16  # corrections, of two bits


class DynamicMap:
  """One of the two maps.

  Attributes:
    zero: the code of 0.0.
  """

  def __init__(self, signed: bool):
    self.zero = 127 if signed else 0
    self._shift = 0 if signed else 1
    self._top = 255 - self.zero  # number of 1.0
    self._parts = np.float32(2.0 ** (np.arange(_DECADES) + self._shift))
    values = codebooks.dynamic_map(signed)[self.zero :]
    between = (values[1:].astype(np.float64) + values[:-1]) / 2
    edges = between.astype(np.float32)  # what is above takes the value above: rounded down
    edges = np.where(edges > between, np.nextafter(edges, np.float32(0)), edges)
    self._first, self._last = edges[0], edges[-1]
    self._decades = edges[self._parts.astype(int)[1:] - self._shift - 1]
    k = np.concatenate([np.arange(n, dtype=np.float32) for n in self._parts])
    parts, scale = (np.repeat(x, self._parts.astype(int)) for x in (self._parts, _SCALES))
    self._value_ulps = _packed(values[1:-1], _point(k + np.float32(0.5), parts, scale))
    self._edge_ulps = _packed(edges[:-1], _point(k, parts, scale))

  def widen(self, codes: UInt8[Array, "*n"]) -> Float[Array, "*n"]:
    """The values that codes stand for, float32."""
    number = codes.astype(jnp.int32) - self.zero
    j = jnp.abs(number)
    n = (j + self._shift).astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(n, jnp.int32) & 0x7F800000
    parts = jax.lax.bitcast_convert_type(bits, jnp.float32)  # n without its mantissa: 2^e
    scale = jnp.full(n.shape, _SCALES[0])
    for d in range(1, _DECADES):
      scale = jnp.where(n < self._parts[d], scale, _SCALES[d])
    x = _corrected(_point(n - parts + 0.5, parts, scale), self._value_ulps, j)
    x = jnp.where(j == 0, 0.0, jnp.where(j == self._top, 1.0, x))
    return jnp.where(number < 0, -x, x)

  def narrow(self, x: Float[Array, "*n"]) -> UInt8[Array, "*n"]:
    """The codes of the nearest values; x: float32 in -1..1 (0..1 of the map without signs).

    Of two as near, the one nearer to zero.
    """
    size = jnp.abs(x)
    parts, scale = jnp.full(x.shape, self._parts[0]), jnp.full(x.shape, _SCALES[0])
    for d in range(1, _DECADES):
      above = size > self._decades[d - 1]
      parts = jnp.where(above, self._parts[d], parts)
      scale = jnp.where(above, _SCALES[d], scale)
    k = jnp.clip(jnp.round((size * scale - 1) * parts / 9), 0, parts)  # the nearest edge of parts
    number = lambda k: (parts + k).astype(jnp.int32) - self._shift
    edge = _corrected(_point(k, parts, scale), self._edge_ulps, number(k))
    j = number(jnp.clip(jnp.where(size > edge, k, k - 1), 0, parts - 1))
    j = jnp.where(size > self._last, self._top, jnp.where(size > self._first, j, 0))
    code = self.zero + jnp.where(x < 0, jnp.maximum(-j, -self.zero), j)  # -1.0 has no code
    return code.astype(jnp.uint8)


def _point(k, parts, scale):
  """Where a decade is after k parts. Rounded by the last division alone, whatever is fused."""
  return (1 + 9 * k / parts) / scale


def _packed(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
  """uint32[words]: units in the last place, -1..2, that numbers 1, 2, … are short of `wanted`.

  0 where these are more: at edges between decades, which `narrow` does not look at.
  """
  ulps = np.append(0, wanted.view(np.int32) - found.view(np.int32))
  ulps = np.where((ulps < -1) | (ulps > 2), 0, ulps)
  fields = np.append(ulps + 1, [1] * (-len(ulps) % _PER_WORD)).astype(np.uint32)
  return (fields.reshape(-1, _PER_WORD) << np.arange(0, 32, 2, dtype=np.uint32)).sum(1, np.uint32)


def _corrected(x: Float[Array, "*n"], ulps: np.ndarray, j: Int[Array, "*n"]) -> Float[Array, "*n"]:
  """x moved by field j of `_packed`, units in the last place."""
  words, bit = list(ulps), _PER_WORD
  while len(words) > 1:  # each bit of j halves them
    odd = (j & bit) != 0
    pairs = zip(words[::2], words[1::2] + words[-1:], strict=False)
    words = [jnp.where(odd, b, a) for a, b in pairs]
    bit *= 2
  field = words[0] >> (j % _PER_WORD * 2).astype(jnp.uint32) & 3
  bits = jax.lax.bitcast_convert_type(x, jnp.int32) + field.astype(jnp.int32) - 1
  return jax.lax.bitcast_convert_type(bits, jnp.float32)
