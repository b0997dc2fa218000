"""The npz files of big_vision: one entry per tensor, names joined with slashes.

Stored members are read where they lie in the zip; deflated ones are inflated to a temporary file
first. bfloat16 is a 2-byte void for NumPy. Reads by offset pass by the CRC of the zip, so a running
one is kept per member, and `verify` reads through what has not been read in order.

Beside `NAME.npz` our own files have `NAME.assets/`, with tokenizer, preprocessing and
`paligemma_jax.json` (model config with the settings that shapes cannot tell, step, …).
"""

import json
import math
import pathlib
import re
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import atomic, contents, layouts, lazy, source, stream
from paligemma_jax.models import tree, variants

CONFIG = "paligemma_jax.json"
_PIECE = 2**24  # bytes read at a time when only the checksum matters
# What zipfile and NumPy raise for damaged files; the second row for impossible offsets, encryption and
# unknown compression, and from the parser of a header that is no Python literal.
_UNREADABLE = (zipfile.BadZipFile, EOFError, ValueError, OSError, KeyError, TypeError, struct.error)
_UNREADABLE += (ArithmeticError, RuntimeError, SyntaxError, tokenize.TokenError, MemoryError)


def is_mine(path: str) -> bool:
  """Whether `path` names an npz, with or without a sub-tree after a colon."""
  return pathlib.Path(split(path)[0]).suffix == ".npz"


def split(path: str) -> tuple[str, str]:
  """ "dir/x.npz:img/head" -> ("dir/x.npz", "img/head"); "" for the whole file."""
  match = re.fullmatch(r"(.*?\.npz)(?::([\w/]+))?", str(path))
  return (match[1], (match[2] or "").strip("/")) if match else (str(path), "")


def open(path: str) -> source.Source:
  """Opens an npz, or the part of it after a colon, e.g. "pt_224.npz:img".

  Raises:
    UserError: not an npz, truncated, tensors missing, unexpected or mis-shaped.
  """
  file, tree = split(path)
  members = Members(file)
  arrays, kind = layouts.normalise(members.arrays, tree, path)
  config, meta = None, {}
  folder = assets_folder(file)
  if kind == "model":
    config, meta = _stored_config(folder)
    config = config or layouts.recognise(arrays, path)
  # Files of two places are not mixed: they could be of two tokenizers.
  assets = source.find_assets(folder) or source.find_assets(pathlib.Path(file).parent)
  layouts.check(arrays, kind, config, path)
  return source.Source(path, "npz", arrays, config, assets, meta, members.verify)


def assets_folder(file: str) -> pathlib.Path:
  """ "dir/x.npz" -> dir/x.assets."""
  return pathlib.Path(file).with_suffix(".assets")


def _stored_config(folder: pathlib.Path):
  try:
    stored = json.loads((folder / CONFIG).read_text())
    return variants.ModelConfig.from_dict(stored["model"]), stored.get("meta", {})
  except FileNotFoundError:
    return None, {}
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError, errors.UserError) as e:
    raise errors.UserError(
      f"{folder / CONFIG} is damaged ({e!r}); remove it to go by the shapes alone"
    ) from e


class Members:
  """The members of an npz file as lazy arrays.

  Attributes:
    arrays: member name without `.npy` -> array.
  """

  def __init__(self, path: str):
    self.path = path
    try:
      self.zip = zipfile.ZipFile(path)
      self.file = lazy.File(path)
      infos = [i for i in self.zip.infolist() if not i.is_dir()]
      self.crcs, self.arrays = [], {}
      for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in self.arrays:
          raise ValueError(f"it has two members {name}")
        self.arrays[name] = self._member(info)
    except FileNotFoundError as e:
      raise errors.UserError(f"{path} does not exist") from e
    except _UNREADABLE as e:
      raise errors.UserError(
        f"{path} cannot be read as npz ({str(e) or repr(e)}); it is truncated, damaged or another "
        f"kind of file. Copy it again{contents.pointer(path)}"
      ) from e

  def _member(self, info: zipfile.ZipInfo) -> lazy.Array:
    try:
      with self.zip.open(info) as f:
        shape, fortran, dtype = _header(f, info.filename)
        start = f.tell()
    except (zipfile.BadZipFile, zlib.error) as e:
      raise _damaged(self.path, info) from e
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
      raise ValueError(f"{info.filename} has {info.file_size} bytes, not those of {dtype} {shape}")
    if info.compress_type != zipfile.ZIP_STORED:
      return _oriented(
        _Inflated(self, info, start, dtype, shape[::-1] if fortran else shape), fortran
      )
    local = bytearray(30)
    self.file.read_into(info.header_offset, memoryview(local))
    data = info.header_offset + 30 + int.from_bytes(local[26:28], "little")
    data += int.from_bytes(local[28:30], "little")
    crc = _RunningCrc(self, info, data, start)
    self.crcs.append(crc)
    stored = lazy.Stored(
      self.file, data + start, dtype, shape[::-1] if fortran else shape, crc.update
    )
    return _oriented(stored, fortran)

  def verify(self):
    """Compares the CRC-32 of every stored member; inflated ones were compared on inflation."""
    for crc in self.crcs:
      crc.finish()


