"""From an opened checkpoint to arrays on devices, slice by slice, each shard where it belongs."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import adapt, lazy, source
from paligemma_jax.models import quant as quants
from paligemma_jax.models import tree, variants

_ALIGN = 64  # bytes; the CPU backend takes a NumPy array over without a copy when aligned to this


def load_params(
  src: source.Source,
  config: variants.ModelConfig,
  param_dtype: str | Callable[[str], str | None] | None = None,
  mesh: Mesh | None = None,
  rules: sharding.Rules = None,
  names: Iterable[str] | None = None,
  extend_vocab: bool = False,
  quant: Mapping[str, tree.Quant] | None = None,
) -> dict:
  """Reads parameters onto the devices, and the adapter of a source that has one.

  Every process and device reads only what it keeps. Of a source with one tower, only that tower's
  parameters are returned. The position embedding is resampled when `config.img.res` differs.

  Args:
    src: from `formats.open`.
    config: what the parameters must fit.
    param_dtype: "float32", …, or a function of the flat name; None (or a function's None): as
      stored, but on the CPU backend, which computes badly on narrower weights, float32.
    mesh: None for the first device alone.
    rules: logical axis -> mesh axes, see `sharding`.
    names: flat names to load, e.g. only the trainable ones; None for all.
    extend_vocab: add rows of 0.02 * randn (seed 0) when the table is shorter than
      `config.llm.vocab_size`, as the reference does to a bare Gemma.
    quant: names whose weights are in few bits in memory, and how. One matrix at a time is read and
      quantised, or its codes are read where the file has that form; the float model never exists.

  Returns:
    Nested dict of jax arrays in the names and stacked layout of the published npz.

  Raises:
    UserError: a tensor is missing, unexpected, mis-shaped or not finite, or the file is damaged.
  """
  wanted = tree.param_shapes(config)
  found = adapt.fitted(src, config, extend_vocab)
  towers = {name.split("/")[0] for name in found}
  if src.config is None:  # a tower alone; a bare SigLIP has no head
    wanted = {n: s for n, s in wanted.items() if n.split("/")[0] in towers}
    wanted = {n: s for n, s in wanted.items() if n in found or not n.startswith("img/head/")}
  if names is not None:
    wanted = {n: wanted[n] for n in names}
    found = {n: found[n] for n in names if n in found}
  _compare(src, config, found, wanted)
  quant = {n: q for n, q in (quant or {}).items() if n in wanted}
  adapters = src.adapter.adapters if src.adapter is not None and names is None else {}
  leaves = {
    n: leaf
    for n, leaf in tree.formed(config, tree.Form(quant, adapters)).items()
    if n in wanted or n.rpartition("/")[0] in quant or ".lora/" in n
  }
  placed = _places(leaves, mesh, rules)
  params = {}
  for name in wanted:
    if name in quant:
      x = _in_few_bits(src, name, found[name], tree.plain(config)[name], quant[name])
      params |= {f"{name}/{part}": _put(a, placed[f"{name}/{part}"]) for part, a in x.items()}
    else:
      dtype = choose_dtype(name, src.arrays[name].dtype, param_dtype, placed[name])
      params[name] = place(src.path, name, found[name], dtype, placed[name])
  if adapters:
    params |= {name: _put(x, placed[name]) for name, x in src.adapter.arrays().items()}
  if jax.process_index() == 0:
    src.verify()
  return sharding.unflatten({name: params[name] for name in leaves})


def load_adapter(
  src: source.Source,
  config: variants.ModelConfig,
  flat: Mapping[str, jax.Array],
  mesh: Mesh | None = None,
  rules: sharding.Rules = None,
) -> dict[str, jax.Array]:
  """The arrays of a source's adapter, and the weights that it replaces, by flat name.

  Args:
    src: with an adapter.
    config: of the model.
    flat: its parameters; what is replaced has their dtype.
    mesh, rules: as `load_params`.
  """
  leaves = tree.formed(config, tree.Form({}, src.adapter.adapters))
  new = {n: x for n, x in leaves.items() if ".lora/" in n or n in src.adapter.replaced}
  placed = _places(new, mesh, rules)
  arrays = src.adapter.arrays()
  found = {n: _put(arrays[n], placed[n]) for n in new if n in arrays}
  for name in src.adapter.replaced:
    dtype = flat[name].dtype if name in flat else np.dtype("float32")
    found[name] = place(src.path, name, src.arrays[name], dtype, placed[name])
  return found


def _places(
  leaves: Mapping[str, tree.Leaf], mesh: Mesh | None, rules: sharding.Rules
) -> dict[str, Sharding]:
  if mesh is None:
    return dict.fromkeys(leaves, SingleDeviceSharding(jax.local_devices()[0]))
  return sharding.param_shardings(leaves, mesh, rules)


def _in_few_bits(
  src: source.Source, name: str, x: lazy.Array, leaf: tree.Leaf, quant: tree.Quant
) -> dict[str, np.ndarray]:
  """The arrays that stand for a weight, filled one matrix at a time."""
  stored = src.quantised.get(name)
  parts = {
    part: _aligned(one.shape, np.dtype(one.dtype))
    for part, one in tree.quantised(leaf, quant).items()
  }
  for place in np.ndindex(leaf.stacked):
    if stored is not None and stored.quant == quant:
      one = stored.read(place)
    else:
      matrix = np.asarray(lazy.Part(x, place))
      if not lazy.is_finite(matrix):
        raise source.non_finite(src.path, name, place[0] if place else None)
      axes = [i - leaf.stack for i in (*leaf.outer, *leaf.summed)]
      one = _quantised(matrix.transpose(axes), leaf.matrix, quant)
    for part, a in one.items():
      parts[part][place] = a
  return parts


def _quantised(
  x: np.ndarray, shape: tuple[int, int], quant: tree.Quant
) -> dict[str, np.ndarray | jax.Array]:
  """Codes and scales of one matrix of `shape` [out, in], its axes in any order in memory.

  On the host, compiled where JAX has a CPU backend; the bits are those of NumPy.
  """
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # $JAX_PLATFORMS names the accelerator alone
    return quants.quantise(np.ascontiguousarray(x.reshape(shape)), quant)
  with jax.set_mesh(Mesh(np.array([host]), ("host",))):  # whatever devices the caller has set
    return _compiled(jax.device_put(x, host), shape, quant)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compiled(x, shape, quant):
  return quants.quantise(x.reshape(shape), quant)


def _put(x: np.ndarray, placed: Sharding) -> jax.Array:
  return jax.make_array_from_callback(x.shape, placed, lambda index: x[index])


def choose_dtype(name: str, stored: np.dtype, param_dtype, placed: Sharding) -> np.dtype:
  """The dtype in memory of a parameter; see `load_params`."""
  asked = param_dtype(name) if callable(param_dtype) else param_dtype
  if asked is not None:
    asked = np.dtype(asked).name
    if asked not in lazy.FLOATS:
      raise errors.UserError(f"param_dtype {asked!r} is not of {', '.join(lazy.FLOATS)}")
    return lazy.FLOATS[asked]
  on_cpu = next(iter(placed.device_set)).platform == "cpu"
  return lazy.FLOATS["float32"] if on_cpu else stored


def place(where: str, name: str, x: lazy.Array, dtype: np.dtype, placed: Sharding) -> jax.Array:
  """Reads every shard of `x` that this process holds and puts it on its device."""
  read = {}

  def shard(index):
    box = lazy.normalise(index, x.shape)[0]
    key = tuple((s.start, s.stop) for s in box)
    if key not in read:  # replicas are read once
      read[key] = _read_box(where, name, x, dtype, box)
    return read[key]

  return jax.make_array_from_callback(x.shape, placed, shard)


def _read_box(where: str, name: str, x: lazy.Array, dtype: np.dtype, box) -> np.ndarray:
  out = _aligned([s.stop - s.start for s in box], dtype)
  if not box:
    out[...] = x[()]
    return out
  row = math.prod(out.shape[1:]) * x.dtype.itemsize
  step = max(1, 2**27 // max(1, row))
  for start in range(0, out.shape[0], step):
    stop = min(start + step, out.shape[0])
    first = slice(box[0].start + start, box[0].start + stop)
    piece = x.read((first, *box[1:]))
    if not lazy.is_finite(piece):
      raise source.non_finite(where, name, _bad_layer(name, piece, first.start))
    out[start:stop] = piece
  return out


def _bad_layer(name: str, piece: np.ndarray, first: int) -> int | None:
  if not ("/layers/" in name or "/encoderblock/" in name):
    return None
  return first + next(i for i, x in enumerate(piece) if not lazy.is_finite(x))


def _aligned(shape, dtype: np.dtype) -> np.ndarray:
  """An uninitialised array whose first byte is aligned for the CPU backend."""
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + _ALIGN, np.uint8)
  start = -raw.ctypes.data % _ALIGN
  return raw[start : start + size].view(dtype).reshape(shape)


def _compare(src: source.Source, config: variants.ModelConfig, found, wanted):
  shapes = {name: tuple(x.shape) for name, x in found.items()}
  advice = "Is it a checkpoint of another variant, or incomplete?"
  if src.config is not None:
    sizes = {n: s for n, s in src.shapes.items() if n != adapt.POSEMB}
    asked = {n: s for n, s in tree.param_shapes(config).items() if n != adapt.POSEMB}
    if sizes != asked and src.config.name != config.name:
      advice = f"It holds {src.config.name}, the config asks for {config.name}; choose that variant"
  elif shapes.get(adapt.TABLE, (0,))[0] < wanted.get(adapt.TABLE, (0,))[0]:
    advice = "A bare Gemma: its table can be extended with random rows (extend_vocab)"
  source.compare(src.path, shapes, wanted, advice)
