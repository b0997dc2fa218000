"""Arrays that lie in a file until a part of them is asked for.

A checkpoint is read through a small algebra: `Stored` bytes, `Moved` axes, `Stacked` parts (layers,
or k beside v) and a `Part` of another array. Every class knows `shape` and `dtype` at once and
reads only what `x[index]` asks for, so that neither a conversion nor a sharded load ever holds more
than one slice. Files are read with plain reads, not mapped: mapped pages count as resident memory,
and a 12 GB file would show as 12 GB.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np

from paligemma_jax import errors

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = {
  "float32": np.dtype(np.float32),
  "bfloat16": BFLOAT16,
  "float16": np.dtype(np.float16),
}
MIN_RUN = 64 * 1024  # bytes; shorter runs are read together with what lies between them
Index = tuple[slice, ...]


class Array:
  """What all lazy arrays share: NumPy's basic indexing (integers, slices of step 1, `...`)."""

  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self, index: Index) -> np.ndarray:
    """Reads a box: one slice with explicit start and stop for every axis."""
    raise NotImplementedError

  @property
  def nbytes(self) -> int:
    """Bytes of the whole array."""
    return math.prod(self.shape) * self.dtype.itemsize

  def __getitem__(self, key) -> np.ndarray:
    index, squeeze = normalise(key, self.shape)
    return self.read(index).squeeze(squeeze)

  def __len__(self):
    return self.shape[0]

  def __array__(self, dtype=None, copy=None):
    x = self.read(tuple(slice(0, n) for n in self.shape))
    return x if dtype is None else x.astype(dtype, copy=False)


class File:
  """An open file that several arrays read from. Safe to use from several threads."""

  def __init__(self, path: str | os.PathLike, handle=None):
    self.path = str(path)
    self.handle = handle or open(path, "rb", buffering=0)
    self.lock = threading.Lock()
    weakref.finalize(self, self.handle.close)

  def read_into(self, offset: int, out: memoryview):
    """Fills `out` with the bytes from `offset` on; EOFError when the file ends before."""
    with self.lock:
      self.handle.seek(offset)
      done = 0
      while done < len(out):
        n = self.handle.readinto(out[done : done + 2**30])
        if not n:
          raise EOFError(f"{self.path} ends at byte {offset + done}")
        done += n


