"""Adapters that peft saved: adapter_config.json and adapter_model.safetensors.

Read in every spelling that releases of transformers gave the modules. The tensors say which modules
are adapted and with which rank, the config only what cannot be seen in them. Every tensor must have
its place and every one that the config promises must be there: peft itself drops what it does not
recognise, and the model then answers as if it had not been trained.
"""

import pathlib
import re
from collections.abc import Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy, lora, names, peft_config, shards, source
from paligemma_jax.models import tree, variants

FILE = "adapter_model.safetensors"
ROOT = "base_model.model."  # before every name
_PICKLE = "adapter_model.bin"
_MODULE = re.compile(r"(.*?)\.(lora_.*|base_layer\..*|weight|bias)")
_COPY = ".base_layer.weight"  # peft stores the whole table beside its adapter, unchanged
_HEAD = "lm_head"


class Adapter:
  """An opened adapter: what is in it is known, the numbers are still in the file.

  Attributes:
    path: its folder.
    config: of the model that it is for.
    lora: what is adapted and replaced.
    base: what the base was loaded from, a name or somebody's path; None if it does not say.
    parts: path of a module -> "a", "b", "m", "bias" -> lazy array of that module alone, in our
      layout (without the axes of the stack) and with the rank that it has.
    replaced: our name -> place on its first axes -> lazy array of the new value.
    rows: of the table, as the file has it; None if the table is not adapted.
  """

  def __init__(self, path, config, lora, base, parts, replaced, rows):
    self.path, self.config, self.lora, self.base = str(path), config, lora, base
    self.parts: dict[str, dict[str, lazy.Array]] = parts
    self.replaced: dict[str, dict[tuple[int, ...], lazy.Array]] = replaced
    self.rows: int | None = rows

  def __repr__(self):
    return f"Adapter({self.path!r}, {len(self.parts)} modules, {len(self.replaced)} replaced)"

  @property
  def adapters(self) -> dict[str, tree.Adapter]:
    """Our NAME -> the form of its adapter."""
    return self.lora.adapters(self.config)

  @property
  def trained(self) -> int:
    """How many values it has, with those of padded rows of the table."""
    padded = self.rows - self.config.llm.vocab_size if self.rows else 0
    rank = self.lora.modules[lora.TABLE].rank if padded else 0
    return self.lora.trained(self.config) + rank * padded

  @property
  def dtype(self) -> np.dtype:
    """Of its tensors; float32 when there are several."""
    groups = (*self.parts.values(), *self.replaced.values())
    return _common({x.dtype for group in groups for x in group.values()})

  def arrays(self, dtype: np.dtype | None = lazy.FLOATS["float32"]) -> dict[str, np.ndarray]:
    """The arrays of NAME.lora for every NAME that is adapted, zero where there is padding.

    Args:
      dtype: of all but `scale`, which is float32; None as the file has it.

    Raises:
      UserError: a value is infinite or not a number.
    """
    leaves = tree.formed(self.config, tree.Form({}, self.adapters))
    found = {}
    for name, leaf in leaves.items():
      base, _, kind = name.rpartition(".lora/")
      if base and kind != "scale":
        at = {p: s for p, s in lora.modules(self.config).items() if s.ours == base}
        parts = {s.index: self.parts[p][kind] for p, s in at.items() if p in self.parts}
        found[name] = self._stacked(name, leaf.shape, parts, dtype)
    return found | self.lora.scales(self.config)

  def _stacked(self, name, shape, parts, dtype) -> np.ndarray:
    whole = np.zeros(shape, dtype or _common({x.dtype for x in parts.values()}))
    for place, part in parts.items():
      x = np.asarray(part)
      if not lazy.is_finite(x):
        raise source.non_finite(self.path, f"{name} {list(place)}", None)
      whole[(*place, *(slice(0, n) for n in x.shape))] = x
    return whole


