"""One mechanism for every mesh: logical axis names of arrays, rules from names to mesh axes.

Parameters stay a plain nested dict. `models.tree` names the axes of every one of them; a mesh layout
(`configs/meshes.py`) maps these names to mesh axes. All meshes have Auto axes: the compiler
propagates what the rules leave open.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from paligemma_jax import errors

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...] | None

# One layout for any number of devices: batch and parameters are both split over "fsdp".
FSDP: Rules = (("batch", ("data", "fsdp")), ("auto", "fsdp"))

# A parameter with more elements than this must not stay whole on every device (64 MB in float32).
LARGE = 2**24
REPLICATED = ("kv_heads",)  # the axes that may stay whole knowingly: Gemma 2B has one KV head
CODES = ("int8", "uint8")  # of weights in few bits: two in a byte may not divide where values do

# Below this many elements a parameter is not worth a gather (chosen; big_vision uses 4 MiB).
AUTO_MIN_SIZE = 2**16


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
  """Nested dict -> {"a/b/c": leaf}, in the tree's order. `unflatten` is the inverse."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f"{prefix}{key}/")
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def unflatten(flat: dict[str, Any]) -> dict:
  """Inverse of `flatten`."""
  tree: dict = {}
  for name, value in flat.items():
    *path, last = name.split("/")
    node = tree
    for key in path:
      node = node.setdefault(key, {})
    node[last] = value
  return tree


