"""A base and an adapter together: opened, checked to belong together, merged.

An adapter is a folder of peft, or a run that trained adapters. The steps of such a run hold what
trained alone; they name their base by its path and by a digest of its numbers, so that an adapter
never meets a base that it was not made for.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy, lora, merge, peft, peft_save, source, steps
from paligemma_jax.models import tree, variants

FLOAT = "float"  # in place of a form: weights as floats, whatever the checkpoint has
_SAMPLED = 64  # values that count for the digest, of the first row of a tensor and of the last


def with_adapter(src: source.Source, path: str, fresh: bool = False) -> source.Source:
  """The checkpoint `src` with the adapter at `path` beside it; `fresh`: one that changes nothing too.

  Raises:
    UserError: there is no adapter, it is damaged or does not fit the model, it changes nothing, or
      was trained on another base.
  """
  if src.config is None:
    raise errors.UserError(f"{src.path} holds a part of a model; an adapter needs the whole")
  if src.adapter is not None:
    raise errors.UserError(
      f"{src.path} has an adapter already, {src.adapter.path}; name the base itself, or one adapter"
    )
  if steps.is_mine(str(path)):
    found = steps.open(str(path))
    if steps.ADAPTER not in found.meta:
      raise errors.UserError(f"{path} is a run without adapters; load it as a checkpoint")
    adapter = of_step(found)
    _check_base(adapter.path, found.meta[steps.ADAPTER], src)
  else:
    adapter = peft.open(path, src.config)
    if not fresh:
      peft.check_changes_something(adapter)
  return _joined(src, adapter)


def completed(step: source.Source, open_base: Callable[[str], source.Source]) -> source.Source:
  """A step of a run with adapters, with the base that it names.

  Args:
    step: as `steps.open` gives it.
    open_base: opens a checkpoint.

  Raises:
    UserError: the base is not where it was, or is another one.
  """
  known = step.meta[steps.ADAPTER]
  path = known["base"]
  try:
    base = open_base(path)
  except errors.UserError as e:
    raise errors.UserError(
      f"{step.path} is an adapter of {path}, which cannot be opened ({e}); name the base where it is now"
      f" as the checkpoint, and this one as its adapter (--ckpt BASE --adapter {step.path})"
    ) from None
  _check_base(step.path, known, base)
  joined = _joined(base, of_step(step))
  joined.path, joined.meta = step.path, step.meta
  joined.assets = base.assets | step.assets
  joined.config, joined.quant = step.config, known["quant"]

  def verify():
    base.verify()
    step.verify()

  joined.verify = verify
  return joined


def meta(base: source.Source, layout: lora.Lora, quant: str) -> dict[str, Any]:
  """What a step with adapters stores beside them; JSON.

  Args:
    base: what the run started from; with an adapter, it is the base below it.
    layout: of the adapters.
    quant: the form of the base's weights, as the config says it.
  """
  return {
    "lora": {
      **dataclasses.asdict(layout),
      "modules": {p: list(s) for p, s in layout.modules.items()},
    },
    "base": _absolute(base.base_path),
    "digest": digest(base),
    "quant": quant,
  }


def _absolute(path: str) -> str:
  """A path of this machine as it is from every folder; what is none, as it is."""
  return os.path.abspath(path) if os.path.exists(path) else path


def digest(src: source.Source) -> str:
  """Hex digest of the numbers of a model: a few of every tensor; that of any format, in float32.

  It tells fine-tuned from original and one size from another; the bytes of files are not read.
  """
  if src.digest is None:
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tree.plain(src.config)):
      x = src.arrays[name]
      *lead, last = x.shape
      first = (*[slice(0, 1)] * len(lead), slice(0, min(last, _SAMPLED)))
      end = (*[slice(n - 1, n) for n in lead], slice(max(0, last - _SAMPLED), last))
      for corner in (first, end):
        state.update(np.asarray(x.read(corner), np.float32).tobytes())
    src.digest = state.hexdigest()
  return src.digest


def fingerprint(adapter: peft.Adapter) -> str:
  """Hex digest that changes when an opened adapter does: of its numbers, which are few."""
  state = hashlib.blake2b(repr(adapter.lora).encode(), digest_size=16)
  for group in (*adapter.parts.values(), *adapter.replaced.values()):
    for x in group.values():
      state.update(np.asarray(x).tobytes())
  return state.hexdigest()


def _check_base(where: str, known: Mapping[str, Any], base: source.Source) -> None:
  if base.config is None or digest(base) != known["digest"]:
    raise errors.UserError(
      f"{where} was trained on {known['base']} as it was then; {base.path} has other weights. Use the"
      " adapter with the base that it was made for"
    )


def _joined(base: source.Source, adapter: peft.Adapter) -> source.Source:
  known = digest(base)
  joined = merge.replaced(base, adapter)
  joined.adapter, joined.digest = adapter, known
  return joined


def of_step(step: source.Source) -> peft.Adapter:
  """The adapter that a step of a run holds."""
  known = step.meta[steps.ADAPTER]["lora"]
  modules = {path: lora.Size(*size) for path, size in known["modules"].items()}
  layout = lora.Lora(**{**known, "modules": modules, "replaced": ()})
  slots, parts = lora.modules(step.config), {}
  for path, size in modules.items():
    parts[path] = {
      kind: _of_module(step.arrays[f"{slots[path].ours}.lora/{kind}"], kind, slots[path], size.rank)
      for kind in layout.kinds
    }
  whole = {name: x for name, x in step.arrays.items() if ".lora/" not in name}
  names = [t for t, slot in lora.slots(step.config).items() if slot.ours in whole]
  layout = dataclasses.replace(layout, replaced=tuple(names))
  replaced = {name: {(): x} for name, x in whole.items()}
  return peft.Adapter(step.path, step.config, layout, None, parts, replaced, None)


def _of_module(x: lazy.Array, kind: str, slot, rank: int) -> lazy.Array:
  """The part of a module in the array of its stack, without what fills up its rank."""
  every = slice(None)
  if kind == "a":
    rest = len(x.shape) - len(slot.index) - 1
    return lazy.Part(x, (*slot.index, *[every] * rest, slice(0, rank)))
  return lazy.Part(x, (*slot.index, slice(0, rank)) if kind == "b" else slot.index)


def forms(
  src: source.Source | None, config: variants.ModelConfig, quant: str | None
) -> dict[str, tree.Quant]:
  """Which weights are in few bits in memory, and how.

  Args:
    src: the opened checkpoint; None: there are random parameters.
    config: of the model.
    quant: a form, see `tree.parse_quant`; "float": none; None or "": as the checkpoint has them, or
      as the run had them that it is of. What an adapter has new values of is in floats.
  """
  text = quant or ("" if src is None else src.quant)
  if text == FLOAT or src is None and not text:
    return {}
  found = tree.parse_quant(text, config) if text else {n: x.quant for n, x in src.quantised.items()}
  own = src.adapter.replaced if src is not None and src.adapter is not None else {}
  return {name: form for name, form in found.items() if name not in own}


def merged(src: source.Source, dtype: np.dtype | None = None) -> source.Source:
  """The checkpoint with its adapter in the weights; without one, as it is.

  What changes has `dtype`; None: that of the base, which rounds a part of the update away.
  """
  if src.adapter is None:
    return src
  made = merge.merged(src, src.adapter, dtype)
  made.adapter, made.meta = None, {k: v for k, v in src.meta.items() if k != steps.ADAPTER}
  return made


def save(src: source.Source, folder: str, dtype: str | None = None) -> None:
  """Writes the adapter of a checkpoint as a folder of peft.

  Args:
    src: with an adapter.
    folder: destination; nothing or an empty folder may be there.
    dtype: "float32", "bfloat16" or "float16"; None as stored.

  Raises:
    UserError: there is no adapter, or the destination is taken.
  """
  adapter = src.adapter
  if adapter is None:
    raise errors.UserError(
      f"{src.path} has no adapter to write for peft; it takes a run of recipe lora or qlora, or --adapter"
    )
  arrays = adapter.arrays(None) | {name: src.arrays[name] for name in adapter.replaced}
  base = adapter.base or src.base_path
  peft_save.save(
    folder, adapter.lora, src.config, arrays, base=base, dtype=dtype, rows=adapter.rows
  )
