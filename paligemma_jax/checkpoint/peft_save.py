"""Writes the folder of an adapter as peft does, for every release that reads PaliGemma.

Names are those of transformers 4.41 to 4.51, which later ones find too, with two exceptions. The
projector has those of 4.52 to 4.57: with peft 0.21 on transformers 5 it is lost under the older ones.
And this peft finds what is not of LoRA, whole modules and biases, under the names in memory alone:
where there is some of the image tower, names are those of transformers 5, and no other reads it.
"""

import collections
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import (
  atomic,
  hf_config,
  lazy,
  lora,
  names,
  peft,
  peft_config,
  shards,
  stream,
)
from paligemma_jax.models import variants

_PROJECTOR = "multi_modal_projector.linear"
# What stands before `.layers` in a path, in every spelling.
_LAYERS = {"language_model": "(language_model|model)", "vision_tower": "encoder"}


def save(
  folder: str | os.PathLike,
  layout: lora.Lora,
  config: variants.ModelConfig,
  arrays: Mapping[str, np.ndarray],
  *,
  base: str | None = None,
  dtype: str | None = None,
  rows: int | None = None,
  before_commit: Callable[[], None] = lambda: None,
):
  """Writes an adapter, whole or not at all.

  Args:
    folder: destination; nothing or an empty folder may be there.
    layout: what is adapted and replaced.
    config: of the model.
    arrays: NAME.lora/a, b, m and bias of every NAME that is adapted, and the whole array of every
      name of which a part is replaced; NumPy, JAX or lazy.
    base: what the model was loaded from, for `PeftModel` and the card.
    dtype: "float32", "bfloat16" or "float16"; None as given.
    rows: of the table in the folder of the base; None: padded as the Hub's are.
    before_commit: called before the folder is put in place; may raise.

  Raises:
    UserError: the destination is taken, a value is not finite, or peft has no way to say what is
      replaced.
  """
  atomic.check_free(folder)
  settings = _settings(layout, config) | {"base_model_name_or_path": base}
  spelled, tensors = _spelling(layout), []
  for name, slot in _slots(layout, config).items():
    x = _element(arrays, slot)
    plan = stream.Plan("the adapter", {name: lazy.FLOATS[dtype] if dtype else x.dtype})
    x = names.to_theirs(slot, stream.cast(plan, name, None, x))
    if name == f"{lora.TABLE}.{lora.TABLE_ENDS['a']}":
      padded = rows or hf_config.padded_rows(config.llm.vocab_size)
      x = np.pad(x, ((0, 0), (0, padded - x.shape[1])))
    tensors.append(shards.Tensor(peft.ROOT + spelled(name), x.dtype, x.shape, [x]))
  with atomic.new(folder, folder=True) as new:
    shards.write(new / peft.FILE, tensors)
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (new / peft_config.FILE).write_text(text)
    (new / "README.md").write_text(_card(layout, config, base))
    before_commit()


def _spelling(layout: lora.Lora) -> Callable[[str], str]:
  """Canonical name -> the name that most releases find; see the head of this file."""
  if any(name.startswith("vision_tower.") for name in layout.replaced):
    return lambda name: "model." + name
  if layout.replaced or _PROJECTOR in layout.modules:
    return lambda name: "model." + re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name)
  return names.published


def _slots(layout: lora.Lora, config: variants.ModelConfig) -> dict[str, names.Slot]:
  """Every tensor of the file by its canonical name."""
  found = {}
  for path, size in layout.modules.items():
    parts = lora.tensors(lora.modules(config)[path], size.rank)
    found |= {parts[kind].theirs: parts[kind] for kind in layout.kinds}
  for name in layout.replaced:
    path, _, end = name.rpartition(".")
    own = f"{path}.base_layer.{end}" if path in layout.modules else name
    found[own] = lora.slots(config)[name]
  return found


def _element(arrays: Mapping[str, np.ndarray], slot: names.Slot) -> np.ndarray:
  """The numbers of one tensor, without the padding of a smaller rank."""
  whole = np.asarray(arrays[slot.ours][slot.index])
  wanted = tuple(slot.split[axis] for axis in slot.axes)
  own = whole[tuple(slice(0, n) for n in wanted)]
  if own.shape != wanted or np.any(whole) and np.count_nonzero(own) != np.count_nonzero(whole):
    raise ValueError(f"{slot.ours} {list(slot.index)} is {whole.shape}, {slot.theirs} {wanted}")
  return own


