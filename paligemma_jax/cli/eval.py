"""Run the evaluations of configs on checkpoints; print the scores beside the published ones.

  paligemma eval --ckpt workdir
  paligemma eval --config transfers/forkme.py --ckpt workdir --workdir workdir/eval
  paligemma eval --config transfers/okvqa.py --config transfers/gqa.py --ckpt A --ckpt B --workdir DIR

Without --config each checkpoint is the workdir of a run, whose own config counts; relative paths of
its data start from the folder that the run was started in.

With --workdir also writes DIR/results.json (the table), DIR/results.html (the table and predictions
with their pictures), DIR/metrics.json, DIR/predictions/NAME.jsonl and DIR/evaluated.json; of several
configs the last three and the predictions' page are in DIR/CONFIG. The same command again goes on:
evaluations that are done, with the same settings, data and checkpoint, keep their scores. Started in
several processes, as `paligemma train` can be, they share the work; the first one writes and prints.

With --expect the exit status is 1 if a published score is not reached. Exit status 75: asked to stop
(SIGTERM) before all was evaluated; run the same command again.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import paligemma_jax
from paligemma_jax import errors, storage
from paligemma_jax.cli import config, generate, runtime, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  more = "what to run, again for several transfers (default: the config of the run that --ckpt is);"
  more += " keys are overridden with --config.path=value"
  train.add_config(parser, required=False, action="append", help=more)
  more = "npz, Hugging Face folder or Hub id, Orbax checkpoint, or workdir; one for all configs or one each"
  generate.add_checkpoint(parser, action="append", help=more)
  parser.add_argument("--workdir", metavar="DIR", help="where scores and predictions are written")
  parser.add_argument("--expect", action="store_true", help="fail if a published score is missed")
  parser.add_argument("--evals", metavar="REGEX", default="", help="only those whose name matches")


@dataclasses.dataclass
class _Transfer:
  """One config with its checkpoint."""

  name: str
  spec: str  # what --config says
  settings: Any
  evals: list[str]


def run(args: argparse.Namespace) -> None:
  """Evaluates."""
  runtime.start()
  transfers = _transfers(args)
  workdir = storage.path(args.workdir) if args.workdir else None
  from paligemma_jax.evals import results  # imports JAX
  from paligemma_jax.train import processes

  processes.join()
  # No mistake waits for a model.
  opened = [open_inputs(one.settings, one.evals) for one in transfers]
  _check_same([inputs.source.path for _, inputs in opened])
  found, several = [], len(transfers) > 1
  try:
    with _stopped_by_sigterm() as watch:
      for one, (c, inputs) in zip(transfers, opened):
        folder = workdir and (workdir / one.name if several else workdir)
        scored = _score(one, c, inputs, folder, watch)
        expect = one.settings.expect.to_dict()
        lines = results.collect(one.name, scored, expect, one.spec, c.model.init)
        found += lines
        if folder is not None and processes.is_first():
          _write(folder, one.name, c, scored, lines)
          if several:
            results.write_page(workdir / results.PAGE, f"{len(transfers)} transfers", found)
          results.write_json(workdir / "results.json", found)
  finally:  # what was scored before an error is not lost
    if found and processes.is_first():
      print(runtime.table(results.cells(found), right=range(1 + several, 6 + several)))
  if args.expect:
    _refuse_failed(found)


def _transfers(args) -> list[_Transfer]:
  """What the arguments ask for; all that can be told before anything is opened."""
  specs = args.config or args.ckpt  # a run has its config
  if len(args.ckpt) not in (1, len(specs)):
    raise errors.UserError(
      f"{len(args.ckpt)} checkpoints for {len(specs)} configs; give one --ckpt for all, or one each"
    )
  checkpoints = args.ckpt * len(specs) if len(args.ckpt) == 1 else args.ckpt
  found = []
  places = [*map(os.path.abspath, specs)] if not args.config else specs  # "." has no name
  for name, spec, checkpoint in zip(_names(places), specs, checkpoints):
    if args.config:
      settings = config.load(spec, args.overrides)
    else:
      settings = _of_run(checkpoint, args.overrides)
    if args.expect and not settings.get("expect"):
      raise errors.UserError(f"--expect: {spec} has no published scores (config.expect is empty)")
    settings.model.init = checkpoint
    if args.tokenizer:
      settings.input.tokenizer = args.tokenizer
    # A run that began with an adapter has it in its own now.
    settings.model.adapter = args.adapter or (settings.model.adapter if args.config else "")
    if args.quant:
      settings.model.quant = args.quant
    evals = _chosen(settings, args.evals)
    if not args.config:
      _refuse_unknown(settings, evals, spec)
    found.append(_Transfer(name, spec, settings, evals))
  return found


def _of_run(ckpt: str, overrides):
  """The config of the run that a checkpoint is of."""
  from paligemma_jax.train import stored  # imports JAX

  found = stored.read(ckpt).lock()
  for key, value in overrides:
    config.override(found, key, value)
  return found


def _refuse_unknown(settings, evals: list[str], ckpt: str) -> None:
  """Raises a UserError if a metric was a function of the config's file; of other evaluations it is dropped."""
  from paligemma_jax import metrics  # imports numpy

  for name, one in settings.evals.items():
    if one.metric and one.metric not in metrics.METRICS:
      if name in evals:
        raise errors.UserError(
          f'{ckpt}: evals.{name}.metric "{one.metric}" is a function of the config\'s own file, of'
          " which the run has the name alone; give --config FILE.py, or choose others with --evals"
        )
      one.metric = ""


