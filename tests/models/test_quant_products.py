"""Products with weights of few bits: those with the widened matrix, which is never kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.models import quant, quant_products, tree
from tests import hlo

FORMS = [
  tree.Quant("int8"),
  tree.Quant("int4", 32),
  tree.Quant("nf4"),
  tree.Quant("nf4", double=True),
  tree.Quant("fp4"),
]
SIZES = [(96, 128), (40, 72), (33, 65)]  # blocks within rows, across rows, an odd width


@functools.cache
def matrix(out, into, form):
  """(parts, the float64 values that they stand for)."""
  w = np.random.default_rng(0).normal(size=(out, into)).astype(np.float32)
  parts = quant.quantise(w, form)
  return parts, quant.widen(parts, (out, into)).astype(np.float64)


def rows(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.spelled)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("lead", [(1,), (2,), (3, 5), (70,)], ids=str)
def test_the_product_is_that_with_the_widened_matrix(form, size, lead):
  parts, w = matrix(*size, form)
  x = rows(*lead, size[1])
  (got,) = quant_products.forward(x, parts)
  np.testing.assert_allclose(got, x @ w.T, atol=2e-6 * np.sqrt(size[1]) * np.abs(w).max(), rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.spelled)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradient_of_rows_sees_four_bits_in_bfloat16(form, size):
  parts, w = matrix(*size, form)
  if form.kind != "int8":
    w = np.asarray(jnp.asarray(w, jnp.bfloat16), np.float64)
  dy = rows(3, size[0])
  got = quant_products.input_gradient((dy,), parts)
  np.testing.assert_allclose(got, dy @ w, atol=2e-6 * np.sqrt(size[0]) * np.abs(w).max(), rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.spelled)
def test_a_loop_over_steps_keeps_no_widened_matrix(form):
  out, into = 2048, 512  # more values than are widened at a time
  up, down = matrix(out, into, form)[0], matrix(into, out, form)[0]

  def loop(x, up, down):
    product = lambda x, parts: quant_products.forward(x, parts)[0]
    one = lambda x, _: (product(jnp.tanh(product(x, up)), down), None)
    return jax.lax.scan(one, x, None, length=4)[0]

  text = jax.jit(loop).lower(rows(1, into), up, down).compile().as_text()
  assert not hlo.float_shapes(text, out * into)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.spelled)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("n", [1, 70])
def test_a_stack_is_as_its_matrices(form, size, n):
  rng = np.random.default_rng(0)
  each = [quant.quantise(rng.normal(size=size).astype(np.float32), form) for _ in range(2)]
  stack = {key: np.stack([one[key] for one in each]) for key in each[0]}
  x, dys = rows(n, size[1]), (rows(n, size[0]), rows(n, size[0]) ** 2)
  for got, one in zip(quant_products.forward(x, stack, True), each, strict=True):
    np.testing.assert_allclose(got, quant_products.forward(x, one)[0], atol=2e-5)
  want = sum(quant_products.input_gradient((dy,), one) for dy, one in zip(dys, each))
  np.testing.assert_allclose(quant_products.input_gradient(dys, stack, True), want, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the form for CPUs")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.spelled)
def test_no_matrix_of_a_stack_is_copied(form):
  out, into = 8192, 512
  one = matrix(out, into, form)[0]
  stack = {key: np.stack([x, x]) for key, x in one.items()}
  program = quant_products.forward.lower(rows(1, into), stack, True).compile()
  kept = program.memory_analysis().temp_size_in_bytes
  assert kept < 5 * quant_products._SMALL + 0.2 * out * into  # a block of floats, and scales
