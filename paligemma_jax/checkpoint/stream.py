"""What every writer does with every slice: check it, cast it, report it."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import bnb, lazy, source
from paligemma_jax.models import tree


@dataclasses.dataclass(frozen=True)
class Plan:
  """How the tensors of one save are written.

  Attributes:
    where: what is saved, for messages.
    dtypes: our name -> dtype on disk.
    before_commit: called when all is written and before it is put in place; may raise.
    report: called with the bytes of every slice written.
    quant: the form of all matrices; None: as floats.
    quantised: our name -> codes to write instead of quantising, where they are of that form.
  """

  where: str
  dtypes: dict[str, np.dtype]
  before_commit: Callable[[], None] = lambda: None
  report: Callable[[int], None] = lambda nbytes: None
  quant: tree.Quant | None = None
  quantised: Mapping[str, bnb.Weight] = dataclasses.field(default_factory=dict)


def check_shape(plan: Plan, name: str, layer: int | None, x, shape: tuple[int, ...]):
  """Raises a UserError when `x`, our tensor or one layer of it, is not of the whole `shape`."""
  wanted = shape if layer is None else shape[1:]
  if tuple(x.shape) != tuple(wanted):
    raise errors.UserError(
      f"{plan.where}: {name} has shape {list(x.shape)}{_of(layer)}, the config asks for "
      f"{list(wanted)}"
    )


def cast(plan: Plan, name: str, layer: int | None, x: np.ndarray) -> np.ndarray:
  """Returns `x` in the dtype of the plan.

  Raises:
    UserError: values are infinite or NaN, or do not fit into float16.
  """
  if not lazy.is_finite(x):
    raise source.non_finite(plan.where, name, layer)
  dtype = plan.dtypes[name]
  plan.report(x.size * dtype.itemsize)
  if x.dtype == dtype:
    return x
  with np.errstate(over="ignore"):
    y = x.astype(dtype)
  if dtype == np.float16 and not lazy.is_finite(y):
    raise errors.UserError(
      f"{plan.where}: {name}{_of(layer)} holds {np.abs(x.astype(np.float32)).max():.6g}, beyond "
      "float16 (65504); choose bfloat16 or float32"
    )
  return y


def _of(layer: int | None) -> str:
  return "" if layer is None else f", layer {layer}"


def as_bytes(x: np.ndarray) -> memoryview:
  """The C-ordered bytes of `x`; copies only when it is not contiguous."""
  return memoryview(np.ascontiguousarray(x).reshape(-1).view(np.uint8))
