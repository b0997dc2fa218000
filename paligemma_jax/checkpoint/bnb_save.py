"""Tensors and settings of a matrix that bitsandbytes reads as quantised; see `bnb`, which reads them."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import bnb, shards
from paligemma_jax.models import codebooks, tree

# What can be written, by the names on the command line.
_ALL = [
  tree.Quant("int8"),
  *(tree.Quant(k, 64, dq) for k in ("nf4", "fp4") for dq in (False, True)),
]
FORMS = {quant.spelled: quant for quant in _ALL}
_STATE_SIZE = 192  # bytes of a quant_state with an offset, which is not known before it is written


def form(text: str) -> tree.Quant:
  """The form of that name.

  Raises:
    UserError: there is none that bitsandbytes reads.
  """
  if text not in FORMS:
    raise errors.UserError(
      f'"{text}" is no form that bitsandbytes reads{errors.did_you_mean(text, FORMS)}'
    )
  return FORMS[text]


def settings(quant: tree.Quant, dtype: str) -> dict[str, Any]:
  """`quantization_config` of config.json, as transformers 5 writes it.

  Modules to skip are left at the default, which is the output matrix: a list of one's own would
  replace it, and no two releases match it in the same way.

  Args:
    quant: of all matrices.
    dtype: of what is not quantised, and of the products.
  """
  is_int8 = quant.kind == "int8"
  return {
    "_load_in_4bit": not is_int8,
    "_load_in_8bit": is_int8,
    "bnb_4bit_compute_dtype": "float32" if is_int8 else dtype,
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4" if is_int8 else quant.kind,
    "bnb_4bit_use_double_quant": quant.double,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": not is_int8,
    "load_in_8bit": is_int8,
    "quant_method": "bitsandbytes",
  }


def tensors(
  name: str, size: tuple[int, int], quant: tree.Quant, dtype: str, parts: Callable[[], bnb.Parts]
) -> list[shards.Tensor]:
  """What stands in a file for one matrix.

  Args:
    name: its name, "….weight".
    size: (out, in).
    quant: its form.
    dtype: of the model it belongs to.
    parts: returns codes and scales in the layout of `models.tree`; called once for each tensor.
  """

  def tensor(name, dtype, shape, value: Callable[[bnb.Parts], np.ndarray]):
    return shards.Tensor(name, dtype, shape, _piece(parts, value))

  count = math.prod(size)
  if quant.kind == "int8":
    module = name.removesuffix("weight")
    return [
      tensor(f"{module}SCB", np.float32, size[:1], lambda p: p["absmax"]),
      tensor(name, np.int8, size, lambda p: p["int8"]),
      tensor(f"{module}weight_format", np.uint8, (), lambda p: np.uint8(0)),
    ]
  blocks = -(-count // quant.block)
  scales = np.uint8 if quant.double else np.float32
  state = {
    "quant_type": quant.kind,
    "blocksize": quant.block,
    "dtype": dtype,
    "shape": list(size),
  }
  book = codebooks.BOOKS[quant.kind]
  written = [
    tensor(f"{name}.absmax", scales, (blocks,), lambda p: p["absmax"]),
    tensor(f"{name}.quant_map", np.float32, (16,), lambda p: book),
    tensor(name, np.uint8, (-(-count // 2), 1), lambda p: p[quant.kind]),
  ]
  length = len(json.dumps(state))
  if quant.double:
    nested = (-(-blocks // tree.NESTED),)
    table = codebooks.dynamic_map(signed=True)
    state |= {"nested_blocksize": tree.NESTED, "nested_dtype": "float32"}
    length = _STATE_SIZE
    written += [
      tensor(f"{name}.nested_absmax", np.float32, nested, lambda p: p["nested"]),
      tensor(f"{name}.nested_quant_map", np.float32, (256,), lambda p: table),
    ]
  key = f"{name}.quant_state.bitsandbytes__{quant.kind}"
  return [*written, tensor(key, np.uint8, (length,), lambda p: _json(state, p, length))]


def _piece(parts: Callable[[], bnb.Parts], value) -> Iterator[np.ndarray]:
  yield np.asarray(value(parts()))


def _json(state: dict, parts: bnb.Parts, length: int) -> np.ndarray:
  """The bytes of the state, filled up with blanks."""
  if "offset" in parts:
    state = {**state, "nested_offset": float(parts["offset"])}
  text = json.dumps(state).encode().ljust(length)
  assert len(text) == length, text
  return np.frombuffer(text, np.uint8)