def _settings(layout: lora.Lora, config: variants.ModelConfig) -> dict:
  """adapter_config.json."""
  saved = _saved(layout, config)
  among = [p for p in lora.modules(config) if p not in saved]
  targets = _keys(list(layout.modules), among)
  by_name = all(re.fullmatch(r"\w+", key) for key in targets)
  common = collections.Counter(layout.modules.values()).most_common(1)[0][0]
  ranks, alphas = {}, {}
  for size in set(layout.modules.values()):
    own = [path for path, other in layout.modules.items() if other == size]
    for key in _keys(own, list(layout.modules)):
      if size.rank != common.rank:
        ranks[key] = size.rank
      if size.alpha != common.alpha:
        alphas[key] = _number(size.alpha)
  return peft_config.DEFAULTS | {
    "alpha_pattern": alphas,
    "bias": _bias(layout, config, saved),
    "lora_alpha": _number(common.alpha),
    "lora_dropout": layout.dropout,
    "modules_to_save": _suffixes(saved) or None,
    "r": common.rank,
    "rank_pattern": ranks,
    "target_modules": targets if by_name else rf"(.*\.)?({'|'.join(targets)})",
    "use_dora": layout.dora,
    "use_rslora": layout.rslora,
    **({"lora_bias": True} if layout.bias else {}),
  }


def _number(x: float) -> float | int:
  return int(x) if x == int(x) else float(x)


def _keys(paths: list[str], among: list[str]) -> list[str]:
  """Last components that say which of `among` are meant, else regexes for the ends of paths.

  The regexes hold in every spelling of the paths, and also for releases of peft that ask for
  something before the end.
  """
  last = lambda path: path.rpartition(".")[2]
  ends = {last(path) for path in paths}
  if {path for path in among if last(path) in ends} == set(paths):
    return sorted(ends)
  layers, depth = {}, {}  # (tower, self_attn or mlp, last component) -> layers
  for found, listed in ((layers, paths), (depth, among)):
    for path in listed:
      tower, *more = path.split(".")
      at = (tower, more[-2], more[-1]) if "layers" in more else (tower, "", more[-1])
      found.setdefault(at, set()).update(int(part) for part in more if part.isdigit())
  groups = {}
  for (tower, block, end), numbers in layers.items():
    whole = numbers == depth[tower, block, end]
    numbers = r"\d+" if whole else f"({'|'.join(map(str, sorted(numbers)))})"
    groups.setdefault((tower, block, numbers), []).append(end)
  return [
    rf"{_LAYERS[tower]}\.layers\.{numbers}\.{block}\.({'|'.join(ends)})"
    if block
    else "|".join(ends)
    for (tower, block, numbers), ends in groups.items()
  ]


def _saved(layout: lora.Lora, config: variants.ModelConfig) -> list[str]:
  """Paths of the modules that are stored as a whole."""
  saved = [n.removesuffix(".weight") for n in layout.replaced if n.endswith(".weight")]
  for path in saved:
    gone = f"{path}.bias" in lora.slots(config) and f"{path}.bias" not in layout.replaced
    if gone or path in layout.modules or path == lora.TABLE:
      reason = (
        "without its bias" if gone else "the output matrix" if path == lora.TABLE else "and adapted"
      )
      raise errors.UserError(
        f"an adapter cannot store new values of {path} ({reason}); peft stores whole modules that are"
        " not adapted, and none that are tied to others"
      )
  return saved


def _bias(layout: lora.Lora, config: variants.ModelConfig, saved: list[str]) -> str:
  """Which biases are stored, in the words of peft."""
  whole = {f"{path}.bias" for path in saved}
  lone = {name for name in layout.replaced if name.endswith(".bias")} - whole
  every = {name for name in lora.slots(config) if name.endswith(".bias")}
  adapted = {f"{path}.bias" for path in layout.modules} & every
  for word, biases in (("none", set()), ("lora_only", adapted), ("all", every - whole)):
    if lone == biases:
      return word
  raise errors.UserError(
    f"an adapter stores no biases, those of adapted modules or all of them; here are {len(lone)} of"
    f" {len(every)}, {len(adapted)} adapted"
  )


def _suffixes(saved: Iterable[str]) -> list[str]:
  """Ends of paths that hold in the spellings of transformers from 4.52 on."""
  paths = [path.removeprefix("vision_tower.") for path in saved]
  return sorted(path.removesuffix(".linear") for path in paths)


def _card(layout: lora.Lora, config: variants.ModelConfig, base: str | None) -> str:
  ranks = sorted({size.rank for size in layout.modules.values()})
  return _CARD.format(
    base=f"base_model: {base}\n" if base else "",
    model=base or config.name,
    kind="DoRA" if layout.dora else "LoRA",
    ranks=", ".join(map(str, ranks)),
    modules=len(layout.modules),
    trained=layout.trained(config),
  )


_CARD = """---
{base}library_name: peft
tags:
- paligemma
- lora
---

# {kind} of {model}

An adapter of {modules} modules, rank {ranks}, {trained:,} trained values, written by paligemma_jax.

```python
from peft import PeftModel
from transformers import PaliGemmaForConditionalGeneration

model = PaliGemmaForConditionalGeneration.from_pretrained("{model}")
model = PeftModel.from_pretrained(model, "PATH")
```

Weights that derive from Google's PaliGemma checkpoints stay under the Gemma Terms of Use.
"""
