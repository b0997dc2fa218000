"""The training loop: `pg.train(config, workdir)` and `paligemma train`."""

import contextlib
import dataclasses
import errno
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from paligemma_jax import errors, sharding, storage
from paligemma_jax.checkpoint import manifest, orbax
from paligemma_jax.data import pipeline
from paligemma_jax.evals import checks
from paligemma_jax.models import tree
from paligemma_jax.train import (
  compilations,
  initial,
  memory,
  owner,
  processes,
  provenance,
  recipes,
  saved,
  schedule,
  settings,
  setup,
  speed,
  wandb,
)
from paligemma_jax.train import log as logs
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.train import run as runs

CHECKPOINTS = "checkpoints"
PREEMPTED = 75  # exit status: the state is saved, run the same command again


def train(
  config: Any,
  workdir: str | os.PathLike,
  callbacks: Sequence[Callable[[int, dict[str, float]], None]] = (),
  profile: bool = False,
) -> dict[str, dict[str, float]]:
  """Trains, evaluates and checkpoints as the config says, or goes on where the workdir stopped.

  The order of the data and everything drawn follow from the seed and the step alone: a run that
  was killed and started again ends with the same bits as one that was not.

  Args:
    config: as a file in transfers/ returns it; its keys are those of `transfers/common.base()`.
    workdir: gets config.json, runs.jsonl, metrics.jsonl, tensorboard/, checkpoints/STEP/, predictions/ and
      report.html; a folder of this machine or `gs://BUCKET/…`, where metrics and runs are numbered
      parts. One run at a time, see `owner`.
    callbacks: each is called as `callback(steps done, scalars)` after every step, one step late,
      so that the device is not kept waiting. The scalars are those of `step.make_train_step` as
      floats, and "lr".
    profile: whether to write a trace of a few steps to WORKDIR/profile, for TensorBoard's profiler
      or xprof.

  Returns:
    The last scores of every evaluation: name -> {metric: value}.

  Raises:
    UserError: config, data or checkpoint are wrong or the workdir is another run's or cannot
      be written to (before anything is written), or the loss is not finite any more.
    SystemExit: status 75: the process was asked to stop (SIGTERM), the state is saved.
  """
  c, workdir = settings.check(config), storage.path(workdir)
  with _full_disk_explained(workdir), owner.claimed(workdir):
    return _train(c, workdir, callbacks, profile)


