"""Train, evaluate and checkpoint as a config says; the same command again resumes.

  paligemma train --config transfers/forkme.py --workdir workdir
  paligemma train --config transfers/forkme.py:train=my.jsonl,init=pt_224.npz --config.train.lr=3e-5 …

Exit status 75: preempted with the state saved; run the same command again.
"""

import argparse

from paligemma_jax.cli import config, runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  add_config(parser)
  parser.add_argument("--workdir", required=True, metavar="DIR", help="where the run lives")
  parser.add_argument("--profile", action="store_true", help="trace a few steps to DIR/profile")


def add_config(parser: argparse.ArgumentParser, required: bool = True, **options) -> None:
  """Adds `--config`, with further options of argparse, for every command that takes one."""
  parser.add_argument(
    "--config",
    required=required,
    metavar="FILE.py[:key=value,…]",
    **{"help": "what to run; its keys are overridden with --config.path=value", **options},
  )
  parser.set_defaults(takes_config=True)


def run(args: argparse.Namespace) -> None:
  """Trains."""
  settings = config.load(args.config, args.overrides)
  runtime.start()
  from paligemma_jax.train import loop, processes  # imports JAX

  processes.join()
  loop.train(settings, args.workdir, profile=args.profile)
