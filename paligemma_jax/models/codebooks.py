"""The values that codes of 4 and 8 bits stand for. Without JAX: headers of checkpoints are checked with them."""

import numpy as np

# The 16 values of a code, times the block's largest absolute value. Source: bitsandbytes 0.50
# (NF4: quantiles of a normal distribution; FP4: sign, 2 bits exponent, 1 bit mantissa, divided by 12).
_NF4_BITS = """bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000
  3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8 3f1007ab 3f3913b3 3f800000"""
_FP4_HALF = np.float32([0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4])
BOOKS = {  # kind -> float32[16]
  "nf4": np.array([int(bits, 16) for bits in _NF4_BITS.split()], np.uint32).view(np.float32),
  "fp4": np.concatenate([_FP4_HALF, np.float32([0]), -_FP4_HALF[1:]]),
  "int4": (np.arange(16, dtype=np.float32) - 8) / np.float32(7),
}


def dynamic_map(signed: bool) -> np.ndarray:
  """The 256 values, sorted, of bitsandbytes' 8-bit codes with a moving exponent, float32.

  Of each power of ten from 1e-6 to 1 the interval 0.1 … 1 is cut into equal parts, twice as many as
  of the one below; their centres, 0 and 1 are the values. Source: 8-bit optimizers, arXiv:2110.02861.

  Args:
    signed: -0.99… to 1; else 0 to 1 with twice as many parts.
  """
  values = [np.float32([0, 1])]
  for exponent in range(7):
    edges = _linspace(2 ** (exponent + (not signed)))
    centres = np.float32(10.0 ** (exponent - 6)) * ((edges[:-1] + edges[1:]) / np.float32(2))
    values += [centres, -centres] if signed else [centres]
  return np.sort(np.concatenate(values))


def _linspace(parts: int) -> np.ndarray:
  """0.1 … 1 as PyTorch computes it: from both ends, product and sum rounded once."""
  start, end = np.float32(0.1), np.float32(1)
  step, i = np.float64((end - start) / np.float32(parts)), np.arange(parts + 1)
  return np.where(2 * i < parts + 1, start + step * i, end - step * (parts - i)).astype(np.float32)
