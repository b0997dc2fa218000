"""Checkpoints of a training run: written while training goes on, verified before they are used.

`DIR/STEP/` has the items `state` (all arrays), `meta` (JSON) and `assets` (files), and a manifest that is
written when all the rest is there; see `manifest`. A run may be killed at any moment: what has no
manifest is passed over and written again.
"""

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Collection

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from paligemma_jax import errors, exchange, storage
from paligemma_jax.checkpoint import checksum, items, manifest, steps

# Arrays are cut into pieces of at most this many bytes (chosen), so that one layer of a stacked
# parameter can be read without the others.
_CHUNK_BYTES = 2**26
_NO_STEP, _ALL_DAMAGED = -1, -2  # what process 0 tells the others in place of a step


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
    self.directory = _absolute(directory)
    self.keep = keep
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None,  # steps are removed here, once a newer one has its manifest
      create=True,
      cleanup_tmp_directories=True,
    )
    handlers = {
      "state": items.Arrays(**items.only_streamed() if streamed else {}),
      "meta": ocp.JsonCheckpointHandler(),
      "assets": items.Files(),
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
      RunError: what the save before this one wrote cannot be read.
      OSError and others: it failed.
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
    named = checksum.named(state)
    streamed = {n: x for n, x in named.items() if isinstance(x, items.Streamed)}
    shapes = {n: jax.eval_shape(_data, x).shape for n, x in named.items() if n not in streamed}
    shapes |= {n: x.shape for n, x in streamed.items()}
    cut = jax.tree.map(_cut_by_layer, state)
    whole = ocp.args.Composite(
      state=items.SaveArrays(state, save_args=cut),
      meta=ocp.args.JsonSave(meta),
      assets=items.SaveFiles(assets),
    )
    self._manager.save(step, args=whole, force=True)
    self._thread = threading.Thread(
      target=self._finish, args=(step, sums, streamed, shapes, set(keep_also)), name="checkpoint"
    )
    self._thread.start()

  def _finish(
    self,
    step: int,
    sums: dict[str, tuple[str, jax.Array]],
    streamed: dict[str, items.Streamed],
    shapes: dict[str, tuple[int, ...]],
    keep_also: set[int],
  ):
    """Waits for the commit, opens what was written, writes the manifest and removes old steps.

    In a thread.
    """
    try:
      self._manager.wait_until_finished()
      numbers = {name: (dtype, _number(x)) for name, (dtype, x) in sums.items()}
      numbers |= {name: (str(x.dtype), x.checksum) for name, x in streamed.items()}
      if jax.process_index() == 0:
        if wrong := steps.unreadable(self._path(step) / "state", shapes):
          raise errors.RunError(
            f"{self._path(step)} was written but cannot be read again ({wrong}); it does not count"
          )
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
    args = items.RestoreArrays(
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
    args = ocp.args.Composite(assets=items.RestoreFiles())
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


def _absolute(directory: epath.PathLike) -> epath.Path:
  """The folder by the one name that Orbax and TensorStore both take as it is.

  Raises:
    UserError: there is none.
  """
  directory = storage.path(directory)
  if storage.is_remote(directory):
    return epath.Path(directory)
  name = os.path.realpath(directory.expanduser())  # TensorStore takes no ".."
  is_utf8 = name.encode(errors="ignore").decode() == name
  is_url = str(epath.Path(name)) != name or ":/" in f"{name}/"
  if "\\" in name or is_url or not is_utf8:
    raise errors.UserError(
      f"{ascii(name)}: checkpoints cannot be kept in a folder of this name (a backslash is taken for"
      " a slash, /gs/ and a colon at an end for a URL, and it must be UTF-8); choose another"
    )
  return epath.Path(name)


def check_place(directory: epath.PathLike):
  """Writes a small step below `directory` and reads it back, before anything depends on it.

  Args:
    directory: where steps are to be kept, see `Checkpointer`. What was tried is removed.

  Raises:
    UserError: it cannot be written or not be read.
    OSError: the disk is full.
  """
  trial = _absolute(directory) / ".trial"
  state = {"params": {"trial": np.arange(4, dtype=np.float32)}}
  absl = logging.getLogger("absl")
  level = absl.level
  try:
    absl.setLevel(logging.CRITICAL)  # Orbax logs what it raises
    _remove_trial(trial)  # of a start that was killed
    with storage.told(directory), Checkpointer(trial) as c:
      c.save(0, state, {}, {"trial": b"bytes"})
      c.latest()
      c.restore(0, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state))
  except (RuntimeError, TypeError, ValueError, errors.RunError) as e:
    if os.strerror(errno.ENOSPC) in str(e):
      raise
    raise errors.UserError(
      f"{directory}: a checkpoint that was tried there cannot be written or read again"
      f" ({' '.join(str(e).split())[:300]}); choose another folder"
    ) from e
  finally:
    absl.setLevel(level)
    _remove_trial(trial)


def _remove_trial(trial: epath.Path):
  if jax.process_index() == 0:
    with contextlib.suppress(OSError):  # there is none
      trial.rmtree()
      os.rmdir(trial.parent)  # if it is empty


def _data(x):
  """The numbers of an array, also of one of random keys."""
  is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  return jax.random.key_data(x) if is_key else x


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
