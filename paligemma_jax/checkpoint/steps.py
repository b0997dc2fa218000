"""Steps of a training run as checkpoints to load from: only the parameters are read.

Read with TensorStore, a slice at a time, without starting JAX. A workdir stands for its newest
complete step.
"""

import collections
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from etils import epath

from paligemma_jax import errors, storage
from paligemma_jax.checkpoint import layouts, lazy, manifest, source, stream
from paligemma_jax.models import tree, variants

_STATE = "state"
_MODEL = "model"  # key of meta that holds the model's config
ADAPTER = "adapter"  # key of meta of a step that holds what trained beside a base, see `adapted`


def is_mine(path: str) -> bool:
  """Whether `path` is a step, a folder of steps or a workdir."""
  return _is_step(_path(path)) or _folder_of_steps(path) is not None


def _path(path: str) -> epath.Path:
  return epath.Path(storage.path(path))


def _is_step(path: epath.Path) -> bool:
  return (path / _STATE / "_METADATA").exists()


def _folder_of_steps(path: str) -> epath.Path | None:
  for folder in (_path(path) / "checkpoints", _path(path)):
    if any(_is_step(folder / str(s)) for s in manifest.steps(folder)):
      return folder
  return None


def open(path: str) -> source.Source:
  """Opens a step, or the newest complete step of a folder of steps or a workdir.

  Of a run that trained adapters `arrays` are these alone, and `meta` says what they belong to.

  Raises:
    UserError: there is no complete step, or the parameters are not those of a model.
  """
  step = _path(path)
  if not _is_step(step):
    folder = _folder_of_steps(path)
    newest, _ = manifest.newest(folder, thorough=False)
    if newest is None:
      raise errors.UserError(
        f"{folder} has no step that is complete and undamaged; train on, or remove it"
      )
    step = folder / str(newest)
  elif wrong := manifest.problem(step, thorough=False):
    if manifest.read(step) is not None:
      raise errors.UserError(f"{step} cannot be used: {wrong}. Choose another step")
    manifest.log.warning("%s is not verified: %s", step, wrong)
  try:
    arrays = open_arrays(step / _STATE)
    meta = _read_json(step / "meta" / "metadata")
    model = meta.pop(_MODEL, None)
    config = variants.ModelConfig.from_dict(model) if model else None
  except (
    errors.UserError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
  ) as e:
    reason = str(e).rsplit(": ", 1)[-1]
    raise errors.UserError(f"{step} is damaged ({reason}). Choose another step") from e
  if ADAPTER in meta:
    arrays = {name.removeprefix("params/"): x for name, x in arrays.items()}
  else:
    arrays, kind = layouts.normalise(arrays, "", str(step))
    config = config or layouts.recognise(arrays, str(step))
    layouts.check(arrays, kind, config, str(step))
  assets = {n: (step / "assets" / n).read_bytes() for n in source.ASSETS if _is_file(step, n)}
  return source.Source(str(step), "orbax", arrays, config, assets, meta, lambda: _verify(step))


def _is_file(step: epath.Path, name: str) -> bool:
  return (step / "assets" / name).exists()


def _read_json(path: epath.Path) -> dict:
  return json.loads(path.read_text()) if path.exists() else {}


def _verify(step: epath.Path):
  if manifest.read(step) is None:
    return  # said when it was opened
  if wrong := manifest.problem(step, thorough=True):
    others = [str(s) for s in manifest.steps(step.parent) if str(s) != step.name]
    raise errors.UserError(
      f"{step} cannot be used: {wrong}. Other steps: {source.listed(others) if others else 'none'}"
    )


class _Remote(lazy.Array):
  """An array in TensorStore."""

  def __init__(self, store, where: str):
    self.store, self.where, self.shape = store, where, tuple(store.shape)
    self.dtype = np.dtype(store.dtype.numpy_dtype)

  def read(self, index):
    """See `lazy.Array.read`."""
    try:
      return np.asarray(self.store[index].read(order="C").result())
    except ValueError as e:  # what TensorStore raises for bytes that do not decompress
      reason = str(e).rsplit(": ", 1)[-1]
      raise errors.UserError(f"{self.where} is damaged ({reason}). Choose another step") from e


