"""The scan over layers whose last one may do less, against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.models import scan

LAYERS, ROWS, D, F = 5, 24, 8, 16
X = jnp.linspace(-1, 1, ROWS * D).reshape(ROWS, D)
STACK = {
  "down": jnp.linspace(-0.3, 0.2, LAYERS * F * D).reshape(LAYERS, F, D),
  "up": jnp.linspace(0.2, -0.4, LAYERS * D * F).reshape(LAYERS, D, F),
}


def layer(params, x, i, scale):
  return x + jnp.tanh(scale * x @ params["up"]) @ params["down"] + i


def last(params, x, i, scale):
  """Of the first two rows alone."""
  return layer(params, x[:2], i, scale)


def walk(stack, x, remat="none"):
  return scan.walk(layer, last, stack, x, jnp.float32(0.5), remat)


def loop(stack, x):
  for i in range(LAYERS):
    x = layer(jax.tree.map(lambda w, i=i: w[i], stack), x, i, 0.5)
  return x[:2]


def squares(function, *args):
  return jnp.sum(jnp.square(function(*args)))


@pytest.mark.parametrize("remat", ["none", "nothing_saveable", "dots_saveable"])
def test_results_and_gradients_are_those_of_a_loop(remat):
  np.testing.assert_allclose(walk(STACK, X, remat), loop(STACK, X), rtol=1e-5)
  got = jax.grad(lambda *args: squares(walk, *args, remat), (0, 1))(STACK, X)
  want = jax.grad(lambda *args: squares(loop, *args), (0, 1))(STACK, X)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("trained", ["up", "down", "x"])
def test_what_is_frozen_needs_no_gradient_and_changes_none(trained):
  def value(function, part):
    return squares(function, {**STACK, trained: part}, part if trained == "x" else X)

  part = X if trained == "x" else STACK[trained]
  got, want = (jax.jit(jax.grad(lambda p, f=f: value(f, p)))(part) for f in (walk, loop))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def flops(remat, names):
  """Products with weights that the compiled gradient of the weights `names` has."""

  def value(some, rest):
    return squares(walk, {**rest, **some}, X, remat)

  some, rest = (
    {k: w for k, w in STACK.items() if (k in names) == which} for which in (True, False)
  )
  return jax.jit(jax.grad(value)).lower(some, rest).compile().cost_analysis()["flops"]


def test_frozen_weights_cost_no_product():
  product = 2 * (ROWS + 2) * D * F  # of the body of the loop and the last layer, counted once each
  assert flops("none", {"up", "down"}) - flops("none", {"up"}) > 0.9 * product


def test_neither_weights_nor_gradients_are_copied():
  wide = {k: jax.ShapeDtypeStruct((LAYERS, 256, 256), jnp.float32) for k in STACK}
  x = jax.ShapeDtypeStruct((2, 256), jnp.float32)
  step = jax.jit(jax.grad(lambda stack, x: squares(walk, stack, x)))
  one_of_the_two_stacks = 4 * LAYERS * 256 * 256
  assert (
    step.lower(wide, x).compile().memory_analysis().temp_size_in_bytes < 0.8 * one_of_the_two_stacks
  )