def _names(specs: list[str]) -> list[str]:
  """What each config is called: its file's name, with arguments or path where these tell two apart."""
  parts = [re.fullmatch(r"(.*?)\.py(?::(.*))?", spec, re.DOTALL) for spec in specs]
  parts = [(m[1], m[2] or "") if m else (spec, "") for m, spec in zip(parts, specs)]
  for ways in (
    [pathlib.Path(path).name for path, _ in parts],
    [f"{pathlib.Path(path).name} {arg}" for path, arg in parts],
    [f"{path} {arg}" for path, arg in parts],
  ):
    names = [re.sub(r"[^\w.=+-]+", "_", name.strip(" ./")) for name in ways]
    if len(set(names)) == len(names):
      return names
  twice = next(name for i, name in enumerate(names) if name in names[:i])
  raise errors.UserError(f"--config: {twice} is given twice; a table has each config once")


def _refuse_failed(scores: list) -> None:
  """Raises a RunError if a published score is not reached."""
  failed = [one for one in scores if one.passed is False]
  if failed:
    several = len({one.transfer for one in scores}) > 1
    names = ", ".join(
      f"{one.transfer + ' ' if several else ''}{one.score} ({one.value:.4g} of {one.published:.4g})"
      for one in failed
    )
    published = sum(one.published is not None for one in scores)
    raise errors.RunError(f"{len(failed)} of {published} published scores not reached: {names}")


def _chosen(settings, regex: str) -> list[str]:
  """Names of the evaluations that match."""
  try:
    names = [name for name in settings.evals if re.search(regex, name)]
  except re.error as e:
    raise errors.UserError(f'--evals "{regex}" is no regular expression: {e}') from None
  if not settings.evals:
    raise errors.UserError("the config has no evaluations (config.evals is empty)")
  if not names:
    hint = errors.did_you_mean(regex, settings.evals)
    raise errors.UserError(f'--evals "{regex}" matches none{hint}')
  return names


def open_inputs(given, names: list[str]) -> tuple:
  """The checked config and what its evaluations start from; nothing is computed."""
  from paligemma_jax.data import pipeline
  from paligemma_jax.evals import checks
  from paligemma_jax.train import settings, setup

  c = settings.check(given, train=False)
  setup.build(c.build)
  inputs = setup.open_inputs(c, train=False)
  if inputs.source.config is None:
    raise errors.UserError(f"{c.model.init} holds a part of a model; a whole one is needed here")
  setup.check_shares(inputs.leaves, *setup.make_mesh(c.mesh))
  for whole in (False, True):  # perplexity reads the suffix too
    paths = {
      f"evals.{name}.data": c.evals[name].data
      for name in names
      if (c.evals[name].metric == "perplexity") == whole
    }
    text_len = 0 if c.input.truncate else c.input.text_len
    pipeline.check(paths, inputs.processor, text_len, train=whole)
  checks.check({name: c.evals[name] for name in names}, inputs.codec)
  return c, inputs


def _check_same(paths: list[str]) -> None:
  """Raises a UserError if the processes opened different checkpoints, as of a run under way."""
  from paligemma_jax import exchange

  for found in zip(*exchange.gather([[pathlib.PurePath(path).name for path in paths]])):
    if len(set(found)) > 1:
      raise errors.UserError(
        f"--ckpt: the processes found different checkpoints ({', '.join(sorted(set(found)))});"
        " name the same step for all, WORKDIR/checkpoints/STEP"
      )


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[Callable[[], None]]:
  """Yields what is called before every batch: it ends all processes if one got a SIGTERM."""
  from paligemma_jax.train import loop, processes

  with processes.asked_to_stop() as stop:

    def watch():
      if stop():
        if processes.is_first():
          print("asked to stop; run the same command again", file=sys.stderr, flush=True)
        raise SystemExit(loop.PREEMPTED)

    yield watch


