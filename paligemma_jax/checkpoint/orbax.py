"""Checkpoints of a training run: written while training goes on, verified before they are used.

`DIR/STEP/` has the items `state` (all arrays), `meta` (JSON) and `assets` (files), and a manifest that is
written when all the rest is there; see `manifest`. A run may be killed at any moment: what has no
manifest is passed over and written again.
"""

import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Collection, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from paligemma_jax import errors, exchange, storage
from paligemma_jax.checkpoint import checksum, manifest

# Arrays are cut into pieces of at most this many bytes (chosen), so that one layer of a stacked
# parameter can be read without the others.
_CHUNK_BYTES = 2**26
_MARKER = "commit_success.txt"  # Orbax puts one into every item on file systems without rename
_NO_STEP, _ALL_DAMAGED = -1, -2  # what process 0 tells the others in place of a step


class _Files(ocp.CheckpointHandler):
  """An item that is a folder of small files."""

  def save(self, directory: epath.Path, args: "_SaveFiles"):
    """Writes the files of `args`; one process does."""
    if jax.process_index() == 0:
      for name, data in args.files.items():
        (directory / name).write_bytes(data)

  def restore(self, directory: epath.Path, args: "_RestoreFiles") -> dict[str, bytes]:
    """Inverse of `save`."""
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != _MARKER}


@ocp.args.register_with_handler(_Files, for_save=True)
@dataclasses.dataclass
class _SaveFiles(ocp.args.CheckpointArgs):
  files: dict[str, bytes]


@ocp.args.register_with_handler(_Files, for_restore=True)
@dataclasses.dataclass
class _RestoreFiles(ocp.args.CheckpointArgs):
  pass


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


def _only_streamed() -> dict:
  """Options of a PyTreeCheckpointHandler."""
  handler = _StreamedHandler(deepcopy_host_arrays=False)
  registry = ocp.type_handlers.create_type_handler_registry((Streamed, handler))
  return {"type_handler_registry": registry}


