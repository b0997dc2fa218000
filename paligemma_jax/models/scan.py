"""Layers one after the other, their parameters stacked on axis 0."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def blocks(block: type[nn.Module], remat: str, depth: int, in_axes: tuple):
  """`block` repeated `depth` times as one scan over parameters stacked on axis 0.

  Args:
    block: a module class whose call returns (carry, output of the layer).
    remat: "none", or the name of a policy in `jax.checkpoint_policies` that says what is kept for
      the backward pass.
    depth: number of layers.
    in_axes: per further argument of the call, the axis to scan over or `nn.broadcast`. The last one
      is a Python value, as `train`.
  """
  if remat != "none":
    policy = getattr(jax.checkpoint_policies, remat)
    last = len(in_axes) + 1  # behind the module and the carry
    block = nn.remat(block, prevent_cse=False, policy=policy, static_argnums=last)
  return nn.scan(
    block,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=depth,
  )


def walk(
  step: Callable, end: Callable, stack: Any, x: jax.Array, args: Any, remat: str = "none"
) -> Any:
  """What `end` makes of the last layer, after one scan with `step` over those before it.

  So the last layer may do less than the others. Scanning over `stack[:-1]` would copy all weights,
  and all of their gradients, to split and to join them; a condition in the scan would keep a copy
  of the weights for the backward pass. Here the loops read the weights where they are and write the
  gradients where they belong. What a layer keeps for its backward pass is what `jax.vjp` keeps of
  it, but for what the backward loop has anyway.

  Args:
    step: (parameters of a layer, x, its number int32[], args) -> x.
    end: the same of the last layer, with whatever result.
    stack: parameters, arrays [L, …].
    x: what goes into the first layer.
    args: arrays that every layer gets; they have no gradient.
    remat: "none", or the name of a policy in `jax.checkpoint_policies`.
  """
  if remat != "none":
    policy = getattr(jax.checkpoint_policies, remat)
    step, end = (jax.checkpoint(f, prevent_cse=False, policy=policy) for f in (step, end))
  weights, tree = jax.tree.flatten(stack)
  last = len(weights[0]) - 1

  def differentiated(f, trained, layer, x, i, args):
    """Result of a layer, and its function from a gradient to ({number: of a weight}, of x)."""

    def of_trained(some, x):
      return f(jax.tree.unflatten(tree, [some.get(n, w) for n, w in enumerate(layer)]), x, i, args)

    return jax.vjp(of_trained, {n: layer[n] for n in trained}, x)

  @jax.custom_vjp
  def run(weights, x, args):
    def one(x, i):
      return step(jax.tree.unflatten(tree, _layer(weights, i)), x, i, args), None

    x, _ = jax.lax.scan(one, x, jnp.arange(last))
    return end(jax.tree.unflatten(tree, _layer(weights, last)), x, jnp.array(last), args)

  def forward(weights, x, args):
    trained = [n for n, w in enumerate(weights) if w.perturbed]
    weights, x, args = jax.tree.map(lambda a: a.value, (weights, x, args), is_leaf=_is_primal)

    def one(x, i):
      layer = _layer(weights, i)
      x, backward = differentiated(step, trained, layer, x, i, args)
      return x, _without(backward, (layer, i, args))

    x, kept = jax.lax.scan(one, x, jnp.arange(last))
    layer, i = _layer(weights, last), jnp.array(last)
    out, backward = differentiated(end, trained, layer, x, i, args)
    return out, (weights, args, kept, _without(backward, (layer, i, args)))

  def backward(saved, dout):
    weights, args, kept, kept_last = saved
    dout = jax.tree.map(_as_array, dout, is_leaf=_is_zero)
    dlayer, dx = kept_last((_layer(weights, last), jnp.array(last), args), dout)
    # With those of the last layer in them, the loop goes on to fill what it finds.
    grads = {n: _with(jnp.zeros_like(weights[n]), d, last) for n, d in dlayer.items()}

    def one(carry, xs):
      dx, grads = carry
      i, kept = xs
      dlayer, dx = kept((_layer(weights, i), i, args), dx)
      return (dx, {n: _with(grads[n], d, i) for n, d in dlayer.items()}), None

    (dx, grads), _ = jax.lax.scan(one, (dx, grads), (jnp.arange(last), kept), reverse=True)
    return [grads.get(n) for n in range(len(weights))], dx, None

  run.defvjp(forward, backward, symbolic_zeros=True)
  return run(weights, x, args)


def _layer(weights, i):
  return [jax.lax.dynamic_index_in_dim(w, i, keepdims=False) for w in weights]


def _with(stack, layer, i):
  return jax.lax.dynamic_update_index_in_dim(stack, layer, i, 0)


def _without(backward, known):
  """`backward` as a function of (known, gradient) that does not keep those arrays itself."""
  kept, tree = jax.tree.flatten(backward)
  known = jax.tree.leaves(known)
  places = [next((n for n, k in enumerate(known) if k is x), None) for x in kept]
  rest = [x for x, place in zip(kept, places, strict=True) if place is None]
  return jax.tree_util.Partial(functools.partial(_completed, tree, tuple(places)), rest)


def _completed(tree, places, rest, known, gradient):
  rest, known = iter(rest), jax.tree.leaves(known)
  kept = [next(rest) if place is None else known[place] for place in places]
  return jax.tree.unflatten(tree, kept)(gradient)


def _is_primal(x):
  return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


def _is_zero(x):
  return isinstance(x, jax.custom_derivatives.SymbolicZero)


def _as_array(gradient):
  return jnp.zeros(gradient.shape, gradient.dtype) if _is_zero(gradient) else gradient
