"""What happens at every step of a training: record, save, evaluate; and what is left at its end."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from paligemma_jax import errors, sharding, storage, vlm
from paligemma_jax.data import order, pipeline
from paligemma_jax.evals import predictions, report, runner
from paligemma_jax.train import (
  best,
  compilations,
  feed,
  memory,
  processes,
  saved,
  setup,
  speed,
  step,
)
from paligemma_jax.train import log as logs

REPORT = "report.html"
PROFILE = "profile"
_TRACED = (10, 13)  # steps of this process
_CEILING = "_ceiling"  # METRIC_ceiling: what METRIC could be at most


class _Stopped(Exception):
  """The run was asked to end while it evaluates."""


class Run:
  """The mechanics around the training step; everything that is decided stands in the config.

  Args:
    c: the checked config.
    workdir: exists.
    parts: model, mesh, processor.
    total: steps of the whole training.
    log: of this process.
    checkpointer: where the state goes.
    callbacks: `callback(steps done, scalars)`.
    work: what a step has to compute.
    compiled: the programs of this process so far; grows.
    profile: whether to trace a few steps.
    only: names of the parameters that a checkpoint holds; None: all.
  """

  def __init__(
    self,
    c: ml_collections.ConfigDict,
    workdir: storage.Path,
    parts: setup.Parts,
    total: int,
    log: logs.Log,
    checkpointer: Any,
    callbacks: Sequence[Callable[[int, dict[str, float]], None]],
    work: speed.Work,
    compiled: compilations.Count,
    profile: bool = False,
    only: Collection[str] | None = None,
  ):
    self.c, self.workdir, self.parts, self.total = c, workdir, parts, total
    self.log, self.checkpointer, self.callbacks = log, checkpointer, callbacks
    self.criterion = best.Criterion.of(c.checkpoint.best) if c.checkpoint.best else None
    self._scores: list[tuple[int, float]] = []  # by the criterion
    self._unreadable: Mapping[str, str] = {}  # grows while the batches are read
    self._told = 0  # of these
    self._by_source = _BySource(c.train.data.to_dict(), c.train.batch_size)
    self.work, self.compiled, self.only = work, compiled, only
    self.profile, self._trace_folder = profile, None
    self.done, self.stopped = 0, False  # steps; whether it was asked to end before all was done

  def train(
    self,
    state: step.TrainState,
    start: int,
    train_step: Callable,
    batches: Iterator,
    stop: Callable[[], bool],
  ) -> step.TrainState:
    """Runs the steps from `start` to the end, or to where `stop()`; saves in both cases.

    `stop` is called after every step and before every batch of an evaluation.
    """
    self.done, ended = start, False
    if self.criterion is not None:
      self._scores = best.scores(self.workdir, self.criterion)
    if start:
      self._evaluate(state, stop)  # an evaluation that was cut off is done again
      ended = self.stopped or self._stalled()
    compiled = set()  # lengths of text that the step is compiled for
    put = lambda batch: sharding.put_batch(batch, self.parts.mesh, self.parts.rules)
    self._unreadable = getattr(batches, "unreadable", {})
    fed = feed.Feed(batches, put) if start < self.total else None
    late = None  # scalars are fetched one step late, while the next one is computed
    try:
      while self.done < self.total and not ended:
        batch = next(fed)
        self.log.waited(fed.waited)
        self._trace(self.done - start)
        length = batch.text.shape[1]
        this = train_step if length in compiled else self._compiling(train_step, length)
        compiled.add(length)
        state, scalars = this(state, batch)
        self._record(late)
        self.done += 1
        late = (self.done, scalars, batch.text.shape, batch.image.shape)
        self.stopped = stop()
        save = self._saves() or self.stopped
        if save or self._due():
          self._record(late)  # a state whose loss is not finite is never saved
          late = None
        if save:
          self._save(state)
        if not self.stopped:
          self._evaluate(state, stop)
        ended = self.stopped or self._stalled()
      with self.log.outside():
        self.checkpointer.wait()
    finally:
      self._trace(None)
      if fed is not None:
        fed.close()
    return state

  def _trace(self, done: int | None) -> None:
    """Starts the profiler's trace after `_TRACED[0]` steps of this process, ends it after `[1]`."""
    if self.profile and done == _TRACED[0]:
      self._trace_folder = storage.LocalFolder(self.workdir / PROFILE)
      jax.profiler.start_trace(str(self._trace_folder.path))
    elif self._trace_folder is not None and done in (None, _TRACED[1]):
      jax.profiler.stop_trace()
      self._trace_folder.close()
      self._trace_folder = None
      self.log.say(f"trace of steps {_TRACED[0] + 1} to {_TRACED[1]}: {self.workdir / PROFILE}")

  def _compiling(self, train_step: Callable, length: int) -> Callable:
    """`train_step` for the first batch of a length, when it is compiled: the log says so."""

    def first(state, batch):
      self.log.say(f"compiling the training step for {length - 1} tokens of text …")
      with self.log.outside() as seconds:
        result = jax.block_until_ready(train_step(state, batch))
        memory.release()
        self.log.say(
          f"compiled in {seconds():.0f} s; {self.compiled.programs} programs so far, in"
          f" {self.compiled.seconds:.0f} s"
        )
      self.log.restart(self.done + 1)  # what came before tells nothing about the steps
      return result

    return first

  def _saves(self) -> bool:
    judged = self.criterion is not None and self.criterion.name in self._due()
    return judged or self.done % self.c.checkpoint.every == 0 or self.done == self.total

  def _kept(self) -> set[int]:
    """Steps that stay besides the newest."""
    every, kept = self.c.checkpoint.keep_every, set()
    if every:
      kept = set(range(every, self.done + 1, every))
    first = self.criterion and best.first_best(self._scores, self.criterion.sign)
    if first:
      kept.add(first[0])
    return kept

  def _stalled(self) -> bool:
    """Whether the run ends early: it was scored just now, and has long brought nothing better."""
    if self.criterion is None or not self._scores or self._scores[-1][0] != self.done:
      return False
    stalled = best.stalled(self._scores, self.criterion.sign, self.c.train.patience)
    if stalled:
      self.log.say(
        f"step {self.done}: {self.c.checkpoint.best} has not got better for {self.c.train.patience}"
        f" evaluations; step {best.first_best(self._scores, self.criterion.sign)[0]} was the best"
      )
    return stalled

  def _due(self) -> list[str]:
    return due(self.c.evals, self.done, self.total)

  def _record(self, late: tuple[int, dict, tuple, tuple] | None) -> None:
    """Fetches the scalars of a step, checks them and tells log and callbacks."""
    if late is None:
      return
    done, scalars, text, image = late
    with self.log.device():
      scalars = jax.device_get(scalars)
    values = {name: float(x) for name, x in scalars.items() if not x.ndim}
    self._by_source.add(done - 1, scalars["example_nll"], scalars["example_tokens"])
    values["lr"] = self.c.train.lr * values["schedule"]
    for name in ("loss", "l2_grads"):
      if not math.isfinite(values[name]):
        raise errors.UserError(
          f"step {done}: {name} is {values[name]}, the training diverged;"
          f" {self._last_saved()}, lower train.lr or train.grad_clip_norm, or look at the data"
        )
    for why in list(self._unreadable.values())[self._told :]:
      self._told += 1
      self.log.say(f"step {done}: weight 0 for an unreadable picture: {why}")
    values["unreadable"] = self._told
    times = self.log.progress(done, values["loss"])
    if done % self.c.log_every == 0 or done in (1, self.total):
      if times:
        images = image[1] if len(image) == 5 else 1
        times |= self.work.rates(text[1] - 1, images, times["seconds_per_step"])
      others = self.compiled.values() | self._by_source.take()
      self.log.write(done, values | times | others)
    for callback in self.callbacks:
      callback(done, values)

  def _last_saved(self) -> str:
    newest = self.checkpointer.latest()
    return f"step {newest} is the newest checkpoint" if newest else "there is no checkpoint yet"

  def _save(self, state: step.TrainState) -> None:
    with self.log.outside():
      self.log.flush()  # the metrics up to this step are there when the checkpoint is
      self.checkpointer.save(
        self.done,
        saved.to_tree(state, self.only),
        setup.checkpoint_meta(self.c, self.parts, self.done),
        vlm.assets(self.parts.processor, self.parts.codec),
        self._kept(),
      )

  def _evaluate(self, state: step.TrainState, stop: Callable[[], bool]) -> None:
    """Runs what is due after this step and not scored yet; stores predictions and report.

    Between two batches it ends where `stop()`: the state is saved, and the next start evaluates what
    is left.
    """
    names = unscored(self.workdir, self._due(), self.done)
    if not names:
      return

    def watch():
      if stop():
        raise _Stopped

    p = self.parts
    fits = memory.explained(self.c, p.model.config, p.mesh.devices.size, names)
    with self.log.outside(), fits:
      self.log.say(f"step {self.done}: evaluating {', '.join(names)}")
      try:
        runner.run_config(
          self.c, p.model, step.averaged(state), p.processor, p.codec, p.mesh, p.rules, names,
          watch=watch, keep=self._keep_scores,
        )  # fmt: skip
      except _Stopped:
        self.stopped = True
      self.log.flush()
      if processes.is_first():
        report.write_report(self.workdir)
    if self.stopped:
      self._save(state)

  def _keep_scores(self, name: str, scores: Mapping[str, float], rows: list[dict]) -> None:
    """Stores the results of an evaluation as soon as it is done."""
    scores = scores or {"num": float(len(rows))}  # only a server knows the answers
    if processes.is_first():
      predictions.write(self.workdir, name, rows)
    self.log.write(self.done, scores, prefix=f"{logs.EVAL}{name}/")
    self._judge(name, scores)
    words = ", ".join(f"{metric} {value:.4g}" for metric, value in scores.items())
    self.log.say(f"step {self.done}: {name}: {words}")
    if said := predictions.monotony(rows):
      self.log.say(f"step {self.done}: {name}: {said}")

  def _judge(self, name: str, scores: Mapping[str, float]) -> None:
    """Notes the score that `checkpoint.best` names, if these are of that evaluation."""
    if self.criterion is None or name != self.criterion.name:
      return
    if self.criterion.metric not in scores:
      raise errors.UserError(
        f'checkpoint.best: "{name}" has no score "{self.criterion.metric}"'
        f"{errors.did_you_mean(self.criterion.metric, scores)}"
      )
    self._scores.append((self.done, scores[self.criterion.metric]))


