"""Bring data into our format, and look at it as the model will see it.

paligemma data build vqav2 --raw-dir RAW_DIR --data-dir DATA_DIR
paligemma data import coco instances_train.json train.jsonl --images train2017
paligemma data check --config transfers/forkme.py:train=train.jsonl,… --out check.html
paligemma data show --config transfers/forkme.py --out seen.png
"""

import argparse

from paligemma_jax import errors
from paligemma_jax.cli import config, data_build, data_check, data_import, runtime, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command and its options."""
  commands = parser.add_subparsers(metavar="build|show|check|import", required=True)
  build = commands.add_parser("build", help="prepare a task's official files", add_help=False)
  data_build.add_arguments(build)
  show = commands.add_parser("show", help="a picture of training examples with their tokens")
  show.set_defaults(run=_show)
  train.add_config(show)
  show.add_argument("--out", default="data.png", metavar="FILE.png", help="default data.png")
  show.add_argument("--count", type=int, default=8, metavar="N", help="examples (default 8)")
  check = commands.add_parser("check", help="read whole sources and tell every defect")
  data_check.add_arguments(check)
  convert = commands.add_parser("import", help="COCO, YOLO, VOC, CSV or folders -> DST.jsonl")
  data_import.add_arguments(convert)


def _show(args) -> None:
  """Draws the first examples of the training, in the order it will see them."""
  runtime.check_picture_path("--out", args.out)
  if args.count < 1:
    raise errors.UserError(f"--count is {args.count}; it must be at least 1")
  given = config.load(args.config, args.overrides)
  runtime.start()
  from paligemma_jax.data import show
  from paligemma_jax.train import settings, setup  # imports JAX

  c = settings.check(given)
  setup.build(c.build)
  inputs = setup.open_inputs(c)
  picture = show.contact_sheet(
    c.train.data.to_dict(),
    inputs.processor,
    text_len=c.input.text_len,
    seed=c.seed,
    count=args.count,
    codec=inputs.codec,
    truncate=c.input.truncate,
  )
  runtime.save_picture(picture, args.out)
  print(args.out)
