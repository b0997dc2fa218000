"""Weights that bitsandbytes quantised, in Hugging Face folders: NF4, FP4 and LLM.int8.

Beside a matrix X.weight of 4 bits lie X.weight.absmax, .quant_map, .quant_state.bitsandbytes__nf4 (JSON)
and with double quantisation .nested_absmax and .nested_quant_map; beside one of int8 X.SCB and
X.weight_format. What is quantised the tensors tell: config.json lists patterns that releases of
transformers read in different ways. Source: QuantState and Linear8bitLt of bitsandbytes 0.50.2.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy
from paligemma_jax.models import codebooks, tree

# Ends of the names of what lies beside a matrix X.weight.
_BESIDE = re.compile(
  r"(.*)\.(weight\.(?:(?:nested_)?(?:absmax|quant_map)|quant_state\.\w+)|SCB|weight_format)"
)
_STATE = "weight.quant_state.bitsandbytes__"
_NESTED = ("weight.nested_absmax", "weight.nested_quant_map")
_BLOCKS = tuple(2**i for i in range(5, 13))
_MAP_ERROR = 1e-6  # maps are computed in float32, not everywhere with the same last bit
Parts = dict[str, np.ndarray]  # see `models.tree`


class Matrix(lazy.Array):
  """A quantised matrix in a file; reads as the float32 values that it stands for.

  Attributes:
    size: (out, in).
    quant: its form.
    parts: the stored arrays, lazy, in the layout of `models.tree`.
    shape: (out, in), or with one of the two split into several axes.
  """

  dtype = np.dtype(np.float32)

  def __init__(
    self, size: tuple[int, int], quant: tree.Quant, parts: Mapping, shape: Sequence[int] = ()
  ):
    self.size, self.quant, self.parts = size, quant, dict(parts)
    self.shape = tuple(shape) or size

  @property
  def stored_bytes(self) -> int:
    """Bytes of codes and scales."""
    return sum(x.nbytes for x in self.parts.values())

  def reshape(self, shape: Sequence[int]) -> "Matrix":
    """The same values, with one of the axes split."""
    assert math.prod(shape) == math.prod(self.shape)
    return Matrix(self.size, self.quant, self.parts, shape)

  def stored(self) -> Parts:
    """Codes and scales, read."""
    return {key: np.asarray(x) for key, x in self.parts.items()}

  def read(self, index: lazy.Index) -> np.ndarray:
    """See `lazy.Array.read`. Reads whole rows, or where blocks run across them the whole matrix."""
    from paligemma_jax.models import quant  # imports JAX, which those who read no weights spare

    (out, width), kind = self.size, self.quant.kind
    if kind != "int8" and width % self.quant.block:
      return quant.widen(self.stored(), self.size).reshape(self.shape)[index]
    inner = out // self.shape[0]
    rows = slice(index[0].start * inner, index[0].stop * inner)
    scales = self.parts["absmax"]
    if self.quant.double:
      scales = quant.scales({k: np.asarray(x) for k, x in self.parts.items() if k != kind})
    parts = {kind: self.parts[kind][rows], "absmax": np.asarray(scales[rows])}
    wide = quant.widen(parts, (rows.stop - rows.start, width))
    return wide.reshape(-1, *self.shape[1:])[(slice(None), *index[1:])]


class Weight:
  """The codes of a whole parameter of ours.

  Attributes:
    quant: the one form of all its matrices.
    matrices: index in the stack, () where there is none -> matrix.
  """

  def __init__(self, quant: tree.Quant, matrices: Mapping[tuple[int, ...], Matrix]):
    self.quant, self.matrices = quant, dict(matrices)

  @property
  def nbytes(self) -> int:
    """Bytes of codes and scales."""
    return sum(x.stored_bytes for x in self.matrices.values())

  def read(self, index: tuple[int, ...]) -> Parts:
    """Codes and scales of one matrix, in the layout of `models.tree`."""
    return self.matrices[index].stored()


def weight(matrices: Mapping[tuple[int, ...], lazy.Array]) -> Weight | None:
  """The parameter that these are the parts of; None if they are not all of one quantised form."""
  forms = {x.quant if isinstance(x, Matrix) else None for x in matrices.values()}
  form = forms.pop()
  return None if forms or form is None else Weight(form, matrices)


def joined(tensors: Mapping[str, lazy.Array], where: str) -> dict[str, lazy.Array]:
  """The tensors of a folder with a `Matrix` for each one that is quantised and what lies beside it.

  Args:
    tensors: by the names in the file.
    where: the folder, for messages.

  Raises:
    UserError: a tensor beside a matrix is missing or mis-shaped, a code book or layout is unknown.
  """
  found, beside = {}, {}
  for name, x in tensors.items():
    if match := _BESIDE.fullmatch(name):
      beside.setdefault(match[1], {})[match[2]] = x
    else:
      found[name] = x
  for module, parts in beside.items():
    name = f"{module}.weight"
    if name not in found:
      raise errors.UserError(
        f"{where}: there is {module}.{next(iter(parts))} but no {name}, which it belongs to"
      )
    read = _read_int8 if {"SCB", "weight_format"} & set(parts) else _read_4bit
    try:
      found[name] = read(found[name], parts)
    except _Wrong as e:
      raise errors.UserError(
        f"{where}: {name} is quantised by bitsandbytes, but {e}; copy the folder again or quantise "
        "its model anew"
      ) from None
  return found


class _Wrong(Exception):
  """What is wrong with a quantised matrix."""


def _check_names(parts: Mapping, wanted: set[str], optional: set[str] = frozenset()):
  missing, unexpected = wanted - set(parts), set(parts) - wanted - optional
  if missing:
    raise _Wrong(f"its {sorted(missing)[0]} is missing")
  if unexpected:
    raise _Wrong(f"its {sorted(unexpected)[0]} is unexpected")


def _read_int8(codes: lazy.Array, parts: Mapping[str, lazy.Array]) -> Matrix:
  _check_names(parts, {"SCB"}, {"weight_format"})
  if "weight_format" in parts:
    layout = _bytes(parts["weight_format"])
    if layout != b"\0":
      raise _Wrong(
        f"its weight_format is {list(layout)[:8]}, a layout of old GPUs; only 0, row by row, is read"
      )
  if len(codes.shape) != 2 or getattr(codes, "code", "") != "I8":
    raise _Wrong(f"it is {list(codes.shape)} of {_dtype(codes)}, not a matrix of I8")
  out, width = codes.shape
  codes = codes.raw.view(np.int8).reshape((out, width))
  return Matrix(
    (out, width), tree.Quant("int8"), {"int8": codes, "absmax": _scales(parts, "SCB", out)}
  )


def _read_4bit(codes: lazy.Array, parts: Mapping[str, lazy.Array]) -> Matrix:
  keys = [key for key in parts if "quant_state" in key]
  if len(keys) != 1:
    raise _Wrong(f"it has {len(keys)} tensors {_STATE}… instead of one")
  double = not set(_NESTED).isdisjoint(parts)
  _check_names(parts, {keys[0], "weight.absmax", "weight.quant_map", *(_NESTED if double else ())})
  state = _State(_bytes(parts[keys[0]]))
  kind = keys[0].removeprefix(_STATE)
  if kind not in ("nf4", "fp4") or kind != state.get("quant_type", str):
    raise _Wrong(f"its type is {kind!r}; nf4 and fp4 are read")
  block, shape = state.get("blocksize", int), state.get("shape", list)
  if block not in _BLOCKS or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
    raise _Wrong(f"its blocksize is {block!r} and its shape {shape!r}")
  form = tree.Quant(kind, block, double)
  wanted = tree.quantised(tree.Leaf(tuple(shape), (None, None), 0, (1,)), form)
  wanted = {key: leaf.shape for key, leaf in wanted.items()}
  if codes.raw.nbytes != math.prod(wanted[kind]):
    raise _Wrong(f"it has {codes.raw.nbytes} bytes, not those of {shape} in 4 bits")
  _check_map(parts, "weight.quant_map", codebooks.BOOKS[kind])
  stored = {kind: codes.raw}
  count = math.prod(wanted["absmax"])
  if double:
    _check_map(parts, "weight.nested_quant_map", codebooks.dynamic_map(signed=True))
    if (size := state.get("nested_blocksize", int)) != tree.NESTED:
      raise _Wrong(f"its nested_blocksize is {size}; {tree.NESTED} is read")
    stored["absmax"] = parts["weight.absmax"].raw
    if stored["absmax"].nbytes != count or _dtype(parts["weight.absmax"]) != "U8":
      raise _Wrong(f"its weight.absmax is not {count} bytes")
    stored["nested"] = _scales(parts, "weight.nested_absmax", wanted["nested"][0])
    stored["offset"] = np.float32(state.get("nested_offset", (int, float)))
  else:
    stored["absmax"] = _scales(parts, "weight.absmax", count)
  return Matrix(tuple(shape), form, {k: x.reshape(wanted[k]) for k, x in stored.items()})


class _State:
  """The JSON of a quant_state."""

  def __init__(self, text: bytes):
    try:
      self._values = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as e:
      raise _Wrong(f"its quant_state is no JSON ({e!r})"[:200]) from e

  def get(self, key: str, kind):
    value = self._values.get(key)
    if not isinstance(value, kind):
      raise _Wrong(f"its quant_state says {key}: {value!r}"[:200])
    return value


def _bytes(x: lazy.Array) -> bytes:
  if x.raw.nbytes > 2**16:
    raise _Wrong(f"what lies beside it has {x.raw.nbytes} bytes")
  return x.raw[:].tobytes()


def _dtype(x: lazy.Array) -> str:
  return x.code if isinstance(x, lazy.Opaque) else x.dtype.name


def _scales(parts: Mapping[str, lazy.Array], key: str, count: int) -> lazy.Stored:
  x = parts[key]
  if math.prod(x.shape) != count or x.dtype != np.float32:
    raise _Wrong(f"its {key} is {list(x.shape)} of {_dtype(x)}, not {count} of float32")
  return x.reshape((count,))


def _check_map(parts: Mapping[str, lazy.Array], key: str, wanted: np.ndarray):
  x = parts[key]
  if x.dtype != np.float32 or x.shape != wanted.shape:
    raise _Wrong(f"its {key} is {list(x.shape)} of {_dtype(x)}, not {len(wanted)} of float32")
  if not np.allclose(x[:], wanted, rtol=0, atol=_MAP_ERROR):
    raise _Wrong(f"its {key} has other values than bitsandbytes uses")
