"""From the config to the parts of a run: devices, model, processor, parameters."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from paligemma_jax import cache, errors, sharding, vlm
from paligemma_jax.checkpoint import adapted, formats, lora
from paligemma_jax.configs import meshes
from paligemma_jax.models import paligemma, tree, variants
from paligemma_jax.processing import processor as processors
from paligemma_jax.train import adapters, recipes, settings, step, vocabulary
from paligemma_jax.train import optimizer as optimizers


@dataclasses.dataclass
class Inputs:
  """What a run starts from: opened, nothing computed, no device touched."""

  source: Any  # the opened checkpoint to start from or to go on with; None: random parameters
  config: variants.ModelConfig
  processor: processors.Processor
  codec: dict | None  # parameters of the mask codec
  layout: lora.Lora | None = None  # the adapters that train beside the model
  quant: Mapping[str, tree.Quant] = dataclasses.field(default_factory=dict)  # weights in few bits

  @property
  def leaves(self) -> dict[str, tree.Leaf]:
    """Every array of the parameters."""
    adapters = self.layout.adapters(self.config) if self.layout else {}
    return tree.formed(self.config, tree.Form(self.quant, adapters))

  @property
  def replaced(self) -> list[str]:
    """Names of parameters of which an adapter that goes on has new values: they train with it."""
    if self.layout is None:
      return []
    return sorted({lora.slots(self.config)[name].ours for name in self.layout.replaced})


@dataclasses.dataclass(kw_only=True)
class Parts(Inputs):
  """What a run is made of, before there are parameters."""

  mesh: Mesh
  rules: sharding.Rules
  model: paligemma.PaliGemma


def _build_digits():
  from paligemma_jax.train import embedded  # scikit-learn, an extra

  embedded.prepare()


def _build_samples(tasks):
  from paligemma_jax.train import samples  # TFDS, which takes a while to load

  samples.prepare(tasks.split("+"))


# Names for the config's `build`; what stands behind a colon is passed on.
BUILDS = {"digits": _build_digits, "sample": _build_samples}


def use_compilation_cache() -> None:
  """Keeps compiled programs in the user's cache, unless JAX was told another place."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(cache.directory("jit")))


def build(name: str) -> None:
  """Makes the data that a config's `build` names, "digits" or "sample:TASK+TASK", once; "" is none.

  Raises:
    UserError: the name is unknown.
  """
  kind, *rest = name.split(":", 1)
  if name and kind not in BUILDS:
    raise errors.UserError(f'build: "{name}" is unknown{errors.did_you_mean(kind, BUILDS)}')
  if name:
    BUILDS[kind](*rest)


def flat(tree: dict) -> dict[str, Any]:
  """Nested parameters -> slash-joined name -> leaf."""
  return sharding.flatten(tree)


def make_mesh(
  name: str,
  batch_size: int | None = None,
  devices: Sequence[jax.Device] | None = None,
  accumulate: int = 1,
) -> tuple[Mesh, sharding.Rules]:
  """Returns the mesh and rules of a name in configs/meshes.py.

  Args:
    name: as `meshes.get` takes it.
    batch_size: examples a step, over all devices; None: of any size, it will be filled up.
    devices: to lay it over; None: all of this run.
    accumulate: pieces that a batch is cut into; each is shared by all devices.

  Raises:
    UserError: no such mesh, the devices cannot be laid out so, a process has none of them, or the
      batch does not divide over those that share it.
  """
  try:
    layout = meshes.get(name)
  except (KeyError, ValueError):
    hint = errors.did_you_mean(name, meshes.MESHES)
    raise errors.UserError(f'mesh: "{name}" is unknown{hint}') from None
  if name == "single" and devices is None and jax.process_count() > 1:
    raise errors.UserError(
      f'mesh: "single" is one device, but {jax.process_count()} processes were started;'
      " start one, or choose another mesh, e.g. fsdp"
    )
  devices = list(jax.devices() if devices is None else devices)
  if name == "single":
    devices = devices[:1]
  mesh, rules = sharding.make_mesh(layout["axes"], devices), layout["rules"]
  if batch_size is not None:
    check_divides(batch_size, sharding.batch_ways(mesh, rules), accumulate)
  return mesh, rules