def _common(dtypes: set[np.dtype]) -> np.dtype:
  return dtypes.pop() if len(dtypes) == 1 else lazy.FLOATS["float32"]


def check_changes_something(adapter: Adapter):
  """Raises a UserError for an adapter that leaves the model as it is: one that was never trained.

  The factors are read for it, up to the first that are not zero.
  """
  is_zero = lambda x: not np.any(np.asarray(x))
  idle = (
    (is_zero(parts["a"]) or is_zero(parts["b"])) and is_zero(parts.get("bias", 0))
    for parts in adapter.parts.values()
  )
  if not adapter.replaced and all(idle):
    raise errors.UserError(
      f"{adapter.path} changes nothing: in each of its {len(adapter.parts)} modules A or B is zero; it"
      " was saved before training, or its training did not reach it"
    )


def open(folder: str | pathlib.Path, config: variants.ModelConfig) -> Adapter:
  """Opens the folder of an adapter; its numbers are not read.

  Args:
    folder: with adapter_config.json and adapter_model.safetensors.
    config: of the model that it is for.

  Raises:
    UserError: there is no adapter, it is damaged, of another method, uses an option that is not
      supported, is for a model of other sizes, or tensors are missing or have no place.
  """
  folder = pathlib.Path(folder)
  settings = peft_config.read(folder)
  found, spelled = _normalised(_tensors(folder), str(folder))
  opaque = {spelled[n]: x.code for n, x in found.items() if isinstance(x, lazy.Opaque)}
  source.refuse_dtypes(str(folder), opaque)
  _refuse_tables(found, spelled, settings, str(folder))
  layout = _layout(found, spelled, config, settings)
  wanted = _wanted(found, layout, config)
  if settings.bias != "none" and not any(name.endswith(".bias") for name in found):
    advice = (
      f'Older releases of peft lose biases; "bias": "none" in {peft_config.FILE} does without'
    )
  else:
    advice = f"It should be an adapter of modules of {config.name}; its base was {settings.base}"
  source.compare(
    str(folder),
    {spelled[n]: x.shape for n, x in found.items()},
    {spelled.get(n, n): shape for n, shape in wanted.items()},
    advice,
  )
  return _assembled(str(folder), found, layout, config, settings.base)


def _tensors(folder: pathlib.Path) -> dict[str, lazy.Array]:
  if (folder / FILE).is_file():
    return shards.read(folder / FILE)
  if (folder / _PICKLE).is_file():
    raise errors.UserError(
      f"{folder / _PICKLE} is not read, since a pickle can run any code: load the adapter with peft"
      " and save it again with safe_serialization=True"
    )
  raise errors.UserError(f"{folder} has no {FILE}; was it copied in part?")


def _normalised(tensors: Mapping[str, lazy.Array], where: str):
  """Returns (canonical name -> tensor, canonical name -> name in the file)."""
  found, spelled = {}, {}
  plain_names = names.unwrapped(tensors)
  for name, x in tensors.items():
    plain = names.canonical(plain_names[name]).replace(".base_layer.bias", ".bias")
    if plain in found:
      raise errors.UserError(
        f"{where}: {name} and {spelled[plain]} are two spellings of one tensor"
      )
    found[plain], spelled[plain] = x, name
  if not found:
    raise errors.UserError(f"{where}: {FILE} holds no tensors; was it saved from one rank of many?")
  return found, spelled


def _module(name: str) -> str:
  """Path of the module that a tensor belongs to."""
  match = _MODULE.fullmatch(name.removeprefix(ROOT))
  return match[1] if match else name


def _refuse_tables(found, spelled, settings: peft_config.Config, where: str):
  """The table is the output matrix as well: what would part them cannot be had."""
  for name in found:
    path = _module(name)
    if path in (_HEAD, lora.TABLE) and not name.endswith(_COPY):
      if ".lora_" not in name:
        said = "is a table of its own, but PaliGemma has one for input and output; peft parted them"
      elif path == _HEAD:
        said = "adapts the output matrix, which is the table: its input would change as well"
      elif settings.use_dora or settings.lora_bias:
        said = "adapts the table with DoRA or a bias, which is not supported"
      else:
        continue
      raise errors.UserError(
        f"{where}: {spelled[name]} {said}. Train the adapter without this module"
      )