def make_mesh(axes: dict[str, int], devices: list | None = None) -> Mesh:
  """Returns a mesh with the named axis sizes; one size may be -1, "the rest of the devices".

  Devices of a TPU follow each other along its links, an axis of the slice may be split between two
  of the mesh, and slices follow each other along the first axes that they divide, never along the
  last one. So the order is not that of the processes: `rows_here` says what each holds.

  Args:
    axes: mesh axis name -> size, e.g. {"data": 1, "fsdp": -1, "tensor": 1}.
    devices: default all devices of all processes.

  Raises:
    UserError: the sizes do not multiply to the number of devices, or these cannot be laid out so.
  """
  devices = jax.devices() if devices is None else devices
  told = ", ".join(f"{axis}={size}" for axis, size in axes.items())
  if list(axes.values()).count(-1) > 1 or any(s < 1 and s != -1 for s in axes.values()):
    raise errors.UserError(
      f"mesh {told}: every size must be at least 1, and one may be -1 (the rest)"
    )
  known = math.prod(s for s in axes.values() if s != -1)
  sizes = {k: len(devices) // known if s == -1 else s for k, s in axes.items()}
  if math.prod(sizes.values()) != len(devices):
    raise errors.UserError(
      f"mesh {told} does not fill {len(devices)} devices; choose sizes whose product is {len(devices)}"
    )
  slices = len({getattr(d, "slice_index", 0) for d in devices})
  between = between_slices(sizes, slices)
  try:
    if slices == 1:
      laid = mesh_utils.create_device_mesh(
        tuple(sizes.values()), devices, allow_split_physical_axes=True
      )
    else:
      inside = tuple(size // n for size, n in zip(sizes.values(), between, strict=True))
      laid = mesh_utils.create_hybrid_device_mesh(
        inside, between, devices, allow_split_physical_axes=True
      )
  except (NotImplementedError, ValueError) as e:  # of JAX, in several long lines
    raise errors.UserError(
      f"mesh {told} cannot be laid out over {len(devices)} {devices[0].device_kind};"
      f" choose other sizes ({str(e).splitlines()[0].split('. ')[0]})"
    ) from e
  return Mesh(laid, tuple(sizes), (AxisType.Auto,) * len(sizes))


def between_slices(sizes: dict[str, int], slices: int) -> tuple[int, ...]:
  """How many slices lie along each axis of a mesh: of the first axes as many as divide.

  Raises:
    UserError: not all of them find a place before the last axis, whose traffic is the heaviest.
  """
  between, left = [], slices
  for size in list(sizes.values())[:-1]:
    between.append(math.gcd(size, left))
    left //= between[-1]
  if left > 1:
    raise errors.UserError(
      f"mesh {dict(sizes)}: {slices} slices of devices do not divide"
      f" {' x '.join(list(sizes)[:-1])}; make one of them a multiple of {slices}"
    )
  return (*between, 1)


def use(mesh: Mesh | None) -> contextlib.AbstractContextManager:
  """`with use(mesh):` makes it the mesh of `constrain`; None: one device, nothing to do."""
  return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


class Named(Protocol):
  """An array that is told: `models.tree.Leaf`."""

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]  # their logical names
  dtype: str  # the only one it may have; "": any float


def param_shardings(
  leaves: Mapping[str, Named], mesh: Mesh, rules: Rules
) -> dict[str, NamedSharding]:
  """Where every parameter lies: flat name -> NamedSharding.

  A named axis goes to the mesh axis of its rule where that divides it, else it is replicated (the
  one KV head of Gemma 2B). Then the rule "auto" splits the largest axis that is left and divides
  over its mesh axis, never the scanned one: FSDP.

  Args:
    leaves: by flat name.
    mesh: the devices.
    rules: logical name -> mesh axes; None replicates everything.
  """
  return {
    name: NamedSharding(mesh, _param_spec(leaf, mesh, rules)) for name, leaf in leaves.items()
  }


def _param_spec(leaf: Named, mesh: Mesh, rules: Rules) -> P:
  if not rules or not leaf.shape:
    return P()
  names, shape = leaf.axes, leaf.shape
  spec = list(_spec(names, shape, mesh, rules))
  auto = _mesh_axes("auto", mesh, rules)
  used = {a for entry in spec if entry for a in ((entry,) if isinstance(entry, str) else entry)}
  auto = tuple(a for a in auto if a not in used)
  size = math.prod(mesh.shape[a] for a in auto)
  if size > 1 and math.prod(shape) >= AUTO_MIN_SIZE:
    free = [
      i for i, n in enumerate(names) if n != "layers" and not spec[i] and shape[i] % size == 0
    ]
    if free:
      spec[max(free, key=lambda i: shape[i])] = auto
  return P(*spec)


class Placed(NamedTuple):
  """A line of `audit`."""

  name: str
  leaf: Named
  spec: P
  ways: int  # devices that share it


def audit(leaves: Mapping[str, Named], mesh: Mesh, rules: Rules) -> list[Placed]:
  """How every parameter is split, largest share first; what is not split as meant is an error.

  Args:
    leaves: by flat name.
    mesh: the devices.
    rules: logical name -> mesh axes.

  Raises:
    UserError: a rule names an axis that no parameter has, an axis does not divide over the devices
      of its rule, or a large parameter stays whole although the parameters are to be split.
  """
  known = {axis for leaf in leaves.values() for axis in leaf.axes} | {"auto", "batch", "length"}
  for axis, _ in rules or ():
    if axis not in known:
      hint = errors.did_you_mean(axis, [k for k in known if k])
      raise errors.UserError(f'mesh: the rule for "{axis}" matches no axis of any parameter{hint}')
  lines = []
  for name, leaf in leaves.items():
    spec = _param_spec(leaf, mesh, rules)
    ways = _ways(spec, mesh, len(leaf.shape))
    for axis, size, n in zip(leaf.axes, leaf.shape, ways, strict=True):
      wanted = math.prod(mesh.shape[a] for a in _mesh_axes(axis, mesh, rules))
      if n < wanted and axis not in REPLICATED and leaf.dtype not in CODES:
        raise errors.UserError(
          f"mesh: {name} has {size} {axis}, which does not divide over {wanted} devices; choose"
          " another size of the mesh axis"
        )
    lines.append(Placed(name, leaf, spec, math.prod(ways)))
  auto = math.prod(mesh.shape[a] for a in _mesh_axes("auto", mesh, rules))
  large = [line for line in lines if math.prod(line.leaf.shape) > LARGE]
  for line in large:
    if auto > 1 and line.ways < auto and math.prod(line.leaf.shape) > LARGE * line.ways:
      sizes = " x ".join(map(str, line.leaf.shape))
      most = max(
        n for n in range(1, auto) if auto % n == 0 and all(_divides(one, n) for one in large)
      )
      raise errors.UserError(
        f"mesh: {line.name} ({sizes}) has no dimension that divides over {auto} devices and would"
        f" stay whole on each; choose fewer for fsdp, e.g. data_fsdp:{most}"
      )
  return sorted(lines, key=lambda line: -math.prod(line.leaf.shape) / line.ways)


def _divides(line: Placed, n: int) -> bool:
  """Whether a dimension of a parameter, but the scanned one, divides over n devices."""
  axes = zip(line.leaf.axes, line.leaf.shape, strict=True)
  return any(size % n == 0 for axis, size in axes if axis != "layers")


def _ways(spec: P, mesh: Any, ndim: int) -> tuple[int, ...]:
  """Over how many devices each of `ndim` axes is split."""
  entries = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
  entries += [()] * (ndim - len(entries))
  return tuple(math.prod(mesh.shape[a] for a in axes) for axes in entries)


def _mesh_axes(name: str | None, mesh: Any, rules: Rules) -> tuple[str, ...]:
  for key, axes in rules or ():
    if key == name and axes:
      axes = (axes,) if isinstance(axes, str) else axes
      return tuple(a for a in axes if mesh.shape.get(a, 1) > 1)
  return ()


def _spec(names: tuple, shape: tuple[int, ...], mesh: Any, rules: Rules) -> P:
  """The PartitionSpec of named axes; an axis that does not divide stays whole."""
  used: set[str] = set()
  spec: list = []
  for name, size in zip(names, shape, strict=True):
    axes = tuple(a for a in _mesh_axes(name, mesh, rules) if a not in used)
    if axes and size % math.prod(mesh.shape[a] for a in axes) == 0:
      spec.append(axes)
      used |= set(axes)
    else:
      spec.append(None)
  return P(*spec)


def constrain(x: jax.Array, names: tuple[str | None, ...], rules: Rules) -> jax.Array:
  """Pins an activation's layout: `names` are its logical axes. Without rules or mesh: identity.

  The mesh is that of `jax.set_mesh`, which is part of jit's cache key, and `rules` is a static
  field of the calling module; `nn.with_logical_constraint` is silently lost by a cached trace.
  """
  if not rules:
    return x
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  return jax.lax.with_sharding_constraint(x, _spec(names, x.shape, mesh, rules))


def on_each_device(
  f: Callable, args: tuple, names: tuple[tuple[str | None, ...], ...], rules: Rules
) -> jax.Array:
  """`f(*args)`, each device of the mesh in use with its own part: kernels the compiler cannot split.

  Args:
    f: returns an array that is split as its first argument is.
    args: arrays, or None.
    names: of each argument, the logical axes; what has no rule or does not divide stays whole.
    rules: logical name -> mesh axes.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return f(*args)
  specs = tuple(
    P() if x is None else _spec(axes, x.shape, mesh, rules)
    for x, axes in zip(args, names, strict=True)
  )
  # What a kernel returns says nothing of the mesh, so there is nothing to check.
  return jax.shard_map(f, in_specs=specs, out_specs=specs[0], check_vma=False)(*args)


def ways(name: str, rules: Rules) -> int:
  """Over how many devices of the mesh in use the logical axis `name` of activations is split."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else math.prod(mesh.shape[a] for a in _mesh_axes(name, mesh, rules))


def param_ways(leaf: Named, rules: Rules) -> tuple[int, ...]:
  """Over how many devices of the mesh in use each axis of a parameter is split."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return (1,) * len(leaf.shape)
  return _ways(_param_spec(leaf, mesh, rules), mesh, len(leaf.shape))


def batch_sharding(mesh: Mesh, rules: Rules, batch_size: int | None = None) -> NamedSharding:
  """How a batch lies: split along its first axis by the rule "batch".

  Args:
    mesh: the devices.
    rules: logical name -> mesh axes.
    batch_size: global; one that does not divide over the devices is replicated instead.
  """
  axes = _mesh_axes("batch", mesh, rules)
  if not axes or (batch_size is not None and batch_size % batch_ways(mesh, rules)):
    return NamedSharding(mesh, P())
  return NamedSharding(mesh, P(axes))


def batch_ways(mesh: Any, rules: Rules) -> int:
  """Over how many parts of the mesh a batch is split."""
  return math.prod(mesh.shape[a] for a in _mesh_axes("batch", mesh, rules))


def whole_batch(batch_size: int, mesh: Mesh | None, rules: Rules) -> int:
  """The least size, `batch_size` at least, that divides over the devices of a mesh (None: one)."""
  ways = 1 if mesh is None else batch_ways(mesh, rules)
  return -(-batch_size // ways) * ways


def rows_here(mesh: Mesh | None, axis_rules: Rules, batch_size: int) -> np.ndarray:
  """Which rows of a global batch this process holds: int[b], sorted, each once.

  Devices need not lie in the order of their processes, and where a group of "tensor" crosses
  processes several hold the same rows:

      devices of the batch axis   0 1 1 0      process 0 holds the first and the last quarter
      groups (0, 1) and (0, 1)                 both processes hold all rows

  Args:
    mesh: the devices of all processes; None: one device, which holds all.
    axis_rules: logical name -> mesh axes.
    batch_size: of the global batch.
  """
  rows = np.arange(batch_size)
  if mesh is None:
    return rows
  where = batch_sharding(mesh, axis_rules, batch_size)
  held = where.devices_indices_map((batch_size,))
  mine = [
    rows[index] for device, index in held.items() if device.process_index == jax.process_index()
  ]
  return np.unique(np.concatenate([rows[:0], *mine]))


def global_size(rows: int, mesh: Mesh | None, axis_rules: Rules) -> int:
  """Rows of the global batch of which this process holds `rows`; inverse of `rows_here`.

  Raises:
    ValueError: it holds so many of no batch that divides over the devices of several processes.
  """
  if mesh is None or jax.process_count() == 1:
    return rows
  ways = batch_ways(mesh, axis_rules)
  share = len(rows_here(mesh, axis_rules, ways))
  if not share or rows % share:
    raise ValueError(f"{rows} rows, but this process holds {share} of every {ways} of a batch")
  return rows * ways // share


def put_batch(batch: Any, mesh: Mesh, rules: Rules) -> Any:
  """The rows of `rows_here` (a pytree of numpy arrays [b, …]) -> global arrays [B, …].

  Of several processes each gives its own; what several hold must be the same in each. In one
  process a batch that does not divide over the devices is whole on each of them.

  Raises:
    ValueError: not the rows that this process holds of any batch.
  """
  size = global_size(len(jax.tree.leaves(batch)[0]), mesh, rules)
  where, rows = batch_sharding(mesh, rules, size), rows_here(mesh, rules, size)

  def put(x):
    x = np.asarray(x)

    def part(index):
      start, stop, _ = index[0].indices(size)
      first = int(np.searchsorted(rows, start))
      return x[first : first + stop - start]

    return jax.make_array_from_callback((size, *x.shape[1:]), where, part)

  return jax.tree.map(put, batch)
