"""What a run needs, before it is paid for: its programs, compiled ahead of time from shapes alone.

The real training step and decode loop, with their shardings and donation, are compiled for TPUs
that are not there (libtpu compiles on any machine) or for simulated CPU devices. No weights, data
or tokenizer are opened. Memory and collectives are the compiler's; FLOPs are the dimensions'
(`models/flops.py`), as the compiler counts the body of a scan once; the time is what the chip's
data sheet allows at least (`chips.roofline`), weights in few bits read as they are stored.
"""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import formats
from paligemma_jax.decode import generate as decoding
from paligemma_jax.decode import samplers
from paligemma_jax.evals import perplexity
from paligemma_jax.metrics import METRICS
from paligemma_jax.models import flops, tree, variants
from paligemma_jax.structs import Batch
from paligemma_jax.train import chips, hlo, initial, loop, memory, saved, settings, setup, targets
from paligemma_jax.train import optimizer as optimizers

_STEPS = 10**6  # of a training whose data are not opened; no figure depends on it


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device.

  Gradients are a part of `temporaries` that is known from shapes. Where the compiler refuses a
  program as too large, `peak` is what it asks for.
  """

  params: int
  optimizer: int  # its state, and the moving average; in an evaluation it waits
  gradients: int
  batch: int
  program: int
  peak: int
  limit: float
  is_refused: bool = False

  @property
  def temporaries(self) -> int:
    """Activations, gradients, gathered weights: what is there besides the kinds above."""
    return max(self.peak - self.params - self.optimizer - self.batch - self.program, 0)

  @property
  def fits(self) -> bool:
    """Whether the device can run it."""
    return not self.is_refused and self.peak <= self.limit


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program and its figures; everything is for one run of it over the whole batch."""

  name: str  # "training step" or "evals.NAME"
  batch_size: int
  memory: Memory
  model_flops: int  # what has to be computed, over all devices
  hardware_flops: int  # and what is computed twice to save memory
  collectives: tuple[hlo.Collective, ...]
  roofline: chips.Roofline | None  # None where the chip's limits are not known
  compile_seconds: float

  def mfu(self, chip: chips.Chip, devices: int) -> float:
    """The model FLOPs utilisation that the roofline allows at most, 0..1."""
    return self.model_flops / (devices * chip.flops * self.roofline.seconds)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run, before there are parameters."""

  target: targets.Target
  config: ml_collections.ConfigDict  # checked
  parts: setup.Parts
  optimizer: optimizers.Optimizer


def make(config: Mapping[str, Any], target: targets.Target) -> Plan:
  """Checks the config and lays the run out over the target's devices.

  The model is that of `model.preset` and `model.res`, or the one in `model.init` when that file is
  here.

  Raises:
    UserError: the config is wrong, or nothing says which model it is.
  """
  c = settings.check(config)
  source = _source(c.model)
  model = setup.model_config(c.model, source)
  source, layout, quant = setup.forms(c, source, model)
  inputs = setup.Inputs(source, model, None, None, layout, quant)
  parts = setup.prepare(c, inputs, target.devices)
  total = c.train.steps or _STEPS
  examples = total * c.train.batch_size
  optimizer = loop.make_optimizer(c, parts.leaves, total, examples, parts.replaced)
  return Plan(target, c, parts, optimizer)


def _source(m: ml_collections.ConfigDict) -> Any:
  """The opened `model.init`, or None where it is not on this machine and not needed."""
  if m.init and pathlib.Path(re.sub(r"(?<=\.npz):\w+$", "", m.init)).exists():
    return formats.open(m.init)
  if not m.preset:
    found = (
      f"model.init {m.init} is not here" if m.init else "model.init and model.preset are empty"
    )
    raise errors.UserError(
      f"{found}; name the model with --config.model.preset=…; known: {', '.join(variants.PRESETS)}"
    )
  return None


def train_step(plan: Plan) -> Program:
  """Compiles the training step at its longest: text of `input.text_len`, all of it supervised."""
  c, parts = plan.config, plan.parts
  abstract, shardings = initial.abstract_state(c, parts, plan.optimizer)
  batch = abstract_batch(plan, c.train.batch_size, c.input.text_len + 1)

  def lower():
    step = setup.jit_step(parts, plan.optimizer, shardings, **setup.step_options(c))
    return step.lower(saved.with_shardings(abstract, shardings), batch)

  work = train_work(plan)
  model_flops = sum(p.flops * (n.forward + n.backward) for p, n in work)
  known = state_bytes(plan)
  return _program(
    plan,
    "training step",
    lower,
    c.train.batch_size,
    [(p, sum(n)) for p, n in work],
    model_flops,
    known | {"batch": local_bytes(batch)},
    updated=updated_bytes(known),
    pieces=c.train.accumulate,
  )


def train_work(plan: Plan) -> list[tuple[flops.Product, flops.Passes]]:
  """The products of one example, and how often the training step does each."""
  model = plan.parts.model
  products = _adapted(plan, flops.forward(model.config, plan.config.input.text_len))
  trained = plan.optimizer.trainable
  kernel = plan.target.devices[0].platform == "tpu" and model.dtype == "bfloat16"
  counts = flops.passes(
    model.config, products, trained, model.remat, model.remat_img, kernel, plan.parts.quant
  )
  return list(zip(products, counts, strict=True))


def _adapted(plan: Plan, products: list[flops.Product]) -> list[flops.Product]:
  layout = plan.parts.layout
  return flops.adapted(products, layout.adapters(plan.parts.config)) if layout else products


def updated_bytes(known: Mapping[str, int]) -> int:
  """What the optimizer reads and writes on one device: gradients, parameters and its state, both."""
  return 2 * (2 * known["gradients"] + known["optimizer"])


def evaluations(plan: Plan) -> list[Program]:
  """Compiles what the config's evaluations run, while the optimizer's state waits beside it.

  Evaluations that run the same program are one, "evals.ONE, ANOTHER".
  """
  same: dict[tuple, list[str]] = {}
  for name, e in plan.config.evals.items():
    key = (_is_likelihood(e), e.batch_size, e.max_new_tokens, e.sampler)
    same.setdefault(key, []).append(name)
  return [
    _evaluation(plan, "evals." + ", ".join(names), plan.config.evals[names[0]])
    for names in same.values()
  ]


def _is_likelihood(e: Mapping[str, Any]) -> bool:
  """Whether an evaluation measures the true suffixes, and generates nothing."""
  return e.metric == "perplexity" or e.metric is METRICS["perplexity"]


def _evaluation(plan: Plan, name: str, e: Mapping[str, Any]) -> Program:
  c, parts = plan.config, plan.parts
  model, text_len = parts.model, c.input.text_len
  abstract, shardings = initial.abstract_state(c, parts, plan.optimizer)
  params = saved.with_shardings(abstract.params, shardings.params)
  batch_size = sharding.whole_batch(e.batch_size, parts.mesh, parts.rules)  # as the runner does
  batch = abstract_batch(plan, batch_size, text_len + _is_likelihood(e))
  if _is_likelihood(e):
    lower = lambda: perplexity.nll_terms.lower(model, params, batch)
    work = [(p, 1) for p in _adapted(plan, flops.forward(model.config, text_len))]
  else:
    new = e.max_new_tokens
    lower = lambda: decoding.lower(model, params, batch, max_new_tokens=new, sampler=e.sampler)
    work = [(p, 1) for p in _adapted(plan, flops.forward(model.config, text_len, supervised=1))]
    context, sequences = model.config.img.num_tokens + text_len + new, samplers.parse(e.sampler).n
    products = _adapted(plan, flops.decode_products(model.config, context, sequences))
    work += [(p, new - 1) for p in products]
  known = state_bytes(plan) | {"gradients": 0, "batch": local_bytes(batch)}
  operations = sum(p.flops * n for p, n in work)
  # The loop ends with the last answer; at most it turns so often.
  return _program(
    plan, name, lower, batch_size, work, operations, known, turns=max(e.max_new_tokens - 1, 1)
  )


def _program(
  plan: Plan,
  name: str,
  lower: Callable[[], Any],
  batch_size: int,
  work: list[tuple[flops.Product, int]],
  model_flops: int,
  known: dict[str, int],
  updated: int = 0,
  pieces: int = 1,
  turns: int = 1,
) -> Program:
  """Compiles `lower()` and puts its figures together; FLOPs and `work` are of one example."""
  target, parts = plan.target, plan.parts
  devices = parts.mesh.devices.size
  waits = 0 if updated else known["optimizer"]
  start = time.monotonic()
  try:
    with jax.set_mesh(parts.mesh):
      compiled = lower().compile()
  except jax.errors.JaxRuntimeError as e:
    found = memory.needed(e) if memory.is_exhausted(e) else None
    if found is None:
      raise
    used = Memory(**known, program=0, peak=int(found[0]) + waits, limit=found[1], is_refused=True)
    collectives = ()
  else:
    program, peak = _compiled_bytes(compiled, target.devices[0].platform)
    used = Memory(**known, program=program, peak=peak + program + waits, limit=target.memory)
    collectives = tuple(hlo.collectives(compiled.as_text(), devices, turns))
  seconds = time.monotonic() - start
  roofline = None
  if target.chip is not None:
    roofline = chips.roofline(
      target.chip,
      work,
      batch_size=batch_size,
      pieces=pieces,
      updated=updated,
      sent=hlo.total_bytes(collectives),
      **layout(parts),
    )
  return Program(
    name,
    batch_size,
    used,
    batch_size * model_flops,
    batch_size * sum(p.flops * n for p, n in work),
    collectives,
    roofline,
    seconds,
  )


def layout(parts: setup.Parts) -> dict[str, Any]:
  """The arguments of `chips.roofline` that say how a product is shared and its weights are stored."""
  plain = tree.plain(parts.config)
  return {
    "devices": parts.mesh.devices.size,
    "tensor": parts.mesh.shape.get("tensor", 1),
    "itemsize": jnp.dtype(parts.model.dtype).itemsize,
    "stored": {name: _bytes_of_value(plain[name], q) for name, q in parts.quant.items()},
  }


def _bytes_of_value(leaf: tree.Leaf, quant: tree.Quant) -> float:
  """Of a weight in few bits, its scales included."""
  arrays = tree.quantised(leaf, quant).values()
  size = sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in arrays)
  return size / math.prod(leaf.shape)


def _compiled_bytes(compiled: Any, platform: str) -> tuple[int, int]:
  """(the program's own bytes, all others at the peak) on one device."""
  m = compiled.memory_analysis()
  peak = m.peak_memory_in_bytes
  if platform == "cpu":  # whose compiler leaves the temporaries, one buffer, out of its peak
    peak = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    peak += m.temp_size_in_bytes
  return m.generated_code_size_in_bytes, peak


def abstract_batch(plan: Plan, batch_size: int, columns: int) -> Batch:
  """A batch of shapes as `sharding.put_batch` lays it: one picture, `columns` text tokens."""
  parts = plan.parts
  where = sharding.batch_sharding(parts.mesh, parts.rules, batch_size)
  res = parts.model.config.img.res

  def rows(dtype, *shape):
    return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=where)

  return Batch(
    image=rows(jnp.uint8, res, res, 3),
    mask_image=rows(bool, 1),
    text=rows(jnp.int32, columns),
    mask_ar=rows(jnp.int32, columns),
    mask_input=rows(bool, columns),
    mask_loss=rows(jnp.float32, columns),
    valid=rows(bool),
  )


def state_bytes(plan: Plan) -> dict[str, int]:
  """Bytes per device of "params", "optimizer" and "gradients", by shapes and shardings."""
  abstract, shardings = initial.abstract_state(plan.config, plan.parts, plan.optimizer)
  state = saved.with_shardings(abstract, shardings)
  params = sharding.flatten(state.params)
  trained = {name: params[name] for name in plan.optimizer.trainable}
  kept = (state.opt_state, state.ema)
  sizes = (local_bytes(tree) for tree in (params, kept, trained))
  return dict(zip(("params", "optimizer", "gradients"), sizes, strict=True))


def local_bytes(tree: Any) -> int:
  """Bytes that one device holds of a tree of ShapeDtypeStructs with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )
