"""Adam whose mean and variance are kept in 8 bits a value (arXiv:2110.02861).

As bitsandbytes 0.50.2: a moment is cut into blocks of 256 values, each block is divided by its
largest magnitude, `absmax`, and every value becomes the code of the nearest one of a map, see
`dynamic_map`. A step is one of float32 Adam: widen, move, narrow again; the update comes of what is
not narrowed yet. A parameter of fewer than 4,096 values in a layer keeps float32 moments.

Codes have the parameter's shape, and lie where it lies. Blocks follow each other as the values of
the parameter do, row after row, as in bitsandbytes, if it is not stacked. A stacked one is cut by
layers (keys and values, gate and up apart, too), as if its longest axis came first: that is the
axis which `fsdp` splits, so that a device has whole blocks and nothing is gathered. A block of a
gate [D, F] is thus 256 of D at one F, as it is in the [F, D] of Hugging Face. Which values share a
block does not depend on the mesh. (What does gather a layer at a time: the image tower of a mesh
with an axis "tensor", whose widths are no multiples of 256.)
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from paligemma_jax.models import tree
from paligemma_jax.train import dynamic_map

BLOCK = 256  # values that share a scale; bitsandbytes since 0.44
SMALLEST = 4096  # parameters of fewer values keep float32 moments; bitsandbytes' min_8bit_size
MEAN, VARIANCE = dynamic_map.DynamicMap(signed=True), dynamic_map.DynamicMap(signed=False)


class State(NamedTuple):
  """The state of `scale_by_adam8bit`; trees like that of the parameters."""

  count: jax.Array  # int32[], updates done
  mu: Any  # uint8, the codes, or float32; of the parameter's shape
  nu: Any
  mu_absmax: Any  # float32, see `Cut.absmax_shape`; None where the moment is float32
  nu_absmax: Any


class Cut(NamedTuple):
  """How a parameter is cut."""

  stack: int  # so many axes at the front only repeat
  order: tuple[int, ...]  # of the axes
  first: int  # of these, `first` … `last` - 1 are made one, and that is cut into blocks
  last: int

  def blocks(self, x: jax.Array) -> jax.Array:
    """[parameter's shape] -> [*before, blocks, 256, *after]; the last one is filled with zeros."""
    x = x.transpose(self.order)
    before, after = x.shape[: self.first], x.shape[self.last :]
    x = x.reshape(*before, -1, *after)
    fill = -x.shape[self.first] % BLOCK
    x = jnp.pad(x, [(0, fill if i == self.first else 0) for i in range(x.ndim)]) if fill else x
    return x.reshape(*before, -1, BLOCK, *after)

  def joined(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Inverse of `blocks`, for a parameter of this shape."""
    turned = [shape[i] for i in self.order]
    x = x.reshape(*turned[: self.first], -1, *turned[self.last :])
    x = jax.lax.slice_in_dim(x, 0, math.prod(turned[self.first : self.last]), axis=self.first)
    return x.reshape(turned).transpose([self.order.index(i) for i in range(len(shape))])

  def absmax_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """[*before, blocks, *after] of a parameter of this shape."""
    turned = [shape[i] for i in self.order]
    blocks = -(-math.prod(turned[self.first : self.last]) // BLOCK)
    return *turned[: self.first], blocks, *turned[self.last :]

  def pieces(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(axis, width, number) of pieces that can be stepped by themselves: layers, or a block of each
    row. Never along the longest axis, which devices share.
    """
    if self.stack:
      return 0, 1, shape[0]
    if self.last - self.first == 1 and shape[self.first] < max(shape):
      return self.first, BLOCK, shape[self.first] // BLOCK
    return 0, shape[0], 1

  def absmax_spec(self, shape: tuple[int, ...], spec: PartitionSpec, mesh: Any) -> PartitionSpec:
    """Where they lie if the parameter lies as `spec` says: with its values, where that divides."""
    entries = [*spec, *[None] * (len(shape) - len(spec))]
    entries = [entries[i] for i in (*self.order[: self.first + 1], *self.order[self.last :])]
    ways = lambda e: math.prod(mesh.shape[a] for a in ((e,) if isinstance(e, str) else e or ()))
    sizes = zip(entries, self.absmax_shape(shape), strict=True)
    return PartitionSpec(*(e if n % ways(e) == 0 else None for e, n in sizes))


def cut(name: str, shape: tuple[int, ...]) -> Cut | None:
  """How the parameter `name` (slash-joined) is cut; None where its moments stay float32."""
  stack = tree.stack_of(name)
  if math.prod(shape[stack:]) < SMALLEST:
    return None
  order = list(range(len(shape)))
  if stack:
    order.insert(stack, order.pop(max(order[stack:], key=shape.__getitem__)))
  first = len(shape) - 1  # as few axes as hold whole blocks; one alone need not be turned
  while first > stack and math.prod(shape[i] for i in order[first:]) % BLOCK:
    first -= 1
  if first == len(shape) - 1:
    first, order = order[first], sorted(order)
    return Cut(stack, tuple(order), first, first + 1)
  return Cut(stack, tuple(order), first, len(shape))


def scale_by_adam8bit(
  b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
  """As `optax.scale_by_adam`; names of parameters say which are stacked by layers."""

  def init(params):
    def codes(zero):
      return lambda how, p: (
        jnp.full(p.shape, zero, jnp.uint8) if how else jnp.zeros(p.shape, jnp.float32)
      )

    absmax = lambda how, p: jnp.zeros(how.absmax_shape(p.shape), jnp.float32) if how else None
    parts = (codes(MEAN.zero), codes(VARIANCE.zero), absmax, absmax)
    return State(jnp.zeros([], jnp.int32), *(_map_cut(part, params) for part in parts))

  def update(updates, state, params=None):
    del params
    count = state.count + 1
    step = functools.partial(_adam, b1, b2, eps, 1 - b1**count, 1 - b2**count)

    def of_leaf(how, g, m, v, *absmax):
      return _step(step, how, (g, m, v, *absmax)) if how else (*step(g, m, v), *absmax)

    found = _map_cut(of_leaf, updates, *state[1:])
    part = lambda i: jax.tree.map(lambda x: x[i], found, is_leaf=lambda x: isinstance(x, tuple))
    return part(0), State(count, *map(part, range(1, 5)))

  return optax.GradientTransformation(init, update)


def _map_cut(fn: Callable, params: Any, *rest: Any) -> Any:
  """Maps `fn(how it is cut, leaf, …)` over trees of parameters."""

  def call(path, leaf, *others):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return fn(cut(name, leaf.shape), leaf, *others)

  return jax.tree_util.tree_map_with_path(call, params, *rest)


def _adam(b1, b2, eps, correct1, correct2, g, m, v):
  """One step of Adam in float32: (update, mean, variance)."""
  m = (1 - b1) * g + b1 * m  # in this order a fused product and sum rounds as PyTorch's
  v = (1 - b2) * g * g + b2 * v
  return (m / correct1) / (jnp.sqrt(v / correct2) + eps), m, v


def _step(step: Callable, how: Cut, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
  """(gradient, codes, codes, absmax, absmax) -> (update, …) of a parameter, by a float32 `step`.

  In place, a piece after the other, so that the wide moments of the whole never exist.
  """
  axis, width, count = how.pieces(arrays[0].shape)
  if count == 1:
    return _step_of_piece(step, how, *arrays)
  widths = (width, width, width, 1, 1)

  def body(i, arrays):
    parts = zip(arrays, widths, strict=True)
    moved = _step_of_piece(
      step, how, *(jax.lax.dynamic_slice_in_dim(x, i * w, w, axis) for x, w in parts)
    )
    put = jax.lax.dynamic_update_slice_in_dim
    return tuple(put(x, y, i * w, axis) for x, y, w in zip(arrays, moved, widths, strict=True))

  return jax.lax.fori_loop(0, count, body, arrays)


def _step_of_piece(step, how, g, m, v, m_absmax, v_absmax):
  wide = lambda kind, codes, absmax: kind.widen(how.blocks(codes)) * _by_block(absmax, how)
  update, m, v = step(how.blocks(g), wide(MEAN, m, m_absmax), wide(VARIANCE, v, v_absmax))
  m_absmax, v_absmax = (jnp.max(jnp.abs(x), axis=how.first + 1) for x in (m, v))
  narrow = lambda kind, x, absmax: kind.narrow(x / _by_block(jnp.where(absmax, absmax, 1), how))
  parts = update, narrow(MEAN, m, m_absmax), narrow(VARIANCE, v, v_absmax)
  return *(how.joined(x, g.shape) for x in parts), m_absmax, v_absmax


def _by_block(absmax: jax.Array, how: Cut) -> jax.Array:
  return jnp.expand_dims(absmax, how.first + 1)
