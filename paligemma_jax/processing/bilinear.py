"""Bilinear resize with the arithmetic of TensorFlow's kernels, in numpy.

The reference truncates the result to uint8, so that one unit in the last place moves flat areas by
a grey level: 200 becomes 199.99998 becomes 199. Therefore weights and sums are float32 and are
formed in the order of TensorFlow's `ScaleAndTranslate` (antialiased) and `ResizeBilinear` (not).
Equal bit for bit to tensorflow 2.21 on x86 for flat, random, tiny and 6 megapixel pictures.
"""

import functools

import numpy as np

_ROWS = 16  # results of one block stay in the processor's cache; 896 px: 30 ms -> 18 ms


def antialiased(image: np.ndarray, height: int, width: int, dtype=np.float32) -> np.ndarray:
  """Resizes [h, w, C] with a triangle filter as wide as a new pixel; returns [height, width, C].

  Args:
    image: any real dtype; computed in float32, without rounding.
    height, width: of the result.
    dtype: of the result; uint8 truncates.

  Source: big_vision `pp/ops_image.py` resize(antialias=True).
  """
  h, w, _ = image.shape
  rows = _weighted_rows(image.astype(np.float32), *_taps(h, height))
  columns = _weighted_rows(_transposed(rows), *_taps(w, width))
  # No clip before the cast: a mean with non-negative weights exceeds 255 by some 1e-5 at most.
  return _transposed(columns.astype(dtype, copy=False))


def plain(image: np.ndarray, height: int, width: int, dtype=np.float32) -> np.ndarray:
  """Interpolates [h, w, C] between the four nearest pixels only; returns [height, width, C].

  Args:
    image: any real dtype; computed in float32, without rounding.
    height, width: of the result.
    dtype: of the result; uint8 truncates.

  Source: big_vision `pp/ops_image.py` resize(antialias=False).
  """
  h, w, _ = image.shape
  top, bottom, down = _neighbours(h, height)
  left, right, across = _neighbours(w, width)
  needed, place = np.unique(np.concatenate([top, bottom]), return_inverse=True)
  columns = _transposed(image[needed])
  rows = _transposed(_between(columns[left], columns[right], across))
  return _between(rows[place[:height]], rows[place[height:]], down).astype(dtype, copy=False)


def _transposed(x: np.ndarray) -> np.ndarray:
  """[a, b, C] -> [b, a, C], contiguous. Whole pixels as one item: twice as fast as channels."""
  x = np.ascontiguousarray(x)
  pixels = x.view(np.dtype((np.void, x.shape[2] * x.itemsize)))[..., 0]
  return np.ascontiguousarray(pixels.T).view(x.dtype).reshape(x.shape[1], x.shape[0], x.shape[2])


def _between(a: np.ndarray, b: np.ndarray, fraction: np.ndarray) -> np.ndarray:
  """a + (b - a) * fraction in float32, the fraction along the first axis."""
  a = a.astype(np.float32)
  out = b.astype(np.float32)
  out -= a
  out *= fraction[:, None, None]
  out += a
  return out


def _neighbours(size: int, new: int):
  """Both neighbours of each new pixel's centre, int[new] each, and its place between them, 0..1."""
  centre = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * (
    np.float32(size) / np.float32(new)
  )
  centre -= np.float32(0.5)
  low = np.floor(centre)
  first = np.maximum(low, 0).astype(np.int64)
  second = np.minimum(np.ceil(centre), size - 1).astype(np.int64)
  return first, second, centre - low


@functools.lru_cache(maxsize=64)
def _taps(size: int, new: int):
  """Old pixels under each new one's filter and their weights: int[new, K], float32[new, K]."""
  one, half = np.float32(1), np.float32(0.5)
  step = one / (np.float32(new) / np.float32(size))  # old pixels a new one
  radius = max(step, one)
  centre = (np.arange(new, dtype=np.float32) + half) * step
  first = np.clip(np.ceil(centre - radius - half).astype(np.int64), 0, size - 1)
  last = np.clip(np.floor(centre + radius - half).astype(np.int64), 0, size - 1)
  index = first[:, None] + np.arange((last - first).max() + 1)
  distance = np.abs((index.astype(np.float32) + half - centre[:, None]) * (one / radius))
  weight = np.where(index <= last[:, None], np.maximum(one - distance, 0), 0).astype(np.float32)
  total = np.zeros(new, np.float32)
  for k in range(weight.shape[1]):  # one after the other: np.sum adds in another order
    total += weight[:, k]
  return np.minimum(index, size - 1), weight * (one / total)[:, None]


def _weighted_rows(x: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """out[i] = sum over k of weight[i, k] * x[index[i, k]], in the order of k; float32[N, ...]."""
  flat = x.reshape(len(x), -1)
  out = np.empty((len(index), flat.shape[1]), np.float32)
  scratch = np.empty((_ROWS, flat.shape[1]), np.float32)
  for i in range(0, len(index), _ROWS):
    block, w = out[i : i + _ROWS], weight[i : i + _ROWS]
    term = scratch[: len(block)]
    np.take(flat, index[i : i + _ROWS, 0], axis=0, out=block, mode="clip")
    block *= w[:, :1]
    for k in range(1, index.shape[1]):
      np.take(flat, index[i : i + _ROWS, k], axis=0, out=term, mode="clip")
      term *= w[:, k : k + 1]
      block += term
  return out.reshape(len(index), *x.shape[1:])
