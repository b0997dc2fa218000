"""One weight as the tree stores it: as published or in few bits, alone or with a low-rank adapter.

    y = x W + scale (drop(x) A) B          LoRA, arXiv:2106.09685; `peft` has the same in [out, in]
    y = m / |W + scale A B| (…)            DoRA, arXiv:2402.09353: a magnitude for each output

A weight without an adapter is multiplied as its caller does it (`products`). With one, the caller's
product stays and the adapter's is added, so that an adapter whose B is zero changes no bit.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from paligemma_jax.models import quant, quant_products, tree

Parts = dict[str, ArrayLike]


class Weight(NamedTuple):
  """Arrays of one parameter, or of one layer of it; see `models.tree`."""

  value: ArrayLike | Parts
  lora: Parts | None = None

  @property
  def is_published(self) -> bool:
    """Whether it is one array of floats, without an adapter."""
    return self.lora is None and not isinstance(self.value, dict)


class Drop(NamedTuple):
  """Dropout of what goes into adapters."""

  rate: float
  key: jax.Array  # uint32, key data


def of(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> Weight:
  """The parameter `name` of a module, made by `init` when the module is initialised."""
  if module.is_initializing():
    return Weight(module.param(name, init, shape))
  value = module.get_variable("params", name)
  if not isinstance(value, dict) and jnp.shape(value) != shape:
    where = "/".join((*module.path, name))
    raise ValueError(f"parameter {where} has shape {jnp.shape(value)}, the model asks for {shape}")
  return Weight(value, module.get_variable("params", f"{name}.lora"))


def take(flat: dict[str, ArrayLike], name: str, layer: int | None = None) -> Weight:
  """The weight `name` of flat parameters, or one layer of it."""
  at = (lambda x: x) if layer is None else (lambda x: x[layer])
  below = lambda prefix: {
    n.removeprefix(prefix): at(x) for n, x in flat.items() if n.startswith(prefix)
  }
  value = at(flat[name]) if name in flat else below(f"{name}/")
  return Weight(value, below(f"{name}.lora/") or None)


def dropout(module: nn.Module, rate: float) -> Drop | None:
  """What `apply` needs to drop; None for a rate of 0."""
  return Drop(rate, jax.random.key_data(module.make_rng("dropout"))) if rate else None


def apply(
  product: Callable[[Array, Array], tuple[Array, ...]],
  x: Array,
  w: Weight,
  *,
  summed: tuple[int, ...],
  outer: tuple[int, ...],
  dtype: str,
  is_stack: bool = False,
  drop: Drop | None = None,
) -> tuple[Array, ...]:
  """The product of x with a matrix, or with each of the two matrices of a stack.

  Args:
    product: (x, floats) -> the results, of a weight in floats of `dtype`.
    x: [*b, *inner] in `dtype`; as many axes at its end are summed over as `summed` has.
    w: the weight; arrays of a stack have one axis more in front.
    summed: which axes of a matrix in floats are summed over.
    outer: sizes of its other axes.
    dtype: of the products.
    is_stack: whether there are two matrices.
    drop: in training; None: nothing is dropped.

  Returns:
    [*b, *outer] of each matrix.
  """
  inner = x.shape[x.ndim - len(summed) :]

  def base(x):
    if not isinstance(w.value, dict):
      return product(x, jnp.asarray(w.value, dtype))
    flat = x.reshape(*x.shape[: x.ndim - len(summed)], -1)
    ys = _in_few_bits(is_stack, flat, w.value)
    return tuple(y.reshape(*y.shape[:-1], *outer) for y in ys)

  ys = base(x)
  if w.lora is None:
    return ys
  loras = matrices(w.lora, len(ys)) if is_stack else [w.lora]
  drops = [drop] * len(ys)
  if drop is not None:
    keys = jax.random.split(jax.random.wrap_key_data(drop.key), len(ys))
    drops = [Drop(drop.rate, jax.random.key_data(key)) for key in keys]
  if "m" not in w.lora:
    return tuple(y + _low_rank(x, *one, len(outer)) for y, *one in zip(ys, loras, drops))
  values = [w.value]
  if is_stack:
    values = matrices(w.value, len(ys)) if isinstance(w.value, dict) else list(w.value)
  sizes = [
    jax.lax.stop_gradient(_size(_merged(floats(v, summed, outer, inner), lora, summed), summed))
    for v, lora in zip(values, loras, strict=True)
  ]
  return tuple(
    _with_magnitude(lambda x, n=n: base(x)[n], x, y, lora, one, sizes[n], len(outer))
    for n, (y, lora, one) in enumerate(zip(ys, loras, drops))
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_few_bits(is_stack: bool, x: Array, parts: Parts) -> tuple[Array, ...]:
  """x [*b, in] times each matrix [out, in] of `parts`; they have no gradient.

  The backward pass widens them again. What it finds kept are the arrays that came in.
  """
  return quant_products.forward(x, parts, is_stack)


def _in_few_bits_backward(is_stack, parts, dys):
  return quant_products.input_gradient(tuple(dys), parts, is_stack), None


_in_few_bits.defvjp(
  lambda is_stack, x, parts: (_in_few_bits(is_stack, x, parts), parts), _in_few_bits_backward
)


def matrices(parts: Parts, n: int) -> list[Parts]:
  """The arrays of each of the `n` matrices of a stack."""
  return [{key: x[i] for key, x in parts.items()} for i in range(n)]


def _low_rank(x, lora: Parts, drop: Drop | None, outer: int) -> Array:
  """scale ((drop(x) A) B + bias), in the dtype of x."""
  a, b = (jnp.asarray(lora[key], x.dtype) for key in ("a", "b"))
  inner = a.ndim - 1
  y = jnp.tensordot(jnp.tensordot(dropped(x, drop), a, inner), b, 1)
  if "bias" in lora:
    y = y + jnp.asarray(lora["bias"], x.dtype).reshape((1,) * (y.ndim - outer) + b.shape[1:])
  return y * jnp.asarray(lora["scale"], x.dtype)


def _with_magnitude(base, x, y, lora, drop, size, outer) -> Array:
  """y = W x with the magnitudes of `lora`; where it has no scale there is no adapter."""
  is_on = lora["scale"] != 0
  ratio = jnp.where(is_on, lora["m"] / jnp.where(is_on, size, 1), 1).astype(x.dtype)
  ratio = ratio.reshape((1,) * (y.ndim - outer) + ratio.shape)
  low = _low_rank(x, lora, drop, outer)
  if drop is None:
    return ratio * (y + low)
  return y + (ratio - 1) * base(dropped(x, drop)) + ratio * low


def published(w: Weight, leaf: tree.Leaf) -> Float[Array, "..."]:
  """The weight as an array of floats with its adapter merged: float32 of the shape of `leaf`.

  Args:
    w: all of it, or a layer.
    leaf: of what `w` is.
  """
  outer, inner = ([leaf.shape[i] for i in axes] for axes in (leaf.outer, leaf.summed))
  summed = tuple(i - leaf.stack for i in leaf.summed)

  def one(value, lora):
    x = floats(value, summed, outer, inner)
    if lora is None:
      return x
    x = _merged(x, lora, summed)
    if "m" not in lora:
      return x
    scale = jnp.where(lora["scale"] != 0, lora["m"] / _size(x, summed), 1)
    return x * jnp.expand_dims(scale, summed)

  for _ in range(leaf.stack):
    one = jax.vmap(one)
  return one(w.value, w.lora)


def magnitudes(w: Weight, leaf: tree.Leaf) -> Float[Array, "..."]:
  """The magnitudes of an adapter that changes nothing: |W| of each output, of a whole stack."""
  return _size(published(w._replace(lora=None), leaf), leaf.summed)


def floats(value: ArrayLike | Parts, summed, outer, inner) -> Float[Array, "..."]:
  """One matrix as the float32 array of the published layout.

  Args:
    value: the array, or codes and scales.
    summed: which of its axes are summed over.
    outer, inner: sizes of the other axes, and of these.
  """
  if not isinstance(value, dict):
    return jnp.asarray(value, jnp.float32)
  x = quant.widen(value, (math.prod(outer), math.prod(inner))).reshape(*outer, *inner)
  return jnp.moveaxis(x, tuple(range(len(outer), x.ndim)), summed)


def _size(x: Array, summed: tuple[int, ...]) -> Array:
  return jnp.sqrt(jnp.sum(jnp.square(x), axis=summed))


def _merged(value: Array, lora: Parts, summed: tuple[int, ...]) -> Array:
  """W + scale A B of one matrix in floats, without magnitudes."""
  inner = tuple(range(len(summed)))
  change = lora["scale"] * jnp.tensordot(lora["a"], lora["b"], 1)  # [*inner, *outer]
  return value + jnp.moveaxis(change, inner, summed)


def dropped(x: Array, drop: Drop | None) -> Array:
  """x with values zeroed at random and the others scaled up; None: x itself."""
  if drop is None:
    return x
  kept = jax.random.bernoulli(jax.random.wrap_key_data(drop.key), 1 - drop.rate, x.shape)
  return jnp.where(kept, x / (1 - drop.rate), 0).astype(x.dtype)
