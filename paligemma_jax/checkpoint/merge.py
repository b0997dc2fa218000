"""An adapter merged into its base, or what it replaces put in place, one slice at a time."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy, lora, names, peft, source
from paligemma_jax.models import tree


def merged(
  src: source.Source, adapter: peft.Adapter, dtype: np.dtype | None = None
) -> source.Source:
  """The checkpoint `src` with an adapter in its weights: W + s B A, or DoRA, in float32.

  Args:
    src: a whole model, of the sizes that the adapter was opened for.
    adapter: of which nothing is read before the result is.
    dtype: of the tensors that change; None as `src` has them. A sum that is rounded to fewer bits
      loses part of the update.

  Raises:
    UserError: the adapter is of the table, or has biases where the model has none.
  """
  if lora.TABLE in adapter.parts:
    raise errors.UserError(
      f"{adapter.path} adapts the table (embed_tokens), which is the output matrix as well: merged, it"
      " would change that too. Use it beside its base"
    )
  parts = _values(adapter)
  for path, own in adapter.parts.items():
    slot = lora.modules(adapter.config)[path]
    place = parts.setdefault(slot.ours, {})
    base = _element(src, slot, place)
    place[slot.index] = _Merged(base, slot, own, adapter.lora.scale(path))
    if adapter.lora.bias:
      _add_bias(parts, src, adapter, path)
  return _with(src, adapter, parts, dtype)


def replaced(
  src: source.Source, adapter: peft.Adapter, dtype: np.dtype | None = None
) -> source.Source:
  """The checkpoint `src` with the tensors that an adapter has new values of; see `merged`."""
  return _with(src, adapter, _values(adapter), dtype)


def _values(adapter: peft.Adapter) -> dict[str, dict[tuple[int, ...], lazy.Array]]:
  return {name: dict(places) for name, places in adapter.replaced.items()}


def _element(src: source.Source, slot: names.Slot, replaced: dict) -> lazy.Array:
  found = replaced.get(slot.index)
  return lazy.Part(src.arrays[slot.ours], slot.index) if found is None else found


def _with(src, adapter, parts, dtype) -> source.Source:
  shapes = tree.param_shapes(adapter.config)
  source.compare(src.path, {n: src.shapes[n] for n in shapes if n in src.arrays}, shapes)
  return src.replaced(
    {name: lazy.Patched(src.arrays[name], places, dtype) for name, places in parts.items()}
  )


def _add_bias(parts, src, adapter: peft.Adapter, path: str):
  slot = lora.slots(adapter.config).get(path + ".bias")
  if slot is None:
    raise errors.UserError(
      f"{adapter.path}: {path} has a bias on lora_B, but no bias in the model to merge it into"
    )
  place = parts.setdefault(slot.ours, {})
  base = _element(src, slot, place)
  place[slot.index] = _Added(base, adapter.parts[path]["bias"], adapter.lora.scale(path))


class _Added(lazy.Array):
  """base + scale * x in float32."""

  def __init__(self, base: lazy.Array, x: lazy.Array, scale: float):
    self.base, self.x, self.scale = base, x, np.float32(scale)
    self.shape, self.dtype = base.shape, np.dtype(np.float32)

  def read(self, index: lazy.Index) -> np.ndarray:
    """See `Array.read`."""
    wide = [x.read(index).astype(np.float32) for x in (self.base, self.x)]
    return wide[0] + self.scale * wide[1]


class _Merged(lazy.Array):
  """One matrix of a base, in the order of our axes, with an adapter in it; float32."""

  def __init__(self, base: lazy.Array, slot: names.Slot, parts: dict, scale: float):
    self.base, self.parts, self.scale = base, parts, np.float32(scale)
    self.shape, self.dtype = base.shape, np.dtype(np.float32)
    self.ins = tuple(i for i, axis in enumerate(slot.axes) if axis >= slot.rows)
    self.outs = tuple(i for i, axis in enumerate(slot.axes) if axis < slot.rows)

  def read(self, index: lazy.Index) -> np.ndarray:
    """See `Array.read`. With DoRA the rows are read whole, for their norms."""
    box = list(index)
    for i in self.ins if "m" in self.parts else ():
      box[i] = slice(0, self.shape[i])
    ins, outs = [box[i] for i in self.ins], [box[i] for i in self.outs]
    a = self._read("a", (*ins, slice(0, self.parts["a"].shape[-1])))
    b = self._read("b", (slice(0, len(self.parts["b"])), *outs))
    w = np.tensordot(a, b, 1).transpose(np.argsort(self.ins + self.outs))
    w *= self.scale
    w += self.base.read(tuple(box))
    if "m" not in self.parts:
      return w
    norm = np.sqrt(np.square(w).sum(self.ins, keepdims=True))
    w *= np.expand_dims(self._read("m", tuple(outs)), self.ins) / norm
    return w[tuple(index[i] if i in self.ins else slice(None) for i in range(len(box)))]

  def _read(self, kind: str, index: lazy.Index) -> np.ndarray:
    return self.parts[kind].read(index).astype(np.float32)
