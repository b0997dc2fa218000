"""Products with gradients formed by hand against the same products differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.models import products


def floats(*shapes):
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def act(gate, up):
  return jax.nn.gelu(gate, approximate=True) * up


def plain_gated(x, gate_up, down):
  gate, up = jnp.einsum("btd,gdf->gbtf", x, gate_up)
  return act(gate, up) @ down


def gated(x, gate_up, down):
  return products.activated(act, products.both(x, gate_up), down)


def assert_same_value_and_gradients(form, plain, args):
  """With respect to all arguments and to any one alone."""
  every = tuple(range(len(args)))
  for which in (every, *((i,) for i in every)):
    value = [
      jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), which))(*args)
      for f in (form, plain)
    ]
    for got, want in zip(*map(jax.tree.leaves, value)):
      np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width, hidden", [(3, 7), (7, 3)])  # which of the two is turned
def test_linear(width, hidden):
  assert_same_value_and_gradients(
    products.linear, jnp.matmul, floats((2, 5, width), (width, hidden))
  )


@pytest.mark.parametrize("width, hidden", [(3, 7), (7, 3)])
def test_gated(width, hidden):
  args = floats((2, 5, width), (2, width, hidden), (hidden, width))
  assert_same_value_and_gradients(gated, plain_gated, args)


def test_activated():
  args = floats((2, 5, 7), (7, 3))
  form = lambda before, w: products.activated(jnp.tanh, (before,), w)
  assert_same_value_and_gradients(form, lambda before, w: jnp.tanh(before) @ w, args)


def test_what_comes_after_the_activation_function_is_not_kept():
  args = floats((2, 64, 32), (2, 32, 256), (256, 32))

  def kept(f):
    _, backward = jax.vjp(f, *args)
    return sum(x.size for x in jax.tree.leaves(backward))

  hidden = 2 * 64 * 256
  assert kept(gated) == sum(x.size for x in args) + 2 * hidden
  assert kept(plain_gated) > kept(gated) + 2 * hidden
