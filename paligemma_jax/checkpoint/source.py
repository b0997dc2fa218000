"""An opened checkpoint: what is in it is known, the numbers are still in the files."""

import collections
import copy
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import bnb, lazy
from paligemma_jax.models import variants

# Files that belong to the processor; they travel with the weights in every format.
ASSETS = (
  "tokenizer.model",
  "paligemma_tokenizer.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "preprocessor_config.json",
  "processor_config.json",
  "mask_codec.npz",
)
SHOWN = 5  # names listed of each kind of mistake


class Source:
  """A checkpoint that can be read slice by slice, whatever its format.

  Attributes:
    path: as it was opened, with the sub-tree if one was named.
    format: "npz", "hf" or "orbax".
    config: sizes and settings; None for an image tower or a decoder alone.
    arrays: flat name -> lazy array, layers stacked.
    assets: tokenizer and preprocessing files found in or beside it, name -> bytes.
    meta: what was stored with the weights besides (step, …); {} if nothing.
    quantised: flat name -> its codes, of weights that are stored in few bits; `arrays` has the float32
      values of the same.
    adapter: an adapter of the model that is not merged into `arrays`, as `peft.open` gives it; or None.
    base_path: of the checkpoint that `arrays` are read from; another than `path` in a step that holds an
      adapter alone.
    quant: the form in which a run kept the weights, see `tree.parse_quant`; "" as stored.
    digest: `adapted.digest`, once it is known.
  """

  def __init__(
    self,
    path: str,
    format: str,
    arrays: Mapping[str, lazy.Array],
    config: variants.ModelConfig | None,
    assets: dict[str, bytes] | None = None,
    meta: dict[str, Any] | None = None,
    verify: Callable[[], None] = lambda: None,
    quantised: Mapping[str, bnb.Weight] | None = None,
  ):
    self.path, self.format, self.arrays, self.config = str(path), format, dict(arrays), config
    self.assets, self.meta, self._verify = assets or {}, meta or {}, verify
    self.quantised = dict(quantised or {})
    self.adapter, self.base_path, self.quant, self.digest = None, self.path, "", None

  def __repr__(self):
    name = self.config.name if self.config else "part of a model"
    return f"Source({self.path!r}, {self.format}, {name}, {len(self.arrays)} tensors)"

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Flat name -> shape, layers stacked."""
    return {name: tuple(x.shape) for name, x in self.arrays.items()}

  @property
  def dtypes(self) -> dict[str, np.dtype]:
    """Flat name -> dtype as stored (ml_dtypes' for bfloat16)."""
    return {name: x.dtype for name, x in self.arrays.items()}

  def replaced(self, arrays: Mapping[str, lazy.Array]) -> "Source":
    """A copy in which `arrays` take the place of those of the same name."""
    new = copy.copy(self)
    new.arrays = {**self.arrays, **arrays}
    new.quantised = {name: x for name, x in self.quantised.items() if name not in arrays}
    return new

  def read(self, name: str, layer: int | None = None) -> np.ndarray:
    """Reads a tensor, or one layer of a stacked one (without the axis of layers).

    Raises:
      KeyError: there is no tensor of this name.
      UserError: the file ends early or is damaged.
    """
    return np.asarray(self.lazy(name, layer))

  def lazy(self, name: str, layer: int | None = None) -> lazy.Array:
    """As `read`, but nothing is read before it is indexed."""
    return self.arrays[name] if layer is None else lazy.Part(self.arrays[name], layer)

  def verify(self):
    """Checks what the format knows of its own integrity: checksums, a tied output matrix.

    Bytes that have been read in order already are not read again.

    Raises:
      UserError: the file is damaged; names the tensor or file.
    """
    self._verify()


def find_assets(folder: pathlib.Path) -> dict[str, bytes]:
  """The files of `ASSETS` that lie in `folder`."""
  return {n: (folder / n).read_bytes() for n in ASSETS if (folder / n).is_file()}


def compare(
  where: str,
  found: Mapping[str, tuple[int, ...]],
  wanted: Mapping[str, tuple[int, ...]],
  advice: str = "Is it a checkpoint of another variant, or incomplete?",
):
  """Raises a UserError that names every kind of difference between two sets of shapes.

  Args:
    where: the checkpoint, first words of the message.
    found: name -> shape of what there is.
    wanted: name -> shape of what there should be.
    advice: last words of the message.
  """
  missing = [n for n in wanted if n not in found]
  unexpected = [n for n in found if n not in wanted]
  shaped = [
    f"{n} is {list(found[n])} instead of {list(wanted[n])}"
    for n in wanted
    if n in found and tuple(found[n]) != tuple(wanted[n])
  ]
  kinds = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped))
  said = [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names]
  if said:
    raise errors.UserError(f"{where}: wrong tensors; {'; '.join(said)}. {advice}")


def refuse_dtypes(where: str, other: Mapping[str, str]):
  """Raises a UserError when there are tensors of an unsupported dtype, `other`: name -> dtype."""
  counts = collections.Counter(other.values())
  said = []
  for dtype, n in counts.items():
    first = next(name for name in other if other[name] == dtype)
    said.append(f"{first} is {dtype}" + (f" (so are {n - 1} more tensors)" if n > 1 else ""))
  if said:
    raise errors.UserError(
      f"{where}: unsupported dtype: {', '.join(said)}. What is read are {', '.join(lazy.FLOATS)} and "
      "float64"
    )


def listed(names: list[str]) -> str:
  """ "a, b, c, … (12 in all)"."""
  more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
  return ", ".join(names[:SHOWN]) + more


def non_finite(where: str, name: str, layer: int | None, cause: str = "") -> errors.UserError:
  """The error for a tensor that holds infinite or NaN values."""
  place = name if layer is None else f"{name}, layer {layer}"
  return errors.UserError(
    f"{where}: {place} holds values that are infinite or not a number{cause}; the file is damaged "
    "or the training that wrote it diverged"
  )
