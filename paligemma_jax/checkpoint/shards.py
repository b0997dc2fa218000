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
from paligemma_jax.checkpoint import lazy, stream

MAX_SHARD = 5 * 10**9  # bytes, as in the published folders
INDEX = "model.safetensors.index.json"
_DTYPES = {"F32": lazy.FLOATS["float32"], "BF16": lazy.BFLOAT16, "F16": lazy.FLOATS["float16"]}
_CODES = {dtype: code for code, dtype in _DTYPES.items()} | {np.dtype(np.float64): "F64"}


def read(path: pathlib.Path) -> dict[str, lazy.Stored]:
  """The tensors of one file by name; nothing but the header is read.

  Raises:
    UserError: the file is truncated or none of its kind, or has tensors of another dtype.
  """
  size = path.stat().st_size
  file = lazy.File(path)
  try:
    head = bytearray(8)
    file.read_into(0, memoryview(head))
    length = int.from_bytes(head, "little")
    if length > size - 8:
      raise EOFError(f"its header asks for {length} bytes")
    header = bytearray(length)
    file.read_into(8, memoryview(header))
    entries = json.loads(bytes(header))
    entries.pop("__metadata__", None)
    end = 8 + length + max((e["data_offsets"][1] for e in entries.values()), default=0)
  except (EOFError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(
      f"{path} cannot be read as safetensors ({e}); it is truncated or another kind of file. "
      "Copy it again"
    ) from e
  if end > size:
    raise errors.UserError(
      f"{path} is truncated: {size} bytes, its header describes {end}. Copy it again"
    )
  return {name: _tensor(file, name, e, 8 + length) for name, e in entries.items()}


def _tensor(file: lazy.File, name: str, entry: dict, start: int) -> lazy.Stored:
  begin, end = entry["data_offsets"]
  dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
  if dtype is None:  # an integer buffer of an old release: kept, it may be one to ignore
    return lazy.Stored(file, start + begin, np.uint8, (end - begin,))
  if math.prod(shape) * dtype.itemsize != end - begin:
    raise errors.UserError(f"{file.path}: {name} has {end - begin} bytes, not those of {shape}")
  return lazy.Stored(file, start + begin, dtype, shape)


def read_folder(folder: pathlib.Path) -> dict[str, lazy.Stored]:
  """The tensors of a folder: `model.safetensors`, shards by their index, or the one file there is.

  Raises:
    UserError: no weights, a shard that is missing, or one that lacks a tensor of the index.
  """
  index = folder / INDEX
  if index.exists():
    return _read_sharded(folder, index)
  single = folder / "model.safetensors"
  found = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
  if len(found) == 1:
    return read(found[0])
  others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".safetensors"))
  raise errors.UserError(
    f"{folder} has no model.safetensors and no {INDEX} (found: {', '.join(others) or 'no weights'})"
  )


def _read_sharded(folder: pathlib.Path, index: pathlib.Path) -> dict[str, lazy.Stored]:
  try:
    weight_map = dict(json.loads(index.read_text())["weight_map"])
  except (ValueError, KeyError, TypeError) as e:
    raise errors.UserError(f"{index} is damaged ({e!r}); copy it again") from e
  files = sorted(set(weight_map.values()))
  gone = [f for f in files if not (folder / f).is_file()]
  if gone:
    raise errors.UserError(
      f"{folder}: {len(gone)} of {len(files)} shards are missing: {', '.join(gone[:5])}"
    )
  shards = {f: read(folder / f) for f in files}
  lacking = [n for n, f in weight_map.items() if n not in shards[f]]
  if lacking:
    raise errors.UserError(
      f"{folder}: {lacking[0]} is not in {weight_map[lacking[0]]}, where {INDEX} has it "
      f"({len(lacking)} such tensors)"
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
    return _write(folder / "model.safetensors", shards[0])
  weight_map = {}
  for i, shard in enumerate(shards, 1):
    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    _write(folder / file, shard)
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


def _write(path: pathlib.Path, tensors: list[Tensor]):
  # Wider ones first, so that every tensor is aligned to its element.
  tensors = sorted(tensors, key=lambda t: -t.dtype.itemsize)
  header, end = {"__metadata__": {"format": "pt"}}, 0
  for t in tensors:
    entry = {"dtype": _CODES[t.dtype], "shape": list(t.shape)}
    header[t.name] = {**entry, "data_offsets": [end, end := end + t.nbytes]}
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with open(path, "wb") as f:
    f.write(len(text).to_bytes(8, "little"))
    f.write(text)
    for t in tensors:
      start = f.tell()
      for piece in t.pieces:
        f.write(stream.as_bytes(piece))
      assert f.tell() - start == t.nbytes, t.name