class _BySource:
  """The loss of every source of a mixture, over the steps since it was last taken."""

  def __init__(self, sources: Mapping[str, Mapping], batch_size: int):
    self._sources, self._batch_size = sources, batch_size
    self._names = list(order.active(sources))
    self._nll, self._tokens = np.zeros((2, len(self._names)))

  def add(self, step: int, nll: np.ndarray, tokens: np.ndarray) -> None:
    """Adds a step's sums of -log p and numbers of supervised tokens, float32[B] each."""
    if len(self._names) > 1:
      numbers = pipeline.train_sources(self._sources, self._batch_size, step)
      np.add.at(self._nll, numbers, nll)
      np.add.at(self._tokens, numbers, tokens)

  def take(self) -> dict[str, float]:
    """{"loss/NAME": nats per supervised token}, {} for a single source; begins anew."""
    found = zip(self._names, self._nll, self._tokens)
    losses = {f"loss/{name}": float(nll / n) for name, nll, n in found if n}
    self._nll[:] = self._tokens[:] = 0
    return losses


def due(evals: Mapping[str, Mapping], done: int, total: int) -> list[str]:
  """Names of the evaluations that run after `done` steps.

  One with `every` = 0.3 runs after 30, 60 and 90 % of the steps; all of them run at the end.
  """

  def runs(every):
    times = math.ceil(1 / every)
    return done == total or done in {round(k * every * total) for k in range(1, times + 1)}

  return [name for name, e in evals.items() if done and runs(e["every"])]


