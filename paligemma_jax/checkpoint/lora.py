"""Which modules an adapter changes, and where the numbers of each stand in our tree.

LoRA (arXiv:2106.09685): y = W x + s B (A x), here of one matrix W [out, in] as Hugging Face has it,
A [r, in], B [out, r], s = alpha / r. Our tree has a dict beside the weight NAME:

  NAME.lora/a      [stack…, in axes…, r]    NAME.lora/b      [stack…, r, out axes…]
  NAME.lora/scale  [stack…]                 s; 0 where a module of the stack is not adapted
  NAME.lora/m      [stack…, out axes…]      the magnitude of DoRA (arXiv:2402.09353)
  NAME.lora/bias   [stack…, out axes…]      a bias on B, also times s

Ranks may differ within a stack: r is the largest, the rest of a and b is zero. Of the table, `in` is
the vocabulary: a row of it is looked up, nothing is multiplied.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

from paligemma_jax.checkpoint import names
from paligemma_jax.models import tree, variants

PATCHES = names.PATCHES.removesuffix(".weight")  # the convolution
TABLE = names.TABLE.removesuffix(".weight")
# Array of NAME.lora -> end of the tensor's name in a file of peft.
ENDS = {"a": "lora_A.weight", "b": "lora_B.weight", "m": "lora_magnitude_vector"}
ENDS |= {"bias": "lora_B.bias"}
TABLE_ENDS = {"a": "lora_embedding_A", "b": "lora_embedding_B"}


@functools.cache
def slots(config: variants.ModelConfig) -> dict[str, names.Slot]:
  """Every tensor of a model by its Hugging Face name, see `names.canonical`; decoder first."""
  found = names.slots(tree.param_shapes(config), config.llm.post_norms)
  return {s.theirs: s for s in found}


@functools.cache
def modules(config: variants.ModelConfig) -> dict[str, names.Slot]:
  """Every module that can be adapted -> the slot of its weight.

  The path is that of the Hugging Face model without what differs between releases, such as
  `language_model.layers.0.self_attn.q_proj`; `slot.ours` is our NAME, `slot.index` the place on its
  stack. All linear layers, the convolution of the patches and the table; not the output matrix,
  which is the table.
  """
  return {
    name.removesuffix(".weight"): s
    for name, s in slots(config).items()
    if len(s.shape) > 1 and name != names.POSITIONS
  }


class Size(NamedTuple):
  """Of one adapted module."""

  rank: int
  alpha: float


@dataclasses.dataclass(frozen=True)
class Lora:
  """All of an adapter but its numbers.

  Attributes:
    modules: path of a module (a key of `modules(config)`) -> its rank and alpha.
    rslora: scale alpha / sqrt(rank) instead of alpha / rank (arXiv:2312.03732).
    dora: whether the modules have a magnitude.
    bias: whether the modules have a bias on B.
    dropout: of A's input in training, 0..1.
    replaced: Hugging Face names (keys of `slots(config)`) of tensors that have new values.
  """

  modules: dict[str, Size]
  rslora: bool = False
  dora: bool = False
  bias: bool = False
  dropout: float = 0.0
  replaced: tuple[str, ...] = ()

  @property
  def kinds(self) -> tuple[str, ...]:
    """The arrays of every module, keys of `ENDS`."""
    return ("a", "b", *["m"] * self.dora, *["bias"] * self.bias)

  def scale(self, path: str) -> float:
    """What the product of a module is multiplied with."""
    rank, alpha = self.modules[path]
    return alpha / (math.sqrt(rank) if self.rslora else rank)

  def adapters(self, config: variants.ModelConfig) -> dict[str, tree.Adapter]:
    """Our NAME -> the form of its adapter."""
    ranks = {}
    for path, size in self.modules.items():
      name = modules(config)[path].ours
      ranks[name] = max(size.rank, ranks.get(name, 0))
    return {name: tree.Adapter(rank, self.dora, self.bias) for name, rank in ranks.items()}

  def scales(self, config: variants.ModelConfig) -> dict[str, np.ndarray]:
    """NAME.lora/scale -> float32[stack…]."""
    found = {}
    for path in self.modules:
      slot = modules(config)[path]
      stack = tree.plain(config)[slot.ours].stacked
      whole = found.setdefault(slot.ours + ".lora/scale", np.zeros(stack, np.float32))
      whole[slot.index] = self.scale(path)
    return found

  def trained(self, config: variants.ModelConfig) -> int:
    """How many values it has, without what is padding in our arrays."""
    sizes = [math.prod(slots(config)[name].shape) for name in self.replaced]
    for path, size in self.modules.items():
      parts = tensors(modules(config)[path], size.rank)
      sizes += [math.prod(parts[kind].shape) for kind in self.kinds]
    return sum(sizes)


def tensors(weight: names.Slot, rank: int) -> dict[str, names.Slot]:
  """The tensors that peft has of an adapted module: "a", "b", "m", "bias" -> slot.

  `ours` of a slot is the name of the array, its numbers have the place `index` in it, and take `rank`
  of its r.
  """
  path, cut = weight.theirs.removesuffix(".weight"), weight.rows
  ends = TABLE_ENDS if path == TABLE else ENDS
  ins = [axis - cut for axis in weight.axes if axis >= cut]
  outs = [axis for axis in weight.axes if axis < cut]
  into, out = weight.split[cut:], weight.split[:cut]
  flat_in, flat_out, more = weight.shape[1:], weight.shape[:1], ()
  if path == TABLE:  # of a table [V, D] the rows are what comes in
    into, out, flat_in, flat_out = out, into, flat_out, flat_in
  if path == PATCHES:
    more = (1, 1)
  of = {
    "a": ((rank, *flat_in), (rank, *into), (*[1 + axis for axis in ins], 0)),
    "b": ((*flat_out, rank, *more), (*out, rank), (len(outs), *outs)),
    "m": ((1, *flat_out, 1, 1) if more else flat_out, out, outs),
    "bias": (flat_out, out, outs),
  }
  return {
    kind: weight._replace(
      theirs=f"{path}.{end}",
      shape=of[kind][0],
      ours=f"{weight.ours}.lora/{kind}",
      split=of[kind][1],
      axes=tuple(of[kind][2]),
      rows=1,
    )
    for kind, end in ends.items()
  }
