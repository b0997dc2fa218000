"""One weight as the tree stores it: as published or in few bits, alone or with a low-rank adapter.

    y = x W + scale (drop(x) A) B          LoRA, arXiv:2106.09685; `peft` has the same in [out, in]
    y = m / |W + scale A B| (…)            DoRA, arXiv:2402.09353: a magnitude for each output

A weight without an adapter is multiplied as its caller does it (`products`). With one, the caller's
product stays and the adapter's is added, so that an adapter whose B is zero changes no bit.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

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
  """The product of x with a matrix, or with each matrix of a stack.

  Args:
    product: (x, floats) -> the results, of a weight in floats of `dtype`.
    x: [*b, *inner] in `dtype`; as many axes at its end are summed over as `summed` has.
    w: the weight; arrays of a stack have one axis more in front.
    summed: which axes of a matrix in floats are summed over.
    outer: sizes of its other axes.
    dtype: of the products.
    is_stack: whether there are several matrices.
    drop: in training; None: nothing is dropped.

  Returns:
    [*b, *outer] of each matrix.
  """

  def base(x):
    return product(x, jnp.asarray(w.value, dtype))

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
  sizes = _sizes(w, summed, is_stack)
  return tuple(
    _with_magnitude(lambda x, n=n: base(x)[n], x, y, lora, one, sizes[n], len(outer))
    for n, (y, lora, one) in enumerate(zip(ys, loras, drops))
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


def _sizes(w: Weight, summed, is_stack: bool) -> list[Array]:
  """|W + scale A B| of every output, float32, of each matrix; a constant to the gradient."""
  loras = matrices(w.lora, len(w.lora["scale"])) if is_stack else [w.lora]
  values = w.value if is_stack else [w.value]
  size = lambda merged: jnp.sqrt(jnp.sum(jnp.square(merged), axis=summed))
  sums = [
    merged(jnp.asarray(v, jnp.float32), x, summed) for v, x in zip(values, loras, strict=True)
  ]
  return [jax.lax.stop_gradient(size(x)) for x in sums]


def merged(value: Array, lora: Parts, summed: tuple[int, ...]) -> Array:
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
