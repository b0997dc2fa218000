"""Random adapters of a model, for tests that write them; and peft's own rules, written anew."""

import re

import numpy as np

from paligemma_jax.checkpoint import lora, peft_save
from paligemma_jax.models import tree

LIST = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROJECTOR = "multi_modal_projector.linear"


def layout(config, wanted, size=lambda path: lora.Size(4, 8), replaced=(), **options) -> lora.Lora:
  """An adapter of the modules for whose path `wanted` holds, and new values of `replaced`."""
  modules = {path: size(path) for path in lora.modules(config) if wanted(path)}
  replaced = tuple(name for name in lora.slots(config) if re.search(replaced or "$^", name))
  return lora.Lora(modules, replaced=replaced, **options)


def arrays(config, of: lora.Lora, flat, seed=0, scale=0.05) -> dict[str, np.ndarray]:
  """Random numbers of an adapter, zero in the padding; replaced ones differ from those in `flat`."""
  rng = np.random.default_rng(seed)
  draw = lambda shape: scale * rng.normal(size=shape).astype(np.float32)
  leaves = tree.formed(config, tree.Form({}, of.adapters(config)))
  found = {n: np.zeros(leaf.shape, np.float32) for n, leaf in leaves.items() if ".lora/" in n}
  for path, size in of.modules.items():
    for kind, slot in lora.tensors(lora.modules(config)[path], size.rank).items():
      if kind in of.kinds:
        x = draw([slot.split[axis] for axis in slot.axes])
        at = (*slot.index, *(slice(0, n) for n in x.shape))
        found[slot.ours][at] = 1 + np.abs(x) if kind == "m" else x
  for name in of.replaced:
    slot = lora.slots(config)[name]
    whole = found.setdefault(slot.ours, np.array(flat[slot.ours]))
    whole[slot.index] += draw(whole[slot.index].shape)
  return found


def write(folder, config, of: lora.Lora, flat, seed=0, **options) -> dict[str, np.ndarray]:
  """Saves a random adapter; returns its arrays."""
  found = arrays(config, of, flat, seed)
  peft_save.save(folder, of, config, found, **options)
  return found


def spellings(path: str) -> list[str]:
  """A module's path in the releases of transformers, without what peft puts before it."""
  old = re.sub("^language_model", "language_model.model", path)
  old = re.sub("^vision_tower", "vision_tower.vision_model", old)
  mid = "model." + re.sub("^vision_tower", "vision_tower.vision_model", path)
  return [old, mid, "model." + path, "model." + old]


def is_target(config: dict, path: str) -> bool:
  """Whether peft adapts a module, as `check_target_module_exists` of 0.11 to 0.21 says."""
  targets = config["target_modules"]
  if isinstance(targets, str):
    return bool(re.fullmatch(targets, path))
  return any(path == t or path.endswith("." + t) for t in targets)


def by_pattern(patterns: dict, path: str) -> set:
  """What a rank_pattern or alpha_pattern says by the rule of peft today, and by that of 0.11."""
  found = set()
  for rule in (r"(.*\.)?({})$", r".*\.{}$"):
    matching = (v for k, v in patterns.items() if re.match(rule.format(k), path))
    found.add(next(matching, None))
  return found
