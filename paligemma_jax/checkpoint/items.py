"""What Orbax is told about the items of a step: small files, arrays, arrays written in pieces."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from paligemma_jax.checkpoint import checksum

_MARKER = "commit_success.txt"  # Orbax puts one into every item on file systems without rename


class Files(ocp.CheckpointHandler):
  """An item that is a folder of small files."""

  def save(self, directory: epath.Path, args: "SaveFiles"):
    """Writes the files of `args`; one process does."""
    if jax.process_index() == 0:
      for name, data in args.files.items():
        (directory / name).write_bytes(data)

  def restore(self, directory: epath.Path, args: "RestoreFiles") -> dict[str, bytes]:
    """Inverse of `save`."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != _MARKER}


@ocp.args.register_with_handler(Files, for_save=True)
@dataclasses.dataclass
class SaveFiles(ocp.args.CheckpointArgs):
  """What `Files` writes: name -> bytes."""

  files: dict[str, bytes]


@ocp.args.register_with_handler(Files, for_restore=True)
@dataclasses.dataclass
class RestoreFiles(ocp.args.CheckpointArgs):
  """That all files are wanted."""


class _Literal(type(epath.Path())):
  """A path that stands for itself in `glob`, whatever brackets and stars its name has."""

  def glob(self, pattern: str) -> Iterator["_Literal"]:
    """As of a path; the pattern alone is one."""
    folder, _, name = pattern.rpartition("/")
    here = self / folder
    found = here.iterdir() if here.is_dir() else ()
    return iter([p for p in found if fnmatch.fnmatchcase(p.name, name)])


class Arrays(ocp.PyTreeCheckpointHandler):
  """The handler of arrays; what processes wrote is found and merged in folders of any name."""

  def finalize(self, directory: epath.Path):
    """See ocp.CheckpointHandler."""
    super().finalize(_Literal(directory))


@ocp.args.register_with_handler(Arrays, for_save=True)
@dataclasses.dataclass
class SaveArrays(ocp.args.PyTreeSave):
  """As of Orbax's own handler; it looks its arguments up by the class."""


@ocp.args.register_with_handler(Arrays, for_restore=True)
@dataclasses.dataclass
class RestoreArrays(ocp.args.PyTreeRestore):
  """As of Orbax's own handler."""


class Streamed:
  """A tensor that is written piece by piece: at no time is more than one piece of all in memory.

  Attributes:
    shape, dtype: of the whole.
    checksum: of what was written so far; see `checksum`.
  """

  def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable):
    """`read(start, stop)` gives the rows from `start` to before `stop`, in order."""
    self.shape, self.dtype, self._read = shape, np.dtype(dtype), read
    self.ndim, self.size, self.checksum = len(shape), math.prod(shape), 0

  def pieces(self, rows: int) -> Iterator[tuple[slice, np.ndarray]]:
    """(which rows, their values), `rows` at a time."""
    for start in range(0, self.shape[0], rows):
      stop = min(start + rows, self.shape[0])
      piece = self._read(start, stop)
      first = start * math.prod(self.shape[1:])
      self.checksum = (self.checksum + checksum.part(piece, first)) % 2**32
      yield slice(start, stop), piece


class _StreamedHandler(ocp.type_handlers.NumpyHandler):
  """Writes `Streamed` tensors; what is stored is that of NumPy arrays."""

  async def _open_and_write(self, value, tspec, ts_context):
    # Nothing is awaited: Orbax starts this for all tensors at once, and they shall take turns.
    store = ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context).result()
    for rows, piece in value.pieces(store.chunk_layout.write_chunk.shape[0]):
      store[rows].write(piece).result()


def only_streamed() -> dict:
  """Options of a PyTreeCheckpointHandler."""
  handler = _StreamedHandler(deepcopy_host_arrays=False)
  registry = ocp.type_handlers.create_type_handler_registry((Streamed, handler))
  return {"type_handler_registry": registry}
