"""Codes and widened weights against those of bitsandbytes, bit for bit, and against plain arithmetic."""

import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from paligemma_jax.models import codebooks, quant, tree
from tests import golden_adapters

FORMS = [
  tree.Quant("int8"),
  tree.Quant("nf4"),
  tree.Quant("nf4", 64, True),
  tree.Quant("fp4"),
  tree.Quant("int4"),
  tree.Quant("int4", 32),
]
# Blocks within rows, across rows, an incomplete one, an odd number of values, more than 256 blocks.
SHAPES = [(6, 128), (64, 72), (5, 90), (7, 45), (130, 192)]


def gaussian(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=1)
def jitted_quantise(matrix, form):
  return quant.quantise(matrix, form)


@functools.partial(jax.jit, static_argnums=1)
def jitted_widen(parts, shape):
  return quant.widen(parts, shape)


def assert_same(found, wanted):
  assert sorted(found) == sorted(wanted)
  for key, x in wanted.items():
    np.testing.assert_array_equal(np.asarray(found[key]), x, err_msg=key)
    assert found[key].dtype == x.dtype and found[key].shape == x.shape, key


def both(matrix, form):
  """What NumPy makes of a matrix, after a check that compiled code makes the same."""
  parts = quant.quantise(matrix, form)
  assert_same(jitted_quantise(matrix, form), parts)
  wide = quant.widen(parts, matrix.shape)
  np.testing.assert_array_equal(jitted_widen(parts, matrix.shape), wide)
  return parts, wide


@functools.cache
def golden(name):
  """(module -> float matrix, module -> (tensors, form), module -> widened) of a quantised folder."""
  entry = golden_adapters.QUANT[name]
  plain = golden_adapters.tensors(golden_adapters.base(entry))
  stored = golden_adapters.quantised(golden_adapters.tensors(golden_adapters.DIR / "quant" / name))
  dtype = np.dtype(entry["dtype"])
  plain = {module: plain[f"{module}.weight"].astype(dtype) for module in stored}
  wide = golden_adapters.below(golden_adapters.arrays(f"quant/{name}"), "weights/")
  return plain, stored, wide


def expected(stored, form, parts):
  """The tensors of bitsandbytes in the shapes of `parts`, which are ours."""
  if form.kind == "int8":
    return {"int8": stored["weight"], "absmax": stored["SCB"]}
  wanted = {form.kind: stored["weight"], "absmax": stored["absmax"]}
  if form.double:
    wanted["nested"] = stored["nested_absmax"]
    wanted["offset"] = np.float32(stored["state"]["nested_offset"])
  return {key: np.asarray(x).reshape(parts[key].shape) for key, x in wanted.items()}


@pytest.mark.parametrize("name", golden_adapters.QUANT)
def test_codes_and_scales_are_those_of_bitsandbytes(name):
  matrices, stored, _ = golden(name)
  assert len(stored) == golden_adapters.QUANT[name]["modules"]
  for module, (tensors, form) in stored.items():
    form = tree.Quant(*form)
    parts, _ = both(matrices[module].astype(np.float32), form)
    wanted = expected(tensors, form, parts)
    if form.kind == "int8":
      off = parts["int8"].astype(int) - wanted.pop("int8")
      assert np.abs(off).max() <= 1 and (off != 0).mean() <= golden_adapters.TOLERANCE["int8/codes"]
      del parts["int8"]
    assert_same(parts, wanted)


@pytest.mark.parametrize("name", golden_adapters.QUANT)
def test_widened_weights_are_those_of_bitsandbytes(name):
  matrices, stored, wide = golden(name)
  for module, (tensors, form) in stored.items():
    shape = matrices[module].shape
    form = tree.Quant(*form)
    parts = expected(tensors, form, quant.quantise(np.zeros(shape, np.float32), form))
    np.testing.assert_array_equal(quant.widen(parts, shape), wide[module], err_msg=module)
    np.testing.assert_array_equal(jitted_widen(parts, shape), wide[module], err_msg=module)


@pytest.mark.parametrize("signed, key", [(True, "qmap1"), (False, "qmap2")])
def test_dynamic_maps_are_those_of_bitsandbytes(signed, key):
  wanted = golden_adapters.arrays("quant/adam8bit")[key]
  np.testing.assert_array_equal(codebooks.dynamic_map(signed), wanted)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_code_and_numpy_give_the_same_bits(form, shape):
  matrix = gaussian(*shape) * np.float32(0.02)
  parts, wide = both(matrix, form)
  assert wide.dtype == np.float32 and wide.shape == shape
  leaf = tree.Leaf(shape, (None, None), 0, (1,))
  wanted = tree.quantised(leaf, form)
  assert {k: (x.shape, x.dtype) for k, x in wanted.items()} == {
    k: (x.shape, x.dtype.name) for k, x in parts.items()
  }


