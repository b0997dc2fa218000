"""adapter_config.json of peft: read, with what is not supported refused by name, and its rules.

Source: LoraConfig and its matching of modules in peft 0.11 to 0.21.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

from paligemma_jax import errors

FILE = "adapter_config.json"
# What stands in the file of an adapter that peft 0.11 writes: every later release reads these.
DEFAULTS = {
  "alpha_pattern": {},
  "auto_mapping": None,
  "base_model_name_or_path": None,
  "bias": "none",
  "fan_in_fan_out": False,
  "inference_mode": True,
  "init_lora_weights": True,
  "layer_replication": None,
  "layers_pattern": None,
  "layers_to_transform": None,
  "loftq_config": {},
  "lora_alpha": 8,
  "lora_dropout": 0.0,
  "megatron_config": None,
  "megatron_core": "megatron.core",
  "modules_to_save": None,
  "peft_type": "LORA",
  "r": 8,
  "rank_pattern": {},
  "revision": None,
  "target_modules": None,
  "task_type": "CAUSAL_LM",
  "use_dora": False,
  "use_rslora": False,
}
# Keys that say nothing about the numbers of a trained adapter, whatever their value.
_IDLE = {"auto_mapping", "base_model_name_or_path", "inference_mode", "loftq_config", "revision"}
_IDLE |= {"megatron_config", "megatron_core", "task_type", "peft_version"}
_IDLE |= {"eva_config", "corda_config", "lora_ga_config", "qalora_group_size"}
_READ = {"alpha_pattern", "bias", "exclude_modules", "init_lora_weights", "layers_pattern"}
_READ |= {"layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout", "modules_to_save", "r"}
_READ |= {"peft_type", "rank_pattern", "target_modules", "use_dora", "use_rslora"}
# Keys of which any value but null, false or nothing changes the mathematics, and how.
_OTHER = {
  "fan_in_fan_out": "the weights are those of GPT-2's layers, [in, out]",
  "layer_replication": "the model has layers of its own",
  "trainable_token_indices": "rows of the table are trained, which the output matrix shares",
  "target_parameters": "parameters are adapted that are no modules",
  "alora_invocation_tokens": "aLoRA adapts only the tokens after an invocation",
  "arrow_config": "Arrow chooses among adapters for every token",
  "use_qalora": "QA-LoRA pools the input in groups",
  "use_bdlora": "BD-LoRA has block-diagonal matrices",
  "kasa_config": "KaSA changes the base's weights",
  "velora_config": "VeLoRA is another method",
  "monteclora_config": "MonteCLoRA is another method",
  "ensure_weight_tying": "the output matrix has the adapter of the table",
}
# Initialisations that leave the base as it is; True, False and None too.
_INITS = ("gaussian", "eva", "orthogonal")
_NUMBER = (int, float)


class Config(NamedTuple):
  """What is needed of a file, in its own words; see the page on LoraConfig of peft."""

  r: int
  lora_alpha: float
  alpha_pattern: dict[str, float]
  lora_dropout: float
  use_rslora: bool
  use_dora: bool
  lora_bias: bool
  bias: str
  target_modules: list[str] | str
  exclude_modules: list[str] | str
  layers_to_transform: list[int]
  layers_pattern: list[str]
  modules_to_save: list[str]
  base: str | None  # what the base was loaded from, a hint

  def alpha(self, path: str) -> float:
    """Of the module at `path`, as its file spells it."""
    for pattern, alpha in self.alpha_pattern.items():
      if re.match(rf"(.*\.)?({pattern})$", path):
        return alpha
    return self.lora_alpha

  def targets(self, path: str) -> bool:
    """Whether the module at `path`, as its file spells it, should be adapted."""
    if _matches(self.exclude_modules, path) or self.saves(path):
      return False
    if not _matches(self.target_modules, path):
      return False
    if isinstance(self.target_modules, str) or path in self.target_modules:
      return True
    return not self.layers_to_transform or self._layer(path) in self.layers_to_transform

  def saves(self, path: str) -> bool:
    """Whether the module at `path`, or one that it is in, should be stored as a whole."""
    parts = path.split(".")
    parents = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(p.endswith(name) for p in parents for name in self.modules_to_save)

  def _layer(self, path: str) -> int | None:
    for pattern in self.layers_pattern or [r"[^.]*"]:
      if match := re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", path):
        return int(match[1])
    return None


def _matches(targets: list[str] | str, path: str) -> bool:
  if isinstance(targets, str):
    return bool(targets) and bool(re.fullmatch(targets, path))
  return any(path == t or path.endswith("." + t) for t in targets)


def read(folder: pathlib.Path) -> Config:
  """The config of an adapter's folder.

  Raises:
    UserError: there is none, it is damaged, of another method than LoRA, or it asks for an option
      that is not supported.
  """
  path = folder / FILE
  if not path.is_file():
    raise errors.UserError(f"{folder} holds no {FILE}; is it the folder of an adapter?")
  try:
    d = json.loads(path.read_text())
    if not isinstance(d, dict):
      raise TypeError("it is no dictionary")
    _refuse(str(path), d)
    return _parse(d)
  except (ValueError, TypeError, re.error, RecursionError) as e:
    raise errors.UserError(f"{path} is damaged ({e}); copy it again") from e


def _refuse(where: str, d: dict):
  kind = d.get("peft_type", "LORA")
  if kind != "LORA":
    raise errors.UserError(f"{where}: an adapter of the kind {kind}; only LORA is read")
  for key, reason in _OTHER.items():
    if d.get(key):
      raise errors.UserError(f"{where}: {key} is {d[key]!r}, which is not supported: {reason}")
  init = d.get("init_lora_weights", True)
  if init not in (True, False, None, *_INITS):
    raise errors.UserError(
      f"{where}: init_lora_weights is {init!r}, which changed the base's weights when training began;"
      " save the adapter with path_initial_model_for_weight_conversion of peft, which makes it one"
      " for the original base"
    )
  if d.get("use_dora") and d.get("lora_bias"):
    raise errors.UserError(f"{where}: use_dora and lora_bias exclude each other")
  for key in sorted(d.keys() - _IDLE - _READ - _OTHER.keys()):
    if d[key]:
      raise errors.UserError(
        f"{where}: {key} is {d[key]!r}, an option that is not known here; if it does not change what"
        " the adapter computes, remove the line"
      )


def _parse(d: dict[str, Any]) -> Config:
  def get(key, kinds, default):
    value = d.get(key, default)
    value = default if value is None else value
    if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
      raise TypeError(f"{key} is {value!r}")
    return value

  def words(key, kinds=(list, str), of=str):
    value = get(key, kinds, [])
    if isinstance(value, list) and not all(type(v) is of for v in value):
      raise TypeError(f"{key} is {value!r}")
    return value

  pattern = get("alpha_pattern", dict, {})
  if not all(isinstance(v, _NUMBER) for v in pattern.values()):
    raise TypeError(f"alpha_pattern is {pattern!r}")
  found = Config(
    r=get("r", int, 8),
    lora_alpha=get("lora_alpha", _NUMBER, 8),
    alpha_pattern=pattern,
    lora_dropout=get("lora_dropout", _NUMBER, 0.0),
    use_rslora=get("use_rslora", bool, False),
    use_dora=get("use_dora", bool, False),
    lora_bias=get("lora_bias", bool, False),
    bias=get("bias", str, "none"),
    target_modules=words("target_modules"),
    exclude_modules=words("exclude_modules"),
    layers_to_transform=_listed(words("layers_to_transform", (list, int), int)),
    layers_pattern=_listed(words("layers_pattern")),
    modules_to_save=_listed(words("modules_to_save")),
    base=get("base_model_name_or_path", str, "") or None,
  )
  if found.bias not in ("none", "all", "lora_only"):
    raise TypeError(f"bias is {found.bias!r}")
  patterns = [*pattern, *found.layers_pattern]
  patterns += [t for t in (found.target_modules, found.exclude_modules) if isinstance(t, str)]
  for text in patterns:
    re.compile(text)
  return found


def _listed(value) -> list:
  return value if isinstance(value, list) else [value] if value != "" else []