def check_shares(leaves: Mapping[str, tree.Leaf], mesh: Mesh, rules: sharding.Rules) -> list[str]:
  """How the parameters of a model are shared by the devices of a mesh: a line for each way to be
  split; [] for one device.

  Raises:
    UserError: a parameter cannot be split as the mesh asks; see `sharding.audit`.
  """
  groups: dict[tuple[str, ...], list[sharding.Placed]] = {}
  for placed in sharding.audit(leaves, mesh, rules):
    used = [(entry,) if isinstance(entry, str) else entry or () for entry in placed.spec]
    axes = tuple(axis for axis in mesh.axis_names if axis in sum(used, ()))
    groups.setdefault(axes, []).append(placed)
  lines = []
  for axes, group in sorted(groups.items(), key=lambda item: -len(item[0])):
    how = " and ".join(f"{axis} {mesh.shape[axis]}" for axis in axes)
    how = f"split over {how}" if axes else "whole on every device"
    millions = sum(math.prod(placed.leaf.shape) for placed in group) / 1e6
    here = sum(math.prod(placed.leaf.shape) / placed.ways for placed in group) / 1e6
    lines.append(
      f"parameters {how}: {len(group)} tensors, {millions:,.1f} M values, {here:,.1f} M each"
    )
  return lines if mesh.size > 1 else []


def check_divides(batch_size: int, devices: int, accumulate: int = 1) -> None:
  """Raises a UserError with the nearest sizes that divide, if `batch_size` does not."""
  unit = devices * accumulate
  if batch_size % unit:
    below = batch_size // unit * unit
    nearest = ", ".join(str(n) for n in (below, below + unit) if n)
    pieces = f" in {accumulate} pieces (train.accumulate)" if accumulate > 1 else ""
    raise errors.UserError(
      f"batch_size {batch_size} is not divisible by {devices} devices{pieces};"
      f" the nearest that {'are' if below else 'is'}: {nearest}"
    )


def open_inputs(
  c: ml_collections.ConfigDict, resumed: str | os.PathLike | None = None, train: bool = True
) -> Inputs:
  """Opens what the run starts from; starts no JAX backend.

  Args:
    c: the checked config.
    resumed: the checkpoint of this run to go on with. Model, tokenizer and preprocessing are then
      its own, whatever became of the files that the run started from.
    train: whether it is to be trained with, and not only evaluated.

  Raises:
    UserError: no such checkpoint, one of another variant, no tokenizer or one that does not fit.
  """
  start = resumed or c.model.init
  source = formats.open(start) if start else None
  if c.model.adapter and not resumed:
    source = _with_adapter(source, c.model)
  config = source.config if resumed else model_config(c.model, source)
  tokenizer = None if resumed else _tokenizer(c, source, config)
  processor = vlm.make_processor(
    source, config, tokenizer, c.input.resize or None, c.input.alpha or None
  )
  processor = dataclasses.replace(processor, text_len=c.input.text_len)
  check_vocabulary(processor, config)
  codec = vlm.find_codec(source, None if resumed else c.input.codec)
  if train:
    source, layout, quant = forms(c, source, config)
  else:
    layout = source.adapter.lora if source is not None and source.adapter is not None else None
    quant = adapted.forms(source, config, c.model.quant)
  return Inputs(source, config, processor, codec, layout, quant)


def _with_adapter(source: Any, m: ml_collections.ConfigDict) -> Any:
  if source is None or source.config is None:
    raise errors.UserError(
      f"model.adapter {m.adapter} needs the whole model that it was trained on; name it with model.init"
    )
  return adapted.with_adapter(source, m.adapter, fresh=True)


def forms(
  c: ml_collections.ConfigDict, source: Any, config: variants.ModelConfig
) -> tuple[Any, lora.Lora | None, dict[str, tree.Quant]]:
  """(what to load, the adapters that train, the weights that are in few bits).

  A recipe with adapters goes on with those of the checkpoint, if it has any; any other trains the model
  with them merged.
  """
  recipe = recipes.RECIPES[c.train.recipe]
  if not recipe.has_adapters:
    if source is not None and source.adapter is not None:
      source = adapted.merged(source, np.dtype("float32"))
    return source, None, adapted.forms(source, config, c.model.quant) if c.model.quant else {}
  quant = adapted.forms(source, config, c.model.quant)
  if recipe.quant and not (quant or c.model.quant):
    quant = tree.parse_quant(recipe.quant, config)
  if source is not None and source.adapter is not None:
    for name, places in source.adapter.replaced.items():
      if math.prod(tree.plain(config)[name].shape[: len(next(iter(places)))]) != len(places):
        raise errors.UserError(
          f"{source.adapter.path} has new values of some layers of {name} alone; such a one can be used, but"
          " not trained on. Choose recipe full, which begins with it merged"
        )
    return source, source.adapter.lora, quant
  return source, adapters.layout(c.train.lora.to_dict(), config), quant


