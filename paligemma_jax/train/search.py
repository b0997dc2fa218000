"""The fastest settings that fit: batch, remat, mesh and precision of a short list, best first.

Every setting has two figures that cost nothing: a least number of bytes, by which those that cannot
fit are left out, and a bound on its speed. The one with the best bound is compiled first, then the
next, until no bound is `GAIN` better than the fastest that fits. So few are compiled, and what is
found is the fastest of the list, to that margin and under the model of time of `chips.roofline`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from paligemma_jax import errors
from paligemma_jax.train import chips, targets
from paligemma_jax.train import plan as plans

BATCHES = (0.25, 0.5, 1, 2, 4)  # times the config's
REMAT = ("none", "dots_with_no_batch_dims_saveable", "nothing_saveable")
MESHES = ("data", "fsdp", "fsdp_tensor", "fsdp_tensor:4")
DTYPE = "bfloat16"  # of products and of Adam's first moment, where the config has another
GAIN = 1.05  # less is not worth a compilation, and settings this close count as equal
MOST = 12  # settings that are compiled


@dataclasses.dataclass(frozen=True)
class Trial:
  """One setting."""

  overrides: dict[str, Any]  # dotted key -> value, where it differs from the config
  plan: plans.Plan
  bound: float  # examples per second that the chip allows at most
  program: plans.Program | None = None  # None: not compiled

  @property
  def rate(self) -> float:
    """Examples per second at most, with what the program sends; 0 where it does not fit."""
    p = self.program
    return p.batch_size / p.roofline.seconds if p is not None and p.memory.fits else 0.0


def run(
  config: Mapping[str, Any] | ml_collections.ConfigDict,
  target: targets.Target,
  say: Callable[[str], None] = lambda line: None,
) -> list[Trial]:
  """Compiles the settings that have a chance.

  Args:
    config: as `plan.make` takes it.
    target: devices whose limits are known.
    say: is told what happens.

  Returns:
    Those that were compiled, the fastest first.

  Raises:
    UserError: the config is wrong.
  """
  every = [Trial(overrides, plan, bound(plan)) for overrides, plan in settings(config, target)]
  trials = [t for t in every if least_bytes(t.plan) <= target.memory]
  say(f"{len(trials)} of {len(every)} settings may fit; compiling the most promising first")
  trials.sort(key=lambda t: (-round(math.log(t.bound, GAIN)), len(t.overrides)))
  done: list[Trial] = []
  for trial in trials:
    best = max((t.rate for t in done), default=0.0)
    if trial.bound <= best * GAIN or len(done) == MOST:
      break
    if any(_is_smaller(t.plan, trial.plan) for t in done if not t.rate):
      continue
    trial = dataclasses.replace(trial, program=plans.train_step(trial.plan))
    done.append(trial)
    words = f"at most {trial.rate:,.0f} examples/s" if trial.rate else "does not fit"
    say(f"{flags(trial.overrides) or 'the config itself'}: {words}")
  return sorted(done, key=lambda t: (-t.rate, t.program.memory.peak))


def flags(overrides: Mapping[str, Any]) -> str:
  """The overrides as arguments of the command line."""
  return " ".join(f"--config.{key}={value}" for key, value in overrides.items())


def settings(config, target: targets.Target) -> Iterator[tuple[dict[str, Any], plans.Plan]]:
  """(what differs from the config, the plan) of every setting of the list that is possible."""
  given = ml_collections.ConfigDict(config)
  own = plans.make(config, target)
  c = own.config
  values = {
    "train.batch_size": (c.train.batch_size, *(int(c.train.batch_size * n) for n in BATCHES)),
    "model.remat": (c.model.remat, *REMAT),
    "mesh": (c.mesh, *MESHES),
    "model.dtype": (c.model.dtype, *([DTYPE] if own.parts.model.dtype != DTYPE else [])),
    "train.mu_dtype": (c.train.mu_dtype, *([DTYPE] if c.train.optimizer == "adam" else [])),
  }
  for chosen in itertools.product(*(dict.fromkeys(v) for v in values.values())):
    overrides = {k: x for (k, v), x in zip(values.items(), chosen) if x != v[0]}
    changed = given.copy_and_resolve_references().unlock()
    changed.update_from_flattened_dict(overrides)
    try:
      yield overrides, plans.make(changed, target)
    except errors.UserError:
      continue  # the batch or the devices do not divide


def bound(plan: plans.Plan) -> float:
  """Examples per second at most, whatever the compiler does."""
  c, mesh = plan.config.train, plan.parts.mesh
  known, shared = plans.state_bytes(plan), plans.layout(plan.parts)
  # Over "fsdp" every weight is gathered for both directions and its gradient reduced; over "data"
  # the gradient is reduced and gathered.
  here = shared["itemsize"] * known["gradients"] / 4
  sent = 3 * here * (mesh.shape["fsdp"] - 1) + 2 * here * (1 - 1 / mesh.shape["data"])
  r = chips.roofline(
    plan.target.chip,
    [(p, sum(n)) for p, n in plans.train_work(plan)],
    batch_size=c.batch_size,
    pieces=c.accumulate,
    updated=plans.updated_bytes(known),
    sent=sent,
    **shared,
  )
  return c.batch_size / r.seconds


def least_bytes(plan: plans.Plan) -> float:
  """Bytes of a device that the step cannot do without: its state, gradients, what remat keeps.

  Kept for the backward pass are the residual stream between layers, float32, and, in the compute
  dtype, the results of those products that it does not repeat.
  """
  config, c = plan.parts.model.config, plan.config
  tokens = config.img.num_tokens + c.input.text_len
  kept = 4 * config.img.depth * config.img.num_tokens * config.img.width
  kept += 4 * config.llm.depth * tokens * config.llm.width
  shared = plans.layout(plan.parts)
  for p, n in plans.train_work(plan):
    if p.name.startswith(("img/Transformer", "llm/layers")) and n.backward and not n.recompute:
      kept += shared["itemsize"] * p.times * p.rows * p.cols
  rows = c.train.batch_size / c.train.accumulate / shared["devices"]
  return sum(plans.state_bytes(plan).values()) + rows * kept


def _is_smaller(a: plans.Plan, b: plans.Plan) -> bool:
  """Whether `a` needs no more memory than `b` for certain: they differ in batch and moments only."""
  key = lambda p: (p.config.mesh, p.config.model.remat, p.parts.model.dtype)
  a_train, b_train = a.config.train, b.config.train
  moments = a_train.mu_dtype == b_train.mu_dtype or not b_train.mu_dtype  # "" is the widest
  return key(a) == key(b) and a_train.batch_size <= b_train.batch_size and moments