@pytest.mark.parametrize(
  "form, error",  # measured with bitsandbytes
  [(tree.Quant("int8"), 0.008)]
  + [(tree.Quant("nf4", 64, double), 0.092) for double in (False, True)]
  + [(tree.Quant("fp4"), 0.122)],
  ids=str,
)
def test_error_on_gaussian_weights(form, error):
  matrix = gaussian(64, 2048)
  off = quant.widen(quant.quantise(matrix, form), matrix.shape) - matrix
  assert np.linalg.norm(off) / np.linalg.norm(matrix) == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("block", [32, 64])
def test_error_of_int4_is_that_of_equal_steps(block):
  matrix = gaussian(64, 2048)
  parts = quant.quantise(matrix, tree.Quant("int4", block))
  step = np.sqrt(np.square(parts["absmax"].astype(float)).mean()) / 7
  off = quant.widen(parts, matrix.shape) - matrix
  assert np.sqrt(np.square(off).mean()) == pytest.approx(step / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zeros_stay_zeros(form, shape):
  matrix = gaussian(*shape)
  matrix[: shape[0] // 2 + 1] = 0
  wide = both(matrix, form)[1]
  if form.kind == "int8" or shape[1] % form.block == 0 and not form.double:
    assert not wide[matrix.any(1) == 0].any()
  np.testing.assert_array_equal(both(np.zeros(shape, np.float32), form)[1], 0)


def test_codes_of_a_block_of_zeros_are_those_of_bitsandbytes():
  zeros = np.zeros((2, 64), np.float32)
  for kind, byte in (("nf4", 0x77), ("fp4", 0), ("int4", 0x88)):
    assert (quant.quantise(zeros, tree.Quant(kind))[kind] == byte).all()


def test_first_of_two_codes_is_in_the_high_half():
  row = np.array([[1, -1] + [0] * 62], np.float32)
  assert quant.quantise(row, tree.Quant("nf4"))["nf4"][0, 0] == 0xF0


def test_of_two_values_as_near_the_lower_one_is_taken():
  book = codebooks.BOOKS["nf4"]
  middles = (book[1:] + book[:-1]) / np.float32(2)
  row = np.concatenate([[1], middles, np.zeros(48)])[None].astype(np.float32)
  codes = quant.quantise(row, tree.Quant("nf4"))["nf4"][0]
  halves = np.stack([codes >> 4, codes & 15], 1).reshape(-1)
  np.testing.assert_array_equal(halves[1:16], np.arange(15))


def test_int4_takes_the_nearest_of_fifteen_values_of_its_rounded_scale():
  matrix = gaussian(8, 96)
  parts = quant.quantise(matrix, tree.Quant("int4", 32))
  blocks = matrix.reshape(8, 3, 32)
  scale = np.abs(blocks).max(-1).astype(ml_dtypes.bfloat16)
  np.testing.assert_array_equal(parts["absmax"], scale)
  values = np.arange(-7, 8) / 7 * scale.astype(float)[..., None]
  nearest = np.abs(blocks[..., None] - values[:, :, None]).argmin(-1) + 1
  codes = np.stack([parts["int4"] >> 4, parts["int4"] & 15], -1).reshape(8, 3, 32)
  np.testing.assert_array_equal(codes, nearest)


@pytest.mark.parametrize("kind", codebooks.BOOKS)
def test_choices_on_bits_give_the_values_of_the_table(kind):
  book = codebooks.BOOKS[kind]
  codes = np.arange(256, dtype=np.uint8)
  wanted = np.stack([book[codes >> 4], book[codes & 15]], 1)
  np.testing.assert_array_equal(quant._selected(jax.numpy.asarray(codes), book), wanted)


def test_weights_of_half_precision_are_taken_as_float32():
  matrix = gaussian(4, 128).astype(ml_dtypes.bfloat16)
  for form in FORMS:
    assert_same(quant.quantise(matrix, form), quant.quantise(matrix.astype(np.float32), form))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_stack_is_widened_by_vmap(form):
  stack = gaussian(3, 8, 128)
  parts = jax.vmap(lambda x: quant.quantise(x, form))(stack)
  wide = jax.vmap(lambda p: quant.widen(p, (8, 128)))(parts)
  for i, matrix in enumerate(stack):
    np.testing.assert_array_equal(wide[i], both(matrix, form)[1])
