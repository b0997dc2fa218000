"""`data import FORMAT SRC DST.jsonl`: the options of every format."""

import argparse
import pathlib

from paligemma_jax import errors
from paligemma_jax.cli import runtime
from paligemma_jax.configs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the formats, each with its options."""
  parser.set_defaults(run=run)
  formats = parser.add_subparsers(metavar="FORMAT", dest="format", required=True)

  def add(name, src, about):
    command = formats.add_parser(name, help=about, description=about)
    command.add_argument("src", metavar="SRC", help=src)
    command.add_argument("dst", metavar="DST.jsonl", help="what is written; nothing may be there")
    return command.add_argument

  split = {"default": "", "metavar": "NAME", "help": "which split, where there are several"}
  images = {"default": "", "metavar": "DIR", "help": "of the pictures (default: that of SRC)"}

  option = add("coco", "instances or captions file", "COCO JSON: boxes and masks, or captions")
  option("--images", **images)
  option("--prefix", default="caption en", help='prompt of captions (default "caption en")')
  crowd = "annotations with iscrowd 1: regions of many objects, or single ones (default drop)"
  option("--crowd", choices=("drop", "keep"), default="drop", help=crowd)
  option = add("csv", "file with a header", "CSV: image, prefix and suffix, or boxes")
  option("--images", **images)
  option(
    "--columns",
    default="",
    metavar="KEY=NAME,…",
    help="where they have other names; a comma of a NAME is written twice",
  )
  option("--prefix", default="", help="one prompt for all rows instead of a column")
  option = add("folders", "folder of folders", "a folder of pictures for each class")
  option("--prefix", required=True, help="the prompt; the suffix is the name of the folder")
  option("--split", **split)
  option = add("voc", "folder with Annotations and JPEGImages", "Pascal VOC: boxes and masks")
  option("--images", **{**images, "help": "of the pictures (default: JPEGImages or images)"})
  option("--split", **{**split, "help": "a file of ImageSets/Main, or Segmentation/NAME"})
  zero = "corners count from 0 and the last one is outside (default: from 1 and inside, as VOC)"
  option("--zero-based", action="store_true", help=zero)
  option = add("yolo", "folder, or its data.yaml or obj.data", "YOLO text files: boxes or polygons")
  option("--split", **split)


def run(args: argparse.Namespace) -> None:
  """Imports, and prints what was imported and what was left out."""
  if pathlib.Path(args.dst).suffix != ".jsonl":
    raise errors.UserError(f"{args.dst}: name a .jsonl file")
  runtime.check_folder("DST", args.dst)
  if not pathlib.Path(args.src).exists():
    raise errors.UserError(f"{args.src}: no such file or folder")
  from paligemma_jax.data.importers import formats

  known = ("crowd", "images", "prefix", "split", "zero_based")
  options = {name: value for name, value in vars(args).items() if name in known}
  if args.format == "csv":
    options["columns"] = _columns(args.columns)
  print(f"{args.dst}: {formats.convert(args.format, args.src, args.dst, **options)}")


def _columns(text: str) -> dict[str, str]:
  """`image=file,suffix=answer` as a dict; a comma that belongs to a name is written twice."""
  pairs = [part.partition("=") for part in arguments.split(text)]
  for key, equals, name in pairs:
    if key not in ("image", "prefix", "suffix", "label") or not equals or not name:
      raise errors.UserError(
        f'--columns "{key}{equals}{name}"; wanted image=NAME, prefix=NAME, suffix=NAME or label=NAME,'
        " a comma of a NAME written twice"
      )
  return {key: name for key, _, name in pairs}
