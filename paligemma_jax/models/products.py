"""Products with weights whose gradients are formed by hand: less kept, less copied.

Left to itself, differentiation keeps every intermediate of an activation function for the backward
pass, and on a CPU XLA forms the gradient of a weight from a transposed copy of whatever is widest,
with the activation function computed again inside of that copying loop. What is done here instead:

- Kept is what goes into a norm or an activation function, nothing that comes after it.
- The gradient of w in x @ w is x^T dy or (dy^T x)^T: that one of the two is turned which is narrower.
- On a CPU elementwise results are settled in memory before a product reads them.

A gated layer, forward and gradients, float32, two CPU cores (torch 2.13: 104 and 1,759 ms):

                                     einsum, differentiated    here
    3,072 rows, 256 -> 1,024         214 ms, 116 MB            101 ms,  79 MB of temporaries
    3,072 rows, 768 -> 6,144       2,366 ms, 689 MB          1,531 ms, 462 MB

Letters: D width, F hidden width, n rows.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def in_place(x: Float[Array, "B T D"], w: Float[Array, "*n D H"]) -> Float[Array, "*n B T H"]:
  """The product of `x` with each of several matrices [D, H], reading them where they are.

  An einsum makes one wide product of them, for which the compiler (CPU, GPU) first transposes a
  copy of the weights: as large as the weights, and slower than the product when T is small. The
  gradient of this form is larger, so training keeps the einsum.
  """
  stack = w.reshape(-1, *w.shape[-2:])
  many = jnp.broadcast_to(x[None], (len(stack), *x.shape))
  return jnp.einsum("nBTD,nDH->nBTH", many, stack).reshape(*w.shape[:-2], *x.shape[:2], -1)


def of_normed(project: Callable, remat: str) -> Callable:
  """`project`, something elementwise and linear products of its result, which is not kept for the
  backward pass.

  There what is elementwise is computed again, the products are not: nothing asks for their results. A `remat`
  other than "none" decides about them itself.
  """
  return jax.checkpoint(project, prevent_cse=False) if remat == "none" else project


@jax.custom_vjp
def linear(x: Float[Array, "*b D"], w: Float[Array, "D F"]) -> Float[Array, "*b F"]:
  """x @ w."""
  return x @ w


def _linear_backward(kept, dy):
  x, w = kept
  return _input_gradient(dy, w), _weight_gradient(x, dy)


linear.defvjp(lambda x, w: (x @ w, (x, w)), _linear_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activated(
  act: Callable, before: tuple[Float[Array, "*b F"], ...], w: Float[Array, "F D"]
) -> Float[Array, "*b D"]:
  """act(*before) @ w; `act` is elementwise and computed again in the backward pass."""
  return act(*before) @ w


def _activated_backward(act, kept, dy):
  before, w = kept
  h, backward = jax.vjp(act, *before)
  h, dbefore = _settled((h, backward(_input_gradient(dy, w))))
  return dbefore, _weight_gradient(h, dy)


activated.defvjp(
  lambda act, before, w: (act(*before) @ w, (before, w)),
  _activated_backward,
)


@jax.custom_vjp
def both(
  x: Float[Array, "*b D"], gate_up: Float[Array, "2 D F"]
) -> tuple[Float[Array, "*b F"], Float[Array, "*b F"]]:
  """x @ gate, x @ up."""
  return _both_forward(x, gate_up)[0]


def _both_forward(x, gate_up):
  return (x @ gate_up[0], x @ gate_up[1]), (x, gate_up)


def _both_backward(kept, dys):
  x, gate_up = kept
  dx = sum(_input_gradient(dy, w) for dy, w in zip(dys, gate_up, strict=True))
  return dx, jnp.stack([_weight_gradient(x, dy) for dy in dys])


both.defvjp(_both_forward, _both_backward)


def _input_gradient(dy, w):
  return jnp.einsum("...F,DF->...D", dy, w)


def _weight_gradient(x, dy):
  """float[D, F] of x [*b, D] and dy [*b, F]."""
  x, dy = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
  if x.shape[-1] <= dy.shape[-1]:
    return jnp.einsum("nD,nF->DF", x, dy)
  # Unless its result is settled first, the compiler turns the product back.
  return _settled(jnp.einsum("nF,nD->FD", dy, x)).T


def _settled(x):
  """`x`; on a CPU, all of it in memory before anything reads it."""
  return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)
