"""How fast this machine trains, answers, loads, converts and prepares pictures, beside its peers.

  paligemma bench train                    random weights, batch 1 and 8
  paligemma bench train --recipe lora      adapters, beside all parameters and peft
  paligemma bench generate --size mid --quant int8 --json generate.json

The peers are transformers on torch, as it is and compiled (pip install torch transformers peft), and,
for data, Pillow. All do the same work in turns, each in a process of its own; shares of the limit are of
what the same machine reached in the same rounds with one product of matrices or one pass over memory.
"""

import argparse
import json
import os
import pathlib
import sys

from paligemma_jax import errors, storage
from paligemma_jax.cli import runtime

WHAT = ("train", "generate", "load", "convert", "data")
SIZES = ("tiny", "mid", "3b")
RECIPES = ("full", "lora", "qlora")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  parser.add_argument("what", choices=WHAT)
  parser.add_argument("--size", choices=SIZES, help="of the model (default tiny)")
  parser.add_argument("--recipe", choices=RECIPES, help="of train (default full)")
  parser.add_argument("--quant", metavar="FORM", help="of generate: weights in few bits, e.g. int8")
  parser.add_argument("--json", metavar="FILE", help="write all figures there as well")


def run(args: argparse.Namespace) -> None:
  """Measures and prints a table."""
  if args.what == "data" and args.size:
    raise errors.UserError("bench data has no model: leave --size out")
  if args.recipe and args.what != "train":
    raise errors.UserError(f"bench {args.what} trains nothing: leave --recipe out")
  if args.quant and args.what != "generate":
    raise errors.UserError(f"bench {args.what} has floats alone: leave --quant out")
  if args.json:
    runtime.check_folder("--json", args.json)
  runtime.start()
  # Contenders share a GPU: none of them takes its memory in advance.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if args.what == "data":
    from paligemma_jax.bench import data

    _say("decoding and resizing, a minute …")
    report = {"task": "data"} | data.run()
    rows = data.table(report)
  else:
    from paligemma_jax.bench import tasks

    options = {k: v for k in ("recipe", "quant") if (v := getattr(args, k))}
    report = tasks.TASKS[args.what](args.size or "tiny", _say, **options)
    rows = tasks.table(report)
    _describe(report)
  print(runtime.table(rows, right=range(1, len(rows[0]))))
  if args.json:
    storage.write_whole(pathlib.Path(args.json), json.dumps(report, indent=1) + "\n")


def _describe(report: dict) -> None:
  m, limits = report["machine"], report["limits"]
  versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
  print(f"{m['processor']}, {m['cores']} cores, {', '.join(m['devices'])}; {versions}")
  print(
    f"limits: {limits['flops'] / 1e9:.0f} GFLOP/s in products of matrices,"
    f" {limits['bytes'] / 1e9:.1f} GB/s read from memory"
  )
  for who, why in report["failed"].items():
    print(f"{who} took no part: {why}")


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