class Checkpointer:
  """Saves and restores the steps of one run.

  All methods are called by all processes alike. At most one save is under way; the next waits.
  """

  def __init__(self, directory: epath.PathLike, keep: int = 3, streamed: bool = False):
    """Makes `directory` if need be and removes what a killed run left half-written.

    Args:
      directory: of the steps, e.g. WORKDIR/checkpoints; local or gs://.
      keep: how many complete steps to keep; older ones are removed after a save.
      streamed: whether the leaves of what is saved are `Streamed`; such a one does not restore.
    """
    _quieten()
    directory = storage.path(directory)
    if not storage.is_remote(directory):
      directory = directory.expanduser().absolute()  # epath's would be of gs:// too
    self.directory = epath.Path(directory)
    self.keep = keep
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None,  # steps are removed here, once a newer one has its manifest
      create=True,
      cleanup_tmp_directories=True,
    )
    handlers = {
      "state": ocp.PyTreeCheckpointHandler(**_only_streamed() if streamed else {}),
      "meta": ocp.JsonCheckpointHandler(),
      "assets": _Files(),
    }
    self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None
    self._verified: set[int] = set()
    self._bad: set[int] = set()  # found damaged or unfinished

  def save(
    self,
    step: int,
    state: dict,
    meta: dict,
    assets: dict[str, bytes],
    keep_also: Collection[int] = (),
  ):
    """Starts to save; returns when the values are safe from changes, e.g. by donation.

    A step that is complete already is left as it is: the same step of a run holds the same bits.

    Args:
      step: number of updates done.
      state: pytree of arrays, e.g. {"params", "opt_state", "step", "rng"}, or `Streamed`.
      meta: JSON; "model" should hold `ModelConfig.to_dict()`, since shapes cannot tell all.
      assets: tokenizer and preprocessing files, name -> bytes.
      keep_also: steps that stay, besides the newest.

    Raises:
      OSError and others: the save before this one failed.
    """
    self.wait()
    is_there = jax.process_index() == 0 and (
      step in self._verified or manifest.problem(self._path(step), thorough=True) is None
    )
    if exchange.of_first(is_there):  # a store may show it to some processes before others
      self._verified.add(step)
      return
    here = manifest.steps(self.directory)
    self._remove([s for s in here if s == step or s > step and not self._is_good(s)])
    self._manager.reload()
    sums = checksum.leaves(state)
    streamed = {n: x for n, x in checksum.named(state).items() if isinstance(x, Streamed)}
    cut = jax.tree.map(_cut_by_layer, state)
    items = ocp.args.Composite(
      state=ocp.args.PyTreeSave(state, save_args=cut),
      meta=ocp.args.JsonSave(meta),
      assets=_SaveFiles(assets),
    )
    self._manager.save(step, args=items, force=True)
    self._thread = threading.Thread(
      target=self._finish, args=(step, sums, streamed, set(keep_also)), name="checkpoint"
    )
    self._thread.start()

  def _finish(
    self,
    step: int,
    sums: dict[str, tuple[str, jax.Array]],
    streamed: dict[str, Streamed],
    keep_also: set[int],
  ):
    """Waits for the commit, then writes the manifest and removes old steps; in a thread."""
    try:
      self._manager.wait_until_finished()
      numbers = {name: (dtype, _number(x)) for name, (dtype, x) in sums.items()}
      numbers |= {name: (str(x.dtype), x.checksum) for name, x in streamed.items()}
      if jax.process_index() == 0:
        manifest.write(self._path(step), numbers)
      self._verified.add(step)
      here = [s for s in manifest.steps(self.directory) if s <= step]
      kept = [s for s in here if s == step or self._is_good(s)][: self.keep]
      self._remove([s for s in here if s not in kept and s not in keep_also])
    except BaseException as e:  # raised where the run can see it, by `wait`
      self._error = e

  def wait(self):
    """Returns when the save under way is complete; raises what went wrong in it."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def latest(self) -> int | None:
    """The newest step that is complete and undamaged, None if none was ever completed.

    Newer ones that are not are named in a warning.

    Raises:
      UserError: there are complete steps, all of them damaged. To begin anew would replace them.
    """
    self.wait()
    step = _NO_STEP
    if jax.process_index() == 0:
      found, bad = manifest.newest(self.directory, True, frozenset(self._verified))
      self._bad |= set(bad)
      if found is not None:
        step = found
      elif any((self._path(s) / manifest.NAME).exists() for s in bad):
        step = _ALL_DAMAGED
    step = exchange.of_first(step)
    if step == _ALL_DAMAGED:
      raise errors.UserError(
        f"every checkpoint in {self.directory} is damaged (the warnings above say how). Nothing was "
        "changed: restore one from a copy, or move the folder away to begin anew"
      )
    if step >= 0:
      self._verified.add(step)
    return step if step >= 0 else None

  def restore(self, step: int, abstract_state: dict) -> dict:
    """Reads the state of a step, checked leaf by leaf on the devices.

    Args:
      step: e.g. `latest()`.
      abstract_state: pytree of jax.ShapeDtypeStruct with shardings, of any mesh; without a sharding
        a leaf goes to the first device. Another dtype is cast (and cannot be checked).

    Raises:
      UserError: the step is incomplete, damaged or of another structure or shape.
    """
    path = self._path(step)
    wrong = None
    if step not in self._verified and jax.process_index() == 0:
      wrong = manifest.problem(path, thorough=True)
    wrong = exchange.of_first(wrong)
    if wrong:
      raise errors.UserError(f"{path} cannot be used: {wrong}. Choose another step")
    target = jax.tree.map(_placed, abstract_state)
    args = ocp.args.PyTreeRestore(
      item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
    )
    try:
      state = self._manager.restore(step, args=ocp.args.Composite(state=args)).state
    except (ValueError, KeyError) as e:
      raise errors.UserError(
        f"{path} does not fit this run: {str(e).strip().splitlines()[0]}. Was it written with another "
        "model, optimizer or recipe?"
      ) from e
    self._compare(path, state)
    return state

  def _compare(self, path: epath.Path, state: dict):
    saved = exchange.of_first((manifest.read(path) or {}).get("leaves", {}))
    for name, (dtype, x) in checksum.leaves(state).items():
      if name in saved and saved[name][0] == dtype and saved[name][1] != _number(x):
        raise errors.UserError(
          f"{path} cannot be used: {name} is not what was saved (its checksum does not fit). "
          "Choose another step"
        )

  def meta(self, step: int) -> dict:
    """The JSON that was saved with a step."""
    args = ocp.args.Composite(meta=ocp.args.JsonRestore())
    return self._manager.restore(step, args=args).meta

  def assets(self, step: int) -> dict[str, bytes]:
    """The files that were saved with a step."""
    args = ocp.args.Composite(assets=_RestoreFiles())
    return self._manager.restore(step, args=args).assets

  def close(self):
    """Waits for the save under way and releases the threads."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def _path(self, step: int) -> epath.Path:
    return self.directory / str(step)

  def _is_good(self, step: int) -> bool:
    return step not in self._bad and (self._path(step) / manifest.NAME).exists()

  def _remove(self, numbers: list[int]):
    for step in numbers:
      self._verified.discard(step)
      self._bad.discard(step)
      if jax.process_index() == 0:
        (self._path(step) / manifest.NAME).unlink(
          missing_ok=True
        )  # first: no half step looks whole
        self._path(step).rmtree()


def _cut_by_layer(x) -> ocp.SaveArgs:
  axes = (0,) if getattr(x, "ndim", 0) > 2 else ()
  return ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=axes)


def _number(x: jax.Array) -> int:
  return int(np.asarray(x.addressable_data(0)))


def _placed(x):
  if isinstance(x, jax.ShapeDtypeStruct) and x.sharding is None:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
  return x


class _OrbaxChatter(logging.Filter):
  """Drops what Orbax says about its work; its errors are raised."""

  def filter(self, record: logging.LogRecord) -> bool:
    """See logging.Filter."""
    if "orbax" not in record.pathname:
      return True
    is_users = record.exc_info and isinstance(record.exc_info[1], errors.UserError)
    return record.levelno >= logging.ERROR and not is_users  # that is told by who catches it


def _quieten():
  absl = logging.getLogger("absl")
  if not any(isinstance(f, _OrbaxChatter) for f in absl.filters):
    absl.addFilter(_OrbaxChatter())
