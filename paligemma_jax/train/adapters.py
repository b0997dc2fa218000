"""Which modules of a model get a low-rank adapter, and how large: the config's `train.lora`.

Named sets of modules, beside regexes of parameter names or of Hugging Face's module paths. Values that
train at rank 8, in millions:

                  paligemma-3b  paligemma2-3b  -10b   -28b
    decoder           9.8           10.4        27.0   57.1
    published        11.3           11.9        28.5   58.6
    all-linear       14.2           14.8        31.4   61.5
"""

import math
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
  "patches": r"vision_tower\.embeddings\.patch_embedding",
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
  known = {path: (path, slot.ours) for path, slot in slots.items()}
  return tree.select(part, known, TARGETS, f"train.lora.{key}")


def fresh(layout: lora.Lora, config: variants.ModelConfig, seed: int) -> dict[str, jax.Array]:
  """Adapters that change nothing yet, by flat name: A uniform within 1 / sqrt(in), B zero.

  That is Kaiming's uniform with a = sqrt(5), as in peft and in the reference of arXiv:2106.09685; of the
  table peft has it the other way round, A zero and B normal. What a module has less than the largest
  rank of its stack is zero and stays so. Magnitudes of DoRA, which depend on the weights, are zero here.

  Args:
    layout: what is adapted.
    config: of the model.
    seed: of what is drawn.

  Returns:
    float32 arrays NAME.lora/a, b, scale and, with DoRA, m, in the shapes of `tree.adapted`. Under jit
    they are born where they belong.
  """
  leaves = tree.formed(config, tree.Form({}, layout.adapters(config)))
  found = {n: jnp.zeros(x.shape) for n, x in leaves.items() if ".lora/" in n}
  found |= {n: jnp.asarray(x) for n, x in layout.scales(config).items()}
  used = {
    n: np.zeros((*leaves[n].stacked, leaves[n].shape[-1]), bool) for n in found if n.endswith("/a")
  }
  for path, size in layout.modules.items():
    slot = lora.modules(config)[path]
    used[f"{slot.ours}.lora/a"][(*slot.index, slice(0, size.rank))] = True
  for number, (name, own) in enumerate(used.items()):
    key, shape = jax.random.fold_in(jax.random.key(seed), number), leaves[name].shape
    if name == f"{tree.TABLE}.lora/a":
      b = name.removesuffix("a") + "b"
      found[b] = jax.random.normal(key, found[b].shape)
      continue
    bound = math.prod(shape[leaves[name].stack : -1]) ** -0.5
    own = np.expand_dims(own, tuple(range(leaves[name].stack, len(shape) - 1)))
    found[name] = jnp.where(own, jax.random.uniform(key, shape, jnp.float32, -bound, bound), 0)
  return found
