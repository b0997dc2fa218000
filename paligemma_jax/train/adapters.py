"""Which modules of a model get a low-rank adapter, and how large: the config's `train.lora`.

Named sets of modules, beside regexes of parameter names or of Hugging Face's module paths. Values that
train at rank 8, in millions:

                  paligemma-3b  paligemma2-3b  -10b   -28b
    decoder           9.8           10.4        27.0   57.1
    published        11.3           11.9        28.5   58.6
    all-linear       14.2           14.8        31.4   61.5
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lora
from paligemma_jax.models import tree, variants

_DECODER, _VISION = r"language_model\.layers\..*", r"vision_tower\.encoder\.layers\..*"
TARGETS = {
  "attention": rf"{_DECODER}self_attn\..*",
  "mlp": rf"{_DECODER}mlp\..*",
  "decoder": _DECODER,
  "vision": _VISION,
  "projector": r"multi_modal_projector\.linear",
  "all-linear": rf"{_DECODER}|{_VISION}|multi_modal_projector\.linear",
  # The recipe of PaliGemma's announcement (May 2024) lists the decoder's seven names. Three of them are
  # the image tower's as well, and peft adapts these too.
  "published": rf"{_DECODER}|{_VISION}\.(q|k|v)_proj",
  "embedding": r"language_model\.embed_tokens",
}


def layout(options: Mapping[str, Any], config: variants.ModelConfig) -> lora.Lora:
  """The adapters that a config asks for.

  Args:
    options: its `train.lora`.
    config: of the model.

  Raises:
    UserError: a target or pattern matches no module, or a rank is larger than a module.
  """
  o, slots = options, lora.modules(config)
  chosen = [p for part in o["targets"].split("+") for p in _matched(part, slots, "targets")]
  sizes = {}
  ranks = _by_path(o["rank_pattern"], slots, "rank_pattern")
  alphas = _by_path(o["alpha_pattern"], slots, "alpha_pattern")
  for path in slots:
    if path not in chosen:
      continue
    rank = ranks.get(path, o["rank"])
    out_in = slots[path].shape[0], int(np.prod(slots[path].shape[1:]))
    if rank > min(out_in):
      raise errors.UserError(
        f"train.lora: rank {rank} of {path} is more than its matrix has, {out_in[0]} x {out_in[1]};"
        " choose a smaller one (train.lora.rank, train.lora.rank_pattern)"
      )
    sizes[path] = lora.Size(rank, alphas.get(path, o["alpha"]))
  return lora.Lora(sizes, o["rslora"], o["dora"], False, o["dropout"])


def _by_path(pairs: Sequence[tuple[str, Any]], slots, key: str) -> dict[str, Any]:
  """Module -> the value of the first regex that matches it."""
  found = {}
  for regex, value in pairs:
    for path in _matched(regex, slots, key):
      found.setdefault(path, value)
  return found


def _matched(part: str, slots, key: str) -> list[str]:
  """The modules of a named set, or of a regex of whole parameter names or module paths."""
  try:
    regex = re.compile(TARGETS.get(part, part))
  except re.error as e:
    raise errors.UserError(f'train.lora.{key}: "{part}" is no regular expression ({e})') from None
  found = [p for p, slot in slots.items() if regex.fullmatch(p) or regex.fullmatch(slot.ours)]
  if not found:
    hint = errors.did_you_mean(part, [*TARGETS, *slots], limit=4)
    raise errors.UserError(
      f'train.lora.{key}: "{part}" is no named set ({", ".join(TARGETS)}) and matches no whole name'
      f" of a parameter or module{hint}"
    )
  return found


def fresh(
  layout: lora.Lora, config: variants.ModelConfig, seed: int
) -> dict[str, jax.Array | np.ndarray]:
  """Adapters that change nothing yet: A uniform within 1 / sqrt(in), B zero. Under jit, sharded.

  That is Kaiming's uniform with a = sqrt(5), as in peft and in the reference of arXiv:2106.09685. What a
  module has less than the largest rank of its stack is zero and stays so. Magnitudes, which depend on the
  weights, are not among them.
  """
  found, ranks = lora_arrays(layout, config), {}
  for path, size in layout.modules.items():
    slot = lora.modules(config)[path]
    ranks.setdefault(slot.ours, {})[slot.index] = size.rank
  for number, (name, by_place) in enumerate(ranks.items()):
    leaf = tree.plain(config)[name]
    a = found[f"{name}.lora/a"]
    bound = leaf.matrix[1] ** -0.5
    key = jax.random.fold_in(jax.random.key(seed), number)
    used = np.zeros((*leaf.stacked, a.shape[-1]), bool)
    for place, rank in by_place.items():
      used[(*place, slice(0, rank))] = True
    used = used.reshape(*leaf.stacked, *(1 for _ in leaf.summed), a.shape[-1])
    if name == tree.TABLE:  # of which peft has it the other way round: A zero, B normal
      found[f"{name}.lora/b"] = jax.random.normal(key, found[f"{name}.lora/b"].shape)
      continue
    drawn = jax.random.uniform(key, a.shape, jnp.float32, -bound, bound)
    found[f"{name}.lora/a"] = jnp.where(used, drawn, 0)
  return found


def lora_arrays(layout: lora.Lora, config: variants.ModelConfig) -> dict[str, np.ndarray]:
  """Zeros for every array of the adapters, and their scales."""
  form = tree.Form({}, layout.adapters(config))
  leaves = {n: x for n, x in tree.formed(config, form).items() if ".lora/" in n}
  scales = layout.scales(config)
  return {n: scales[n] if n in scales else jnp.zeros(x.shape) for n, x in leaves.items()}