def _header(f, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
  version = np.lib.format.read_magic(f)
  read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
  shape, fortran, dtype = read[min(version[0], 2)](f)
  if any(n < 0 for n in shape):
    raise ValueError(f"{name} has shape {shape}")
  if dtype.kind == "V" and dtype.itemsize == 2:
    dtype = lazy.BFLOAT16
  if dtype.hasobject:
    raise ValueError(f"{name} holds Python objects")
  return shape, fortran, dtype


def _oriented(x: lazy.Array, fortran: bool) -> lazy.Array:
  return lazy.Moved(x, range(len(x.shape))[::-1]) if fortran else x


class _Inflated(lazy.Array):
  """A deflated member; inflated to an unnamed temporary file when it is first read."""

  def __init__(self, members: Members, info, start: int, dtype, shape):
    self.members, self.info, self.start = members, info, start
    self.dtype, self.shape, self.stored = dtype, tuple(shape), None

  def read(self, index):
    """See `lazy.Array.read`."""
    if self.stored is None:
      temporary = tempfile.TemporaryFile(buffering=0)
      try:
        with self.members.zip.open(self.info) as f:
          shutil.copyfileobj(f, temporary, _PIECE)
      except (zipfile.BadZipFile, zlib.error, EOFError) as e:
        raise _damaged(self.members.path, self.info) from e
      file = lazy.File(self.members.path, temporary)
      self.stored = lazy.Stored(file, self.start, self.dtype, self.shape)
    return self.stored.read(index)


class _RunningCrc:
  """CRC-32 of a stored member, kept up while its bytes are read in order."""

  def __init__(self, members: Members, info: zipfile.ZipInfo, offset: int, start: int):
    self.members, self.info, self.offset, self.header = members, info, offset, start
    self.position, self.value = 0, 0

  def update(self, position: int, data: memoryview):
    """Called for every read of array bytes; those out of order are left for `finish`."""
    if self.position == 0 and position == 0:
      self._read(self.header)
    if position + self.header == self.position:
      self.value = zlib.crc32(data, self.value)
      self.position += len(data)
      self._compare()

  def finish(self):
    """Reads what has not been read in order, and compares."""
    while self.position < self.info.file_size:
      self._read(min(_PIECE, self.info.file_size - self.position))
    self._compare()

  def _read(self, size: int):
    data = memoryview(bytearray(size))
    self.members.file.read_into(self.offset + self.position, data)
    self.value = zlib.crc32(data, self.value)
    self.position += size

  def _compare(self):
    if self.position == self.info.file_size and self.value != self.info.CRC:
      raise _damaged(self.members.path, self.info)


def _damaged(path: str, info: zipfile.ZipInfo) -> errors.UserError:
  return errors.UserError(
    f"{path}: {info.filename.removesuffix('.npy')} is damaged (its CRC-32 does not fit). "
    "Copy the file again"
  )


def save(
  path: str,
  read: Callable,
  config: variants.ModelConfig,
  assets: dict[str, bytes],
  meta: dict,
  plan: stream.Plan,
):
  """Writes a zip64 stream of stored members, slice by slice; see `formats.save`."""
  folder = assets_folder(path)
  if (folder / CONFIG).exists() and not pathlib.Path(path).exists():
    shutil.rmtree(folder)  # of a save that was killed between folder and file
  with atomic.new(path, folder=False) as temporary, atomic.new(folder, folder=True) as beside:
    # The folder takes its place first: an npz without its settings would be read wrongly.
    for name, data in assets.items():
      (beside / name).write_bytes(data)
    stored = {"model": config.to_dict(), "meta": meta}
    (beside / CONFIG).write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as f:
      for name, shape in tree.param_shapes(config).items():
        with f.open(f"params/{name}.npy", "w", force_zip64=True) as member:
          _write_member(member, name, shape, plan, read)
    plan.before_commit()


def _write_member(member, name: str, shape: tuple[int, ...], plan: stream.Plan, read: Callable):
  dtype = plan.dtypes[name]
  header = {"descr": "|V2" if dtype == lazy.BFLOAT16 else dtype.str, "fortran_order": False}
  np.lib.format.write_array_header_1_0(member, {**header, "shape": shape})
  for layer in range(shape[0]) if tree.is_stacked(name) else (None,):
    x = read(name, layer)
    stream.check_shape(plan, name, layer, x, shape)
    for piece in lazy.chunks(x):
      member.write(stream.as_bytes(stream.cast(plan, name, layer, piece)))