def _tokenizer(c: ml_collections.ConfigDict, source: Any, config: variants.ModelConfig):
  """The tokenizer that the config names, file, folder or learnt; None: the checkpoint's own."""
  is_whole = source is not None and source.config is not None
  if c.input.tokenizer == vocabulary.TRAINED:  # the parameters of a whole model know their own
    return None if is_whole else vocabulary.train(c.train.data.to_dict(), config.llm.vocab_size)
  if source is None and not (c.input.tokenizer or os.environ.get(processors.ENVIRONMENT)):
    raise errors.UserError(
      "input.tokenizer is empty, and a model of random parameters has none: give"
      f" --config.input.tokenizer={vocabulary.TRAINED}, to learn one from train.data, or =FILE"
    )
  return c.input.tokenizer or None


def prepare(
  c: ml_collections.ConfigDict, inputs: Inputs, devices: Sequence[jax.Device] | None = None
) -> Parts:
  """Adds devices (None: all of this run) and model, but no parameters.

  Raises:
    UserError: as `make_mesh`, or a parameter cannot be split as the mesh asks.
  """
  mesh, rules = make_mesh(c.mesh, c.train.batch_size, devices, c.train.accumulate)
  check_shares(inputs.leaves, mesh, rules)
  dtype = c.model.dtype or vlm.default_dtype(mesh.devices.flat[0].platform)
  drop = inputs.layout.dropout if inputs.layout else 0.0
  model = paligemma.PaliGemma(
    inputs.config, dtype, c.model.remat, c.model.dropout, rules, c.model.remat_img, drop
  )
  return Parts(**vars(inputs), mesh=mesh, rules=rules, model=model)


def jit_step(
  parts: Parts,
  optimizer: optimizers.Optimizer,
  shardings: step.TrainState,
  **options: Any,
) -> Callable:
  """The training step, compiled when first called: the one place of shardings and donation.

  Args:
    parts: the model and its mesh.
    optimizer: what trains, and how.
    shardings: of the state.
    **options: of `step.make_train_step`, as `step_options` gives them.
  """
  return jax.jit(
    step.make_train_step(parts.model, optimizer, **options),
    in_shardings=(shardings, None),  # the batch lies as `sharding.put_batch` laid it
    out_shardings=(shardings, None),
    donate_argnums=0,
  )


def step_options(c: ml_collections.ConfigDict) -> dict[str, Any]:
  """What the config says of the training step."""
  keys = ("mean_over", "label_smoothing", "accumulate")
  return {key: c.train[key] for key in keys}


def check_vocabulary(processor: processors.Processor, config: variants.ModelConfig) -> None:
  """Raises a UserError when there is no tokenizer, or one with more tokens than the table."""
  processor.need_tokenizer().check_rows(config.llm.vocab_size)


def checkpoint_meta(c: ml_collections.ConfigDict, parts: Parts, done: int) -> dict[str, Any]:
  """What is stored beside the state: the model's config, the step (which is also the position in
  the data) and the run's config.
  """
  meta = {"model": parts.model.config.to_dict(), "step": done, "run": settings.plain(c)}
  if parts.layout is not None:
    own = parts.source.quantised or not parts.quant  # the base has its form of itself
    quant = c.model.quant or ("" if own else recipes.RECIPES[c.train.recipe].quant)
    meta["adapter"] = adapted.meta(parts.source, parts.layout, quant)
  return meta


def model_config(m: ml_collections.ConfigDict, source: Any = None) -> variants.ModelConfig:
  """The dimensions and settings of the model that `c.model` asks for.

  Args:
    m: the config's `model`.
    source: the opened `m.init`, or None. Its own dimensions count; `m.preset` is checked.
  """
  settings = {name: value for name, value in m.settings.items() if value is not None}
  found = source.config if source is not None else None
  if found is None:
    if not m.preset:
      raise errors.UserError(
        f"{m.init} holds a part of a model; name the whole with --config.model.preset=…"
        f"; known: {', '.join(variants.PRESETS)}"
      )
    return variants.preset(m.preset, res=m.res or None, **settings)
  size = found.name.rsplit("-", 1)[0]
  if m.preset and size != m.preset:
    raise errors.UserError(
      f"model.init {m.init} holds {size}, the config asks for {m.preset};"
      ' leave model.preset "" or choose another checkpoint'
    )
  return found.replace(res=m.res or None, **settings)