class Stored(Array):
  """A C-ordered array at a byte offset of a file."""

  def __init__(
    self, file: File, offset: int, dtype, shape: Sequence[int], on_read: Callable = None
  ):
    self.file, self.offset = file, offset
    self.dtype, self.shape = np.dtype(dtype), tuple(shape)
    self.on_read = on_read  # called with (byte position in the array, bytes) for every read

  def reshape(self, shape: Sequence[int]) -> "Stored":
    """The same bytes seen with another shape."""
    assert math.prod(shape) == math.prod(self.shape)
    return Stored(self.file, self.offset, self.dtype, shape, self.on_read)

  @property
  def raw(self) -> "Stored":
    """The bytes themselves, uint8."""
    return Stored(self.file, self.offset, np.uint8, (self.nbytes,))

  def view(self, dtype) -> "Stored":
    """The same bytes as another dtype, on one axis."""
    size = self.nbytes // np.dtype(dtype).itemsize
    return Stored(self.file, self.offset, dtype, (size,))

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`. Reads runs of at least `MIN_RUN` bytes where the box allows it."""
    if not self.shape:
      return self._run(0, ()).reshape(())
    sizes = tuple(s.stop - s.start for s in index)
    cut = self._cut(sizes)
    inner = self.shape[cut + 1 :]
    row = math.prod(inner)
    whole = sizes[cut + 1 :] == inner
    out = np.empty(sizes, self.dtype)
    for place in np.ndindex(sizes[:cut]):
      start = 0
      for axis in range(cut):
        start = start * self.shape[axis] + index[axis].start + place[axis]
      start = (start * self.shape[cut] + index[cut].start) * row
      if whole:
        self._run(start, (sizes[cut], *inner), out[place])
      else:
        out[place] = self._run(start, (sizes[cut], *inner))[(slice(None), *index[cut + 1 :])]
    return out

  def _cut(self, sizes) -> int:
    """The axis whose selected range is read in one run, with all axes after it read whole."""
    partial = [i for i, n in enumerate(sizes) if n != self.shape[i]]
    cut = partial[-1] if partial else 0
    while cut and sizes[cut] * math.prod(self.shape[cut + 1 :]) * self.dtype.itemsize < MIN_RUN:
      cut -= 1
    return cut

  def _run(self, start: int, shape, out=None) -> np.ndarray:
    out = np.empty(shape, self.dtype) if out is None else out
    view = memoryview(out.reshape(-1).view(np.uint8))
    position = start * self.dtype.itemsize
    try:
      self.file.read_into(self.offset + position, view)
    except EOFError as e:
      raise errors.UserError(f"{e}, before its tensors do: it is truncated. Copy it again") from e
    if self.on_read:
      self.on_read(position, view)
    return out


class Opaque(Array):
  """A tensor of a dtype that is none of a model's: its name and shape are known, it cannot be read.

  Attributes:
    code: what its file calls the dtype.
    raw: its bytes.
  """

  def __init__(self, where: str, code: str, shape: Sequence[int], raw: Stored):
    self.where, self.code, self.dtype, self.shape = where, code, np.dtype(np.void), tuple(shape)
    self.raw = raw

  def read(self, index: Index) -> np.ndarray:
    """Raises a UserError."""
    raise errors.UserError(f"{self.where} is {self.code}, which is no dtype of a model")


class Cast(Array):
  """`base` in another dtype."""

  def __init__(self, base: Array, dtype: np.dtype):
    self.base, self.dtype, self.shape = base, np.dtype(dtype), base.shape

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`. What does not fit becomes infinite, which readers refuse."""
    with np.errstate(over="ignore"):
      return self.base.read(index).astype(self.dtype)


class Moved(Array):
  """`base` with its axes in the order `axes`, as np.transpose takes them."""

  def __init__(self, base: Array, axes: Sequence[int]):
    self.base, self.axes = base, tuple(axes)
    self.shape, self.dtype = tuple(base.shape[a] for a in axes), base.dtype

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`. The result is a view in the order of the base."""
    inner = [slice(0)] * len(index)
    for place, axis in enumerate(self.axes):
      inner[axis] = index[place]
    return self.base.read(tuple(inner)).transpose(self.axes)