def open_arrays(state: epath.Path) -> dict[str, lazy.Array]:
  """The parameters of an Orbax item, by slash-joined name.

  They lie below `params`; what also lies below `ema`, their moving average, counts in its place.
  """
  stored = json.loads((state / "_METADATA").read_text())
  leaves = [[str(k["key"]) for k in e["key_metadata"]] for e in stored["tree_metadata"].values()]
  averaged = {tuple(path) for root, *path in leaves if root == "ema"}
  wanted = {}
  for root, *path in leaves:
    if root == "params":
      wanted["/".join((root, *path))] = ("ema" if tuple(path) in averaged else root, *path)
  found = _open_all(state, stored, wanted.values())
  return {name: _Remote(found[keys], f"{state.parent}: {name}") for name, keys in wanted.items()}


def unreadable(state: epath.Path, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
  """Opens all arrays that were just written to an Orbax item and says what is wrong, else None.

  Args:
    state: the item's folder.
    shapes: slash-joined name of every leaf -> its shape.
  """
  import tensorstore as ts

  try:
    stored = json.loads((state / "_METADATA").read_text())
    found = _open_all(state, stored, [tuple(name.split("/")) for name in shapes])
    keys = ts.KvStore.open({"driver": "ocdbt", "base": _kvstore(state)}).result().list().result()
  except (OSError, ValueError) as e:
    return " ".join(str(e).split())[:300]
  pieces = collections.Counter(key.rpartition(b"/")[0].decode() for key in keys)
  for keys, store in found.items():
    name, shape = "/".join(keys), tuple(store.shape)
    if shape != tuple(shapes[name]):
      return f"{name} has shape {shape} instead of {tuple(shapes[name])}"
    chunks = store.chunk_layout.read_chunk.shape or ()
    wanted = math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks))
    if pieces[".".join(keys)] != wanted + 1:  # and its description
      return f"{name} has {pieces['.'.join(keys)] - 1} pieces instead of {wanted}"
  return None


def _open_all(state: epath.Path, stored: dict, leaves: Iterable[tuple[str, ...]]) -> dict:
  """Path of a leaf -> TensorStore of it; `stored` is the item's description."""
  import tensorstore as ts

  base, found = _kvstore(state), {}
  for keys in leaves:
    name = ".".join(keys) + "/"
    if stored.get("use_ocdbt"):
      kvstore = {"driver": "ocdbt", "base": base, "path": name}
    else:
      kvstore = {**base, "path": base["path"] + name}
    driver = "zarr3" if stored.get("use_zarr3") else "zarr"
    found[keys] = ts.open({"driver": driver, "kvstore": kvstore}, read=True)
  return {keys: future.result() for keys, future in found.items()}


def _kvstore(path: epath.Path) -> dict:
  """TensorStore's description of a folder."""
  if storage.is_remote(path):
    bucket, _, rest = str(path).removeprefix("gs://").partition("/")
    return {"driver": "gcs", "bucket": bucket, "path": rest + "/"}
  return {"driver": "file", "path": f"{os.path.realpath(path)}/"}  # it takes no ".."


def save(
  path: str,
  read: Callable,
  config: variants.ModelConfig,
  assets: dict[str, bytes],
  meta: dict,
  plan: stream.Plan,
):
  """Writes a folder with one step that holds parameters alone; see `formats.save`."""
  from paligemma_jax import sharding
  from paligemma_jax.checkpoint import atomic, items, orbax

  def streamed(name, shape):
    rows = lambda start, stop: _rows(name, shape, start, stop, plan, read)
    return items.Streamed(shape, plan.dtypes[name], rows)

  params = {name: streamed(name, shape) for name, shape in tree.param_shapes(config).items()}
  state = {"params": sharding.unflatten(params)}
  with atomic.new(path, folder=True) as folder:
    with orbax.Checkpointer(folder, streamed=True) as checkpointer:
      checkpointer.save(int(meta.get("step", 0)), state, meta | {_MODEL: config.to_dict()}, assets)
    plan.before_commit()


def _rows(name: str, shape, start: int, stop: int, plan: stream.Plan, read) -> np.ndarray:
  """Rows of a tensor, or some of the layers of a stacked one, checked and cast."""
  if not tree.is_stacked(name):
    x = read(name, None)
    stream.check_shape(plan, name, None, x, shape)
    return stream.cast(plan, name, None, np.asarray(x[start:stop]))
  layers = []
  for layer in range(start, stop):
    x = read(name, layer)
    stream.check_shape(plan, name, layer, x, shape)
    layers.append(stream.cast(plan, name, layer, np.asarray(x)))
  return layers[0][None] if len(layers) == 1 else np.stack(layers)