def unscored(workdir: str | os.PathLike, names: Sequence[str], done: int) -> list[str]:
  """Those of `names` that have no scores of step `done` in metrics.jsonl."""
  if not names:
    return []
  lines = [line for line in logs.read_metrics(workdir) if line["step"] == done]
  keys = [key for line in lines for key in line]
  return [name for name in names if not any(key.startswith(f"{logs.EVAL}{name}/") for key in keys)]


def is_finished(
  workdir: storage.Path, c: ml_collections.ConfigDict, done: int | None, total: int
) -> bool:
  """Whether a workdir whose newest checkpoint is of step `done` has ended, scores and report too."""
  if done is None or not (workdir / REPORT).exists():
    return False
  if done == total:
    return not unscored(workdir, due(c.evals, total, total), total)
  if not c.checkpoint.best:
    return False
  criterion = best.Criterion.of(c.checkpoint.best)
  found = best.scores(workdir, criterion)
  return (
    bool(found) and found[-1][0] == done and best.stalled(found, criterion.sign, c.train.patience)
  )


def last_scores(workdir: str | os.PathLike) -> dict[str, dict[str, float]]:
  """The newest scores of every evaluation: name -> {metric: value}."""
  scores: dict[str, dict[str, float]] = {}
  for line in logs.read_metrics(workdir):
    for key, value in line.items():
      if key.startswith(logs.EVAL):
        name, _, metric = key.removeprefix(logs.EVAL).partition("/")
        scores.setdefault(name, {})[metric] = value
  return scores


def finish(workdir: storage.Path) -> dict[str, dict[str, float]]:
  """Writes the report, prints the table of scores, and returns them."""
  scores = last_scores(workdir)
  if processes.is_first():
    path = report.write_report(workdir)
    for line in table(scores):
      print(line)
    print(f"report: {path}")
  return scores


def table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
  """Aligned lines "evaluation  metric  value  ceiling"; a METRIC_ceiling stands beside METRIC."""
  rows = [("evaluation", "metric", "value", "ceiling")]
  for name, by_metric in scores.items():
    for metric, value in by_metric.items():
      if not metric.endswith(_CEILING):
        most = by_metric.get(metric + _CEILING)
        rows.append((name, metric, f"{value:.4f}", "" if most is None else f"{most:.4f}"))
  if len(rows) == 1:
    return []
  widths = [max(len(row[i]) for row in rows) for i in range(4)]
  return [
    f"{a:{widths[0]}}  {b:{widths[1]}}  {v:>{widths[2]}}  {most:>{widths[3]}}".rstrip()
    for a, b, v, most in rows
  ]