class Stacked(Array):
  """Arrays of one shape on a new first axis. Of different dtypes the wider one is used."""

  def __init__(self, parts: Sequence[Array]):
    self.parts = list(parts)
    self.shape = (len(self.parts), *self.parts[0].shape)
    dtypes = {p.dtype for p in self.parts}
    self.dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`."""
    first, rest = index[0], index[1:]
    if first.stop - first.start == 1:  # a layer of its own needs no copy
      return self.parts[first.start].read(rest).astype(self.dtype, copy=False)[None]
    out = np.empty([s.stop - s.start for s in index], self.dtype)
    for i, part in enumerate(self.parts[first]):
      out[i] = part.read(rest)
    return out


class Patched(Array):
  """`base` with other arrays at some places of its first axes.

  Args:
    base: of any dtype.
    parts: place -> array of the shape of `base[place]`. All places are of one length; () stands for
      the whole.
    dtype: of the result; None as `base`.
  """

  def __init__(
    self, base: Array, parts: Mapping[tuple[int, ...], Array], dtype: np.dtype | None = None
  ):
    self.base, self.parts, self.depth = base, dict(parts), len(next(iter(parts)))
    self.shape, self.dtype = base.shape, np.dtype(dtype or base.dtype)

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`. Elements that are not replaced are read from `base`."""
    first, rest = index[: self.depth], index[self.depth :]
    out = np.empty([s.stop - s.start for s in index], self.dtype)
    for place in np.ndindex(out.shape[: self.depth]):
      at = tuple(s.start + i for s, i in zip(first, place))
      if at in self.parts:
        out[place] = self.parts[at].read(rest)
      else:
        out[place] = self.base[(*at, *rest)]
    return out


class Part(Array):
  """`base[key]`, not yet read."""

  def __init__(self, base: Array, key):
    self.base, self.dtype = base, base.dtype
    self.index, self.squeeze = normalise(key, base.shape)
    keep = [i for i in range(len(self.index)) if i not in self.squeeze]
    self.keep, self.shape = keep, tuple(self.index[i].stop - self.index[i].start for i in keep)

  def read(self, index: Index) -> np.ndarray:
    """See `Array.read`."""
    inner = list(self.index)
    for i, s in zip(self.keep, index):
      inner[i] = slice(self.index[i].start + s.start, self.index[i].start + s.stop)
    return self.base.read(tuple(inner)).squeeze(self.squeeze)


def normalise(key, shape: Sequence[int]) -> tuple[Index, tuple[int, ...]]:
  """Returns (a slice for every axis, the axes that integers of `key` remove).

  Raises:
    IndexError: an integer is out of range, or a slice has a step.
  """
  key = key if isinstance(key, tuple) else (key,)
  if Ellipsis in [k for k in key if not isinstance(k, slice)]:
    at = next(i for i, k in enumerate(key) if k is Ellipsis)
    key = key[:at] + (slice(None),) * (len(shape) - len(key) + 1) + key[at + 1 :]
  if len(key) > len(shape):
    raise IndexError(f"{len(key)} indices for shape {tuple(shape)}")
  key = key + (slice(None),) * (len(shape) - len(key))
  index, squeeze = [], []
  for axis, (k, n) in enumerate(zip(key, shape)):
    if isinstance(k, slice):
      start, stop, step = k.indices(n)
      if step != 1:
        raise IndexError("only slices of step 1")
      index.append(slice(start, max(start, stop)))
    else:
      if not -n <= k < n:
        raise IndexError(f"index {k} for axis {axis} of size {n}")
      index.append(slice(k % n, k % n + 1))
      squeeze.append(axis)
  return tuple(index), tuple(squeeze)


def chunks(x, limit: int = 2**28) -> Iterator[np.ndarray]:
  """The rows of `x` (lazy, NumPy or JAX) in order, as NumPy arrays of about `limit` bytes at most.

  A scalar comes as it is.
  """
  if not len(x.shape) or not x.shape[0]:
    yield np.asarray(x)
    return
  row = max(1, math.prod(x.shape[1:]) * x.dtype.itemsize)
  step = max(1, limit // row)
  for start in range(0, x.shape[0], step):
    yield np.asarray(x[start : start + step])


def is_finite(x: np.ndarray) -> bool:
  """Whether no element is infinite or NaN. No temporary array for float32, a small one else."""
  if x.dtype == np.float32:
    with np.errstate(all="ignore"):
      return bool(np.isfinite(x.sum())) or bool(np.isfinite(x).all())
  if x.dtype in (BFLOAT16, np.float16):
    exponent = np.uint16(0x7F80 if x.dtype == BFLOAT16 else 0x7C00)
    flat = x.ravel(order="K").view(
      np.uint16
    )  # as it lies in memory, without a copy where it can be
    return not x.size or int((flat & np.uint16(0x7FFF)).max()) < exponent
  return bool(np.isfinite(x).all())


def computable(x: Array) -> Array:
  """`x`, as float32 if it is of more bytes, in this machine's byte order."""
  native = x.dtype.newbyteorder("=")
  if x.dtype in FLOATS.values() or native.kind != "f":
    return x
  return Cast(x, native if native in FLOATS.values() else FLOATS["float32"])
