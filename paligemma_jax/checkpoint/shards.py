"""Safetensors files: a JSON header, then the bytes of all tensors.

Read and written here rather than with the library: it cannot write a file piece by piece, and it
reads by mapping, which makes the pages of a 12 GB file resident memory. The format is small: 8 bytes
length of the header (little-endian), the header, the data without holes.
Source: the format's description in the README of huggingface/safetensors.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import contents, lazy, stream

MAX_SHARD = 5 * 10**9  # bytes, as in the published folders
INDEX = "model" + contents.INDEX
_MAX_HEADER = 10**8  # bytes, as the library has it
_DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": lazy.FLOATS["float32"],
  "BF16": lazy.BFLOAT16,
  "F16": lazy.FLOATS["float16"],
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_CODES |= {np.dtype(np.uint8): "U8", np.dtype(np.int8): "I8"}  # of quantised weights


def read(path: pathlib.Path) -> dict[str, lazy.Array]:
  """The tensors of one file by name; nothing but the header is read.

  Tensors of a dtype that is none of a model's are there, but cannot be read; see `lazy.Opaque`.

  Raises:
    UserError: the file is truncated, damaged or none of its kind.
  """
  size = path.stat().st_size
  file = lazy.File(path)
  try:
    head = bytearray(8)
    file.read_into(0, memoryview(head))
    length = int.from_bytes(head, "little")
    if length > min(size - 8, _MAX_HEADER):
      raise EOFError(f"its header asks for {length} bytes")
    header = bytearray(length)
    file.read_into(8, memoryview(header))
    entries = json.loads(bytes(header), object_pairs_hook=_once)
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
      raise ValueError("its header is no table of tensors")
    entries.pop("__metadata__", None)
    spans = [_span(name, e) for name, e in entries.items()]
    end = 8 + length + max((end for _, end, _ in spans), default=0)
    if end > size:
      raise EOFError(f"it has {size} bytes, its header describes {end}")
    _check_order(sorted(spans), size - 8 - length)
    return {name: _tensor(file, name, e, 8 + length) for name, e in entries.items()}
  except (EOFError, ValueError, TypeError, AttributeError, RecursionError) as e:
    raise errors.UserError(
      f"{path} cannot be read as safetensors ({e}); it is truncated, damaged or another kind of "
      f"file. Copy it again{contents.pointer(path)}"
    ) from e


def _once(pairs: list) -> dict:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError("a name stands twice in its header")
  return found


def _span(name: str, entry: dict) -> tuple[int, int, str]:
  """(first byte, byte after the last, name) of a tensor whose entry in the header is sound."""
  dtype, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
  counts = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
  sound = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in counts)
  if not sound or len(offsets) != 2 or offsets[0] > offsets[1]:
    found = f"dtype {dtype!r}, shape {shape!r}, data_offsets {offsets!r}"
    raise ValueError(f"the header is wrong about {name}: {found}"[:300])
  return *offsets, name


def _check_order(spans: list[tuple[int, int, str]], size: int):
  """Every byte of the data belongs to one tensor."""
  at, before = 0, "the header"
  for begin, end, name in [*spans, (size, size, "its end")]:
    if begin != at:
      kind = "overlap" if begin < at else "leave bytes between them"
      raise ValueError(f"{before} and {name} {kind}")
    at, before = end, name


def _tensor(file: lazy.File, name: str, entry: dict, start: int) -> lazy.Array:
  (begin, end), shape, code = entry["data_offsets"], entry["shape"], entry["dtype"]
  if code not in _DTYPES:
    raw = lazy.Stored(file, start + begin, np.uint8, (end - begin,))
    return lazy.Opaque(f"{file.path}: {name}", code, shape, raw)
  if math.prod(shape) * _DTYPES[code].itemsize != end - begin:
    raise ValueError(f"{name} has {end - begin} bytes, not those of {code} {shape}")
  return lazy.Stored(file, start + begin, _DTYPES[code], shape)


def read_folder(folder: pathlib.Path, ours: tuple[str, ...] = ()) -> dict[str, lazy.Array]:
  """The tensors of a folder: the one file of safetensors that there is, or the shards of an index.

  Args:
    folder: of the files.
    ours: see `contents.weights`.

  Raises:
    UserError: no weights or two sets of them, a shard that is missing or damaged, an index that
      does not fit its shards.
  """
  found = contents.weights(folder, ours)
  return _read_sharded(found) if found.name.endswith(contents.INDEX) else read(found)


def _read_sharded(index: pathlib.Path) -> dict[str, lazy.Array]:
  folder, weight_map = index.parent, contents.weight_map(index)
  files = sorted(set(weight_map.values()))
  gone = [f for f in files if not (folder / f).is_file()]
  if gone:
    raise errors.UserError(
      f"{folder}: {len(gone)} of {len(files)} shards are missing: {', '.join(gone[:5])}"
    )
  shards = {f: read(folder / f) for f in files}
  there = {(name, f) for f, tensors in shards.items() for name in tensors}
  wrong = there ^ set(weight_map.items())
  if wrong:
    name, file = min(wrong)
    said = (
      "is in {}, which {} does not say"
      if (name, file) in there
      else "is not in {}, where {} has it"
    )
    raise errors.UserError(
      f"{folder}: {name} {said.format(file, index.name)} ({len(wrong)} such tensors). Are index and "
      "shards of one model?"
    )
  return {name: shards[file][name] for name, file in weight_map.items()}


class Tensor:
  """One tensor to write: name, dtype, shape, and its pieces in order, made when they are asked for."""

  def __init__(
    self, name: str, dtype: np.dtype, shape: tuple[int, ...], pieces: Iterable[np.ndarray]
  ):
    self.name, self.dtype, self.shape, self.pieces = name, np.dtype(dtype), tuple(shape), pieces

  @property
  def nbytes(self) -> int:
    """Bytes on disk."""
    return math.prod(self.shape) * self.dtype.itemsize


def write_folder(folder: pathlib.Path, tensors: list[Tensor], max_shard: int = MAX_SHARD):
  """Writes `model.safetensors`, or shards of at most `max_shard` bytes with their index."""
  shards = list(_split(tensors, max_shard))
  if len(shards) == 1:
    return write(folder / "model.safetensors", shards[0])
  weight_map = {}
  for i, shard in enumerate(shards, 1):
    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    write(folder / file, shard)
    weight_map |= {t.name: file for t in shard}
  index = {"metadata": {"total_size": sum(t.nbytes for t in tensors)}, "weight_map": weight_map}
  (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def _split(tensors: list[Tensor], limit: int) -> Iterator[list[Tensor]]:
  shard, size = [], 0
  for t in tensors:
    if shard and size + t.nbytes > limit:
      yield shard
      shard, size = [], 0
    shard, size = [*shard, t], size + t.nbytes
  yield shard


def write(path: pathlib.Path, tensors: list[Tensor]):
  """Writes one file."""
  # Wider ones first, so that every tensor is aligned to its element.
  header, end = {"__metadata__": {"format": "pt"}}, 0
  for t in sorted(tensors, key=lambda t: -t.dtype.itemsize):
    entry = {"dtype": _CODES[t.dtype], "shape": list(t.shape)}
    header[t.name] = {**entry, "data_offsets": [end, end := end + t.nbytes]}
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as f:
    f.write(len(text).to_bytes(8, "little"))
    f.write(text)
    data = f.tell()
    for t in tensors:  # in the order given, in which those of one matrix follow each other
      start = f.seek(data + header[t.name]["data_offsets"][0])
      for piece in t.pieces:
        f.write(stream.as_bytes(piece))
      assert f.tell() - start == t.nbytes, t.name
