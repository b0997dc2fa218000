"""Run a config's evaluations on a checkpoint; print the scores.

  paligemma eval --config transfers/forkme.py --ckpt workdir --workdir workdir/eval

With --workdir also writes DIR/metrics.json and DIR/predictions/NAME.jsonl. With --expect the scores
stand beside the published ones of the config; the exit status is 1 if one is not reached.
"""

import argparse
import json
import re

from paligemma_jax import errors, storage
from paligemma_jax.cli import config, generate, runtime, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  train.add_config(parser)
  generate.add_checkpoint(parser)
  parser.add_argument("--workdir", metavar="DIR", help="where scores and predictions are written")
  parser.add_argument("--expect", action="store_true", help="compare with the published scores")
  parser.add_argument("--evals", metavar="REGEX", default="", help="only those whose name matches")


def run(args: argparse.Namespace) -> None:
  """Evaluates."""
  settings = config.load(args.config, args.overrides)
  names = _chosen(settings, args.evals)
  if args.expect and not settings.get("expect"):
    raise errors.UserError("--expect: the config has no published scores (config.expect is empty)")
  settings.model.init = args.ckpt
  if args.tokenizer:
    settings.input.tokenizer = args.tokenizer
  workdir = storage.path(args.workdir) if args.workdir else None
  runtime.start()
  results = evaluate(settings, names)
  if workdir is not None:
    _write(workdir, results)
  rows = [("evaluation", "score", "value")]
  for name, (scores, _) in results.items():
    rows += [(name, score, f"{value:.4g}") for score, value in scores.items()]
  print(runtime.table(rows, right=(2,)))
  if args.expect:
    _compare(settings.expect.to_dict(), {name: scores for name, (scores, _) in results.items()})


def _compare(expect: dict, scores: dict) -> None:
  """Prints the scores beside the published ones; raises a RunError if one is not reached."""
  from paligemma_jax.evals import expected

  found = expected.compare(expect, scores)
  words = {True: "pass", False: "FAIL", None: "not scored"}
  rows = [("published score", "found", "published", "std", "", "source")]
  for one in found:
    value, std = ("" if v is None else f"{v:.4g}" for v in (one.value, one.std))
    rows.append((one.name, value, f"{one.published:.4g}", std, words[one.passed], one.source))
  print("\n" + runtime.table(rows, right=(1, 2, 3)))
  failed = [one for one in found if one.passed is False]
  if failed:
    names = ", ".join(f"{one.name} ({one.value:.4g} of {one.published:.4g})" for one in failed)
    raise errors.RunError(f"{len(failed)} of {len(found)} published scores not reached: {names}")


def _chosen(settings, regex: str) -> list[str]:
  """Names of the evaluations that match."""
  try:
    names = [name for name in settings.evals if re.search(regex, name)]
  except re.error as e:
    raise errors.UserError(f'--evals "{regex}" is no regular expression: {e}') from None
  if not settings.evals:
    raise errors.UserError("the config has no evaluations (config.evals is empty)")
  if not names:
    known = ", ".join(settings.evals)
    raise errors.UserError(f'--evals "{regex}" matches none of: {known}')
  return names


def evaluate(given, names: list[str]) -> dict[str, tuple[dict, list[dict]]]:
  """{name: (scores, rows)} of the named evaluations of the model in `given.model.init`."""
  import jax

  from paligemma_jax import vlm
  from paligemma_jax.checkpoint import formats
  from paligemma_jax.data import pipeline
  from paligemma_jax.evals import runner
  from paligemma_jax.models import paligemma
  from paligemma_jax.train import settings, setup

  c = settings.check(given, train=False)
  setup.build(c.build)
  inputs = setup.open_inputs(c)
  if inputs.source.config is None:
    raise errors.UserError(f"{c.model.init} holds a part of a model; a whole one is needed here")
  for whole in (False, True):  # perplexity reads the suffix too
    paths = {
      f"evals.{name}.data": c.evals[name].data
      for name in names
      if (c.evals[name].metric == "perplexity") == whole
    }
    text_len = 0 if c.input.truncate else c.input.text_len
    pipeline.check(paths, inputs.processor, text_len, train=whole)
  for name in names:  # each batch must divide
    mesh, rules = setup.make_mesh(c.mesh, c.evals[name].batch_size)
  model = paligemma.PaliGemma(inputs.config, c.model.dtype or vlm.default_dtype(), rules=rules)
  params = formats.load_params(inputs.source, inputs.config, mesh=mesh, rules=rules)
  with jax.set_mesh(mesh):
    return runner.run_config(
      c, model, params, inputs.processor, inputs.codec, mesh, rules, names=names
    )


def _write(workdir: storage.Path, results: dict) -> None:
  """metrics.json and predictions/NAME.jsonl, each whole or not at all."""
  from paligemma_jax.evals import predictions

  for name, (_, rows) in results.items():
    predictions.write(workdir, name, rows)
  scores = {name: scores for name, (scores, _) in results.items()}
  storage.write_whole(workdir / "metrics.json", json.dumps(scores, indent=2) + "\n")