def _score(one: _Transfer, c, inputs, folder: storage.Path | None, watch) -> dict[str, Mapping]:
  """{evaluation: scores with their intervals}; what the folder has of them is not evaluated again."""
  from paligemma_jax import exchange
  from paligemma_jax.evals import evaluated, predictions, results
  from paligemma_jax.train import processes

  is_first = processes.is_first()
  settings, scored = {}, {}
  if folder is not None and is_first:
    settings = _settings(c, inputs, one.evals)
    scored = evaluated.find(folder, settings)
  scored = exchange.of_first(scored)
  left = [name for name in one.evals if name not in scored]
  if scored and is_first:
    which = f"{', '.join(scored)} " if left else ""
    print(f"{one.name}: {which}evaluated before, scores kept", flush=True)

  def keep(name, scores, rows):
    if not is_first:
      return
    if said := predictions.monotony(rows):
      print(f"{one.name}: {name}: {said}", file=sys.stderr, flush=True)
    scored[name] = results.with_intervals(c.evals[name].metric, scores, rows)
    if folder is not None:
      predictions.write(folder, name, rows)
      evaluated.add(folder, name, settings[name], scored[name])

  if left:
    _evaluate(c, inputs, left, watch, keep)
  scored = exchange.of_first(scored)
  return {name: scored[name] for name in one.evals}


def _settings(c, inputs, names: list[str]) -> dict[str, dict]:
  """{evaluation: all that its result depends on, as JSON holds it}."""
  from paligemma_jax import vlm
  from paligemma_jax.checkpoint import adapted, formats
  from paligemma_jax.data import sources
  from paligemma_jax.train import settings

  codec = {name: x.tobytes() for name, x in (inputs.codec or {}).items()}
  plain = settings.plain(c)
  shared = {
    "version": paligemma_jax.__version__,
    "checkpoint": [inputs.source.path, formats.fingerprint(inputs.source)],
    "adapter": inputs.source.adapter and adapted.fingerprint(inputs.source.adapter),
    "quant": {name: quant.spelled for name, quant in inputs.quant.items()},
    "model": inputs.config.to_dict(),
    "dtype": c.model.dtype or vlm.default_dtype(),
    "processor": _digest(inputs.processor.to_files()),
    "codec": _digest(codec),
    "input": plain["input"],
    "seed": c.seed,
  }

  def of(name):
    data = sources.open_source(c.evals[name].data, f"evals.{name}.data")
    how = {key: value for key, value in plain["evals"][name].items() if key != "every"}
    return json.loads(json.dumps({"evaluation": how, "data": data.content_hash(), **shared}))

  return {name: of(name) for name in names}


def _digest(files: Mapping[str, bytes]) -> str:
  """Hex digest of names and contents."""
  digest = hashlib.blake2b(digest_size=16)
  for name, data in sorted(files.items()):
    digest.update(f"{name} {len(data)} ".encode() + data)
  return digest.hexdigest()


def _evaluate(c, inputs, names: list[str], watch, keep) -> None:
  """Evaluates the model in `c.model.init`; `watch` and `keep` as in `runner.run_config`."""
  import jax

  from paligemma_jax import vlm
  from paligemma_jax.checkpoint import formats
  from paligemma_jax.evals import runner
  from paligemma_jax.models import paligemma
  from paligemma_jax.train import processes, setup

  mesh, rules = setup.make_mesh(c.mesh)
  if processes.is_first():
    for line in setup.check_shares(inputs.leaves, mesh, rules):
      print(line, file=sys.stderr, flush=True)
  model = paligemma.PaliGemma(inputs.config, c.model.dtype or vlm.default_dtype(), rules=rules)
  params = formats.load_params(
    inputs.source, inputs.config, mesh=mesh, rules=rules, quant=inputs.quant
  )
  with jax.set_mesh(mesh):
    parts = model, params, inputs.processor, inputs.codec, mesh, rules
    bar = processes.is_first()
    runner.run_config(c, *parts, names=names, progress=bar, watch=watch, keep=keep)


def _write(folder: storage.Path, title: str, c, scored: Mapping, lines: list) -> None:
  """metrics.json and results.html of one config, each whole or not at all."""
  from paligemma_jax.data import examples, sources, tasks
  from paligemma_jax.evals import evaluated, predictions, results

  def see(name, rows):
    data = c.evals[name].data
    rules = tasks.Rules.of(data, f"evals.{name}.data")
    return examples.with_pictures(rows, sources.open_source(data, f"evals.{name}.data"), rules)

  metrics = {name: {key: v[0] for key, v in scores.items()} for name, scores in scored.items()}
  storage.write_whole(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
  if not evaluated.is_shown(folder, lines):
    rows = {name: predictions.read(predictions.path(folder, name)) for name in scored}
    results.write_page(folder / results.PAGE, title, lines, results.predictions(rows, see))
    evaluated.show(folder, lines)