def _layout(
  found, spelled, config: variants.ModelConfig, settings: peft_config.Config
) -> lora.Lora:
  """What is adapted and replaced, or should be according to the config."""
  prefixes = {}  # part of the model -> what its paths begin with in this file
  for name in found:
    tower, _, tail = _module(name).partition(".")
    prefixes.setdefault(tower, _module(spelled[name]).removesuffix(tail))

  def path_in_file(path):
    tower, _, tail = path.partition(".")
    return prefixes.get(tower, tower + ".") + tail

  ranks = {}
  for path in lora.modules(config):
    has = any(f"{path}.{end}" in found for end in (*lora.ENDS.values(), *lora.TABLE_ENDS.values()))
    if has or path.split(".")[0] in prefixes and settings.targets(path_in_file(path)):
      ranks[path] = _rank(found, path) or settings.r
  replaced = []
  for name in lora.slots(config):
    path = _module(name)
    is_bias = settings.bias == "all" or settings.bias == "lora_only" and path in ranks
    asked = name.endswith(".bias") and is_bias or settings.saves(path_in_file(path))
    if name in found or asked:
      replaced.append(name)
  return lora.Lora(
    {path: lora.Size(rank, settings.alpha(path_in_file(path))) for path, rank in ranks.items()},
    settings.use_rslora,
    settings.use_dora,
    settings.lora_bias,
    float(settings.lora_dropout),
    tuple(replaced),
  )


def _rank(found, path: str) -> int:
  ends = lora.TABLE_ENDS if path == lora.TABLE else lora.ENDS
  x = found.get(f"{path}.{ends['a']}")
  return x.shape[0] if x is not None and len(x.shape) > 1 else 0


def _wanted(found, layout: lora.Lora, config) -> dict[str, tuple[int, ...]]:
  """Canonical name -> shape of every tensor that the file should have."""
  wanted = {name: lora.slots(config)[name].shape for name in layout.replaced}
  for path, size in layout.modules.items():
    parts = lora.tensors(lora.modules(config)[path], size.rank)
    wanted |= {parts[k].theirs: parts[k].shape for k in layout.kinds if k in parts}
  if lora.TABLE in layout.modules:
    rows, name = config.llm.vocab_size, f"{lora.TABLE}.{lora.TABLE_ENDS['a']}"
    shape = found[name].shape if name in found else ()
    if len(shape) == 2 and shape[1] > rows:  # padded, as the tables of the Hub are
      rows, wanted[name] = shape[1], shape
    copies = [p + _COPY for p in (lora.TABLE, _HEAD) if p + _COPY in found]
    wanted |= {name: (rows, config.llm.width) for name in copies}
  return wanted


def _assembled(where: str, found, layout: lora.Lora, config, base) -> Adapter:
  parts, replaced, rows = {}, {}, None
  for path, size in layout.modules.items():
    slots = lora.tensors(lora.modules(config)[path], size.rank)
    tensors = {kind: found[slots[kind].theirs] for kind in layout.kinds}
    if path == lora.TABLE:
      rows = tensors["a"].shape[1]
      tensors["a"] = lazy.Part(tensors["a"], (slice(None), slice(0, config.llm.vocab_size)))
    parts[path] = {
      kind: lazy.computable(names.from_theirs(slots[kind], x)) for kind, x in tensors.items()
    }
  for name in layout.replaced:
    slot = lora.slots(config)[name]
    x = lazy.computable(names.from_theirs(slot, found[name]))
    replaced.setdefault(slot.ours, {})[slot.index] = x
  return Adapter(where, config, layout, base, parts, replaced, rows)
