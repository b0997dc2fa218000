"""A checksum of an array that does not depend on how the array is sharded.

sum over elements of bits(x) * odd hash(global index), modulo 2^32: addition commutes, so every device
adds up its own part, and a step that is restored on another mesh must give the same number. Any
single wrong element changes it, since an odd factor is invertible modulo 2^32.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B1)  # 2^32 / golden ratio, odd; spreads neighbouring indices


def leaves(tree) -> dict[str, tuple[str, jax.Array]]:
  """Name of every array leaf of `tree` -> (dtype, uint32[] checksum).

  Leaves are named by their path, "params/llm/final_norm/scale". For JAX arrays the work is
  dispatched, not waited for; NumPy arrays are gone through in pieces.
  """
  found = named(tree)
  sums = {k: _pieces(x) for k, x in found.items() if isinstance(x, np.ndarray | np.generic)}
  groups: dict = {}  # one compiled program for each set of devices
  for name, x in found.items():
    if isinstance(x, jax.Array):
      groups.setdefault(frozenset(x.sharding.device_set), {})[name] = x
  for group in groups.values():
    sums |= _sums(group)
  return {k: (str(x.dtype), sums[k]) for k, x in found.items() if k in sums}


def named(tree) -> dict:
  """Path -> leaf of a tree, "params/llm/final_norm/scale"."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): x
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


@jax.jit
def _sums(group: dict) -> dict:
  return {name: _sum(x, np.uint32(0)) for name, x in group.items()}


_piece = jax.jit(lambda x, start: _sum(x, start))
_PIECE = 2**20  # elements; one shape, so that one program does for all NumPy arrays of a dtype


def part(x: np.ndarray, first: int) -> int:
  """What `x`, the elements of an array from flat index `first` on, adds to its checksum."""
  return int(_pieces(x, first))


def _pieces(x: np.ndarray, first: int = 0) -> jax.Array:
  flat, total = np.asarray(x).reshape(-1), jnp.uint32(0)
  for start in range(0, flat.size, _PIECE):
    piece = np.zeros(
      _PIECE, flat.dtype
    )  # what is added to the end are zero bits, and counts nothing
    piece[: flat.size - start] = flat[start : start + _PIECE]
    total += _piece(piece, np.uint32((first + start) % 2**32))
  return total


def _sum(x, start) -> jax.Array:
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  index = jnp.full(x.shape, start, jnp.uint32)
  for axis in range(x.ndim):
    stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
    index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
  weight = index * _GOLDEN
  weight = (weight ^ (weight >> 15)) * _GOLDEN | np.uint32(1)
  return jnp.sum(_bits(x) * weight, dtype=jnp.uint32)


def _bits(x) -> jax.Array:
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  width = x.dtype.itemsize
  if width == 8:
    low_high = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return low_high[..., 0] ^ (low_high[..., 1] * _GOLDEN)
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
  return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