def _train(
  c: ml_collections.ConfigDict, workdir: storage.Path, callbacks: Sequence[Callable], profile: bool
) -> dict[str, dict[str, float]]:
  settings.check_stored(c, workdir)
  if c.wandb:
    wandb.load()
  setup.use_compilation_cache()
  setup.build(c.build)
  total, data_size = _total_steps(c.train)

  with contextlib.ExitStack() as stack:
    compiled = stack.enter_context(compilations.counted())
    checkpointer = _checkpointer(c, workdir)
    if checkpointer is not None:
      stack.enter_context(contextlib.closing(checkpointer))
    start = checkpointer.latest() if checkpointer is not None else None
    if runs.is_finished(workdir, c, start, total):
      print(f"{workdir} is finished ({start} steps); choose another workdir to train anew")
      return runs.last_scores(workdir)

    resumed = start is not None
    inputs = setup.open_inputs(c, workdir / CHECKPOINTS / str(start) if resumed else None)
    _check_data(c, inputs.processor, inputs.codec)
    parts = setup.prepare(c, inputs)
    optimizer = make_optimizer(c, parts.leaves, total, data_size, parts.replaced)
    stack.enter_context(memory.explained(c, parts.model.config, parts.mesh.devices.size))
    batches = stack.enter_context(contextlib.closing(_batches(c, parts, start or 0)))

    fingerprints = pipeline.fingerprints(c.train.data.to_dict())
    if resumed:
      settings.check_data(c, workdir, fingerprints)
    _check_place(c, workdir, parts, optimizer)
    if processes.is_first():
      settings.store(c, workdir)
      logs.truncate_metrics(workdir, start or 0)
      provenance.write(workdir, provenance.start(parts.mesh, fingerprints, start or 0))
    processes.wait("workdir is prepared")
    checkpointer = checkpointer or stack.enter_context(
      contextlib.closing(_checkpointer(c, workdir, create=True))
    )
    log = stack.enter_context(contextlib.closing(_log(c, workdir, total, start or 0)))
    _describe(log, c, parts, optimizer, total, start)

    stack.enter_context(jax.set_mesh(parts.mesh))
    abstract, shardings = initial.abstract_state(c, parts, optimizer)
    only = (
      optimizer.trainable if parts.layout else None
    )  # beside a base, what trains alone is saved
    if resumed:
      target = saved.to_tree(saved.with_shardings(abstract, shardings), only)
      if only:
        base = initial.init_params(c, parts, optimizer, abstract.params, shardings.params)
        abstract = abstract.replace(params=base)
      state = saved.from_tree(checkpointer.restore(start, target), abstract)
    else:
      state = initial.init_state(c, parts, optimizer)
    window = pipeline.longest_suffix(c.train.data.to_dict(), parts.processor)
    if c.input.truncate:  # to the published length; few windows, as each one is compiled
      window = min(-(-window // 16) * 16, c.input.text_len)
    options = setup.step_options(c) | {"window": window}
    train_step = setup.jit_step(parts, optimizer, shardings, **options)
    stop = stack.enter_context(processes.asked_to_stop())
    work = speed.Work(
      parts.model.config, c.train.batch_size, window, optimizer.trainable,
      tuple(parts.mesh.devices.flat), parts.model.dtype,
      parts.layout.adapters(parts.config) if parts.layout else {},
    )  # fmt: skip
    run = runs.Run(
      c, workdir, parts, total, log, checkpointer, callbacks, work, compiled, profile, only
    )
    state = run.train(state, start or 0, train_step, batches, stop)
    if run.stopped:
      log.say(f"asked to stop: the state of step {run.done} is saved; run the same command again")
      raise SystemExit(PREEMPTED)
  return runs.finish(workdir)


@contextlib.contextmanager
def _full_disk_explained(workdir: storage.Path) -> Iterator[None]:
  """Turns the many faces of a full disk into a UserError that says what is left and what to do."""
  try:
    yield
  except (OSError, ValueError) as e:  # TensorStore raises ValueError
    full = getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if not full and os.strerror(errno.ENOSPC) not in str(e):
      raise
    steps = manifest.steps(workdir / CHECKPOINTS)
    saved = f"step {max(steps)} is the newest checkpoint" if steps else "there is no checkpoint yet"
    raise errors.UserError(
      f"{workdir}: no space left on the disk; {saved}; make room, or keep fewer"
      " (checkpoint.keep), and run the same command again"
    ) from e


def _total_steps(t: ml_collections.ConfigDict) -> tuple[int, int]:
  """(steps of the whole training, examples in all sources together)."""
  data_size = pipeline.num_examples(t.data)
  options = {"total_steps": t.steps} if t.steps else {"total_epochs": t.epochs}
  sizes = dict(batch_size=t.batch_size, data_size=data_size)
  return schedule.duration("total", options, **sizes), data_size


def _check_data(c: ml_collections.ConfigDict, processor, codec: dict | None) -> None:
  """Raises a UserError with everything that is wrong with the data, before any device is used."""
  whole = {f"train.data.{name}": source for name, source in c.train.data.items()}
  prompts = {}
  for name, e in c.evals.items():
    read = whole if e.metric == "perplexity" else prompts  # the others lay out the prompt only
    read[f"evals.{name}.data"] = e.data
  text_len = 0 if c.input.truncate else c.input.text_len  # 0: lengths do not matter
  pipeline.check(whole, processor, text_len)
  pipeline.check(prompts, processor, text_len, train=False)
  checks.check(c.evals, codec)


def _check_place(
  c: ml_collections.ConfigDict,
  workdir: storage.Path,
  parts: setup.Parts,
  optimizer: optimizers.Optimizer,
) -> None:
  """Raises a UserError unless a checkpoint can be written to the workdir and read again."""
  if not storage.is_remote(workdir):
    abstract, _ = initial.abstract_state(c, parts, optimizer)
    needed = recipes.state_bytes(setup.flat(abstract.params), optimizer)
    base = needed.params - needed.grads if parts.layout else 0  # it is not saved
    needed = needed._replace(grads=0).total - base
    free = shutil.disk_usage(workdir).free
    if free < needed / 2:  # compression never gains so much
      raise errors.UserError(
        f"{workdir}: {os.strerror(errno.ENOSPC)}: a checkpoint takes up to"
        f" {recipes.gigabytes(needed)}, {recipes.gigabytes(free)} are free; make room"
      )
  orbax.check_place(workdir / CHECKPOINTS)


def _checkpointer(c: ml_collections.ConfigDict, workdir: storage.Path, create: bool = False):
  """The checkpoints of the workdir; None where there is none yet, unless it is to be created."""
  folder = workdir / CHECKPOINTS
  if not folder.exists() and not create:
    return None
  return orbax.Checkpointer(folder, keep=c.checkpoint.keep)


def make_optimizer(
  c: ml_collections.ConfigDict,
  leaves: Mapping[str, tree.Leaf],
  total: int,
  data_size: int,
  also: Sequence[str] = (),
) -> optimizers.Optimizer:
  """The optimizer that `c.train` asks for, over `total` steps of `data_size` examples an epoch.

  Args:
    c: the checked config.
    leaves: of all parameters.
    total, data_size: see above.
    also: parameters that train besides those of the recipe.

  Raises:
    UserError: as `optimizers.make`, or a weight in few bits was to train.
  """
  t, resolved = c.train, recipes.resolve(c.train.to_dict())
  made = optimizers.make(
    [name for name in leaves if not name.endswith(".lora/scale")],
    total,
    optimizer=t.optimizer,
    lr=t.lr,
    schedules=resolved["rules"],
    otherwise=(*((re.escape(n), resolved["schedule"]) for n in also), *resolved["otherwise"]),
    lr_mults=t.lr_mults,
    weight_decay=t.weight_decay,
    wd_mults=t.wd_mults,
    grad_clip_norm=t.grad_clip_norm,
    b1=t.b1,
    b2=t.b2,
    mu_dtype=t.mu_dtype,
    momentum=t.momentum,
    ema_decay=t.ema_decay,
    batch_size=t.batch_size,
    data_size=data_size,
  )
  few_bits = tree.form_of(tree.shapes(leaves)).quant
  for name in made.trainable:
    if name.rpartition("/")[0] in few_bits:
      raise errors.UserError(
        f"train.recipe {t.recipe} trains {name.rpartition('/')[0]}, which model.quant has in few bits;"
        " choose recipe qlora, or freeze it (train.freeze)"
      )
  return made


def _batches(c: ml_collections.ConfigDict, parts: setup.Parts, start: int) -> Iterator:
  """This process's batches, from the one of step `start` on."""
  return pipeline.train_batches(
    c.train.data.to_dict(),
    parts.processor,
    batch_size=c.train.batch_size,
    text_len=c.input.text_len,
    seed=c.seed,
    start_step=start,
    workers=c.train.workers,
    rows=sharding.rows_here(parts.mesh, parts.rules, c.train.batch_size),
    codec=parts.codec,
    max_unreadable=c.input.max_unreadable,
    truncate=c.input.truncate,
  )


def trained_numbers(parts: setup.Parts, optimizer: optimizers.Optimizer) -> int:
  """How many numbers train; what fills up adapters of less than the largest rank does not count."""
  leaves = parts.leaves
  whole = sum(math.prod(leaves[n].shape) for n in optimizer.trainable if ".lora/" not in n)
  if parts.layout is None:
    return whole
  return whole + dataclasses.replace(parts.layout, replaced=()).trained(parts.config)


def _log(c: ml_collections.ConfigDict, workdir: storage.Path, total: int, start: int) -> logs.Log:
  if not processes.is_first():
    return logs.Log(None, total, c.train.batch_size, start, stream=None)
  others = [wandb.Writer(workdir, c.wandb, settings.plain(c))] if c.wandb else []
  return logs.Log(workdir, total, c.train.batch_size, start, others=others, stream=sys.stderr)


def _describe(log, c, parts, optimizer, total, start):
  """Says what is going to happen, and the memory it takes."""
  config, devices = parts.model.config, parts.mesh.devices.size
  abstract, _ = initial.abstract_state(c, parts, optimizer)
  needed = recipes.state_bytes(setup.flat(abstract.params), optimizer)
  place = f"{devices} {jax.devices()[0].platform} device" + ("s" if devices > 1 else "")
  log.say(f"{config.name}, {parts.model.dtype} on {place}, mesh {c.mesh}; {total} steps")
  log.say(
    f"recipe {c.train.recipe}: {len(optimizer.trainable)} of {len(setup.flat(abstract.params))}"
    f" tensors train, {trained_numbers(parts, optimizer):,} numbers; {needed}"
    + (" over all devices" if devices > 1 else "")
  )
  for line in setup.check_shares(parts.leaves, parts.mesh, parts.rules):
    log.say(line)
  if start is not None:
    log.say(f"going on from step {start}")
