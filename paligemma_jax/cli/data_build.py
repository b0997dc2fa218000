"""`data build TASK`: prepares the official files of a task once, for random access."""

import argparse

from paligemma_jax import errors
from paligemma_jax.cli import runtime

_ABOUT = """Reads the official annotation files and pictures of a task, checks them, and writes them once as a
versioned, sharded TFDS data set below DATA_DIR, as configs/transfers read it. Without TASK: the tasks.
`paligemma data build TASK --help` says where the files come from, under which licence, and how they
must lie below RAW_DIR."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options. Help is our own: that of a task has more to say."""
  parser.set_defaults(run=run, parser=parser)
  parser.description = _ABOUT
  add = parser.add_argument
  add("task", nargs="?", metavar="TASK", help="such as vqav2; TASK/CONFIG for one of several")
  add("--raw-dir", metavar="DIR", help="folder of the official files, archives unpacked")
  add("--data-dir", metavar="DIR", help="folder of prepared data sets (as $TFDS_DATA_DIR)")
  add("--splits", default="", metavar="NAME,…", help="only these (default: all)")
  add("--strict", action="store_true", help="stop when counts differ from the published ones")
  add("-h", "--help", action="store_true", help="this text, or that of a task")


def run(args: argparse.Namespace) -> None:
  """Builds the data sets of the task, or prints what there is."""
  if args.task is None:
    print(args.parser.format_help() if args.help else _list())
    return
  from paligemma_jax.datasets import tasks, write

  name, _, config = args.task.partition("/")
  module = tasks.module(name)
  if args.help:
    print(_page(name, module, args.parser))
    return
  chosen = _chosen(name, config, module.TASK.datasets)
  for option in ("raw_dir", "data_dir"):
    if not getattr(args, option):
      raise errors.UserError(f"--{option.replace('_', '-')} DIR is needed")
  runtime.start()
  splits = tuple(filter(None, args.splits.split(",")))
  for data in chosen:
    print(write.build(data, module.TASK, args.raw_dir, args.data_dir, splits, args.strict))


def _chosen(name, config, datasets):
  """The data set that was named, or those that the transfers use."""
  if not config:
    return [data for data in datasets if not data.is_optional]
  known = {data.name.rpartition("/")[2]: data for data in datasets}
  if config not in known:
    raise errors.UserError(f'{name}: no "{config}"{errors.did_you_mean(config, known)}')
  return [known[config]]


def _list() -> str:
  from paligemma_jax.datasets import tasks

  rows = [("task", "data set", "")]
  for name in tasks.TASKS:
    module = tasks.module(name)
    made = [data.name for data in module.TASK.datasets if not data.is_optional]
    named = made[0].partition("/")[0] if "/" in made[0] else ", ".join(made)
    rows.append((name, named, module.__doc__.splitlines()[0]))
  return runtime.table(rows)


def _page(name, module, parser) -> str:
  """Everything about a task."""
  task = module.TASK
  rows = [("data set", "split", "records")]
  for data in task.datasets:
    label = f"{data.name}:{data.version}" + (" (when named)" if data.is_optional else "")
    for i, (split, size) in enumerate(data.sizes.items()):
      rows.append((label if i == 0 else "", split, "" if size is None else str(size)))
  first = task.datasets[0]
  command = f"paligemma data build {name} --raw-dir RAW_DIR --data-dir DATA_DIR"
  indented = "\n".join(f"  {line}" for line in task.layout.strip().splitlines())
  return "\n".join([
    module.__doc__.strip(), "", f"  {command}", "",
    f"Files: {task.source}", f"Licence: {task.licence}", "", "Below RAW_DIR:", indented, "",
    "What is made (records as published):", runtime.table(rows, right=(2,), indent="  "), "",
    f'In a config: common.tfds("{first.name}", split="{next(iter(first.sizes))}", …)', "",
    parser.format_help().partition("options:")[2].strip("\n"),
  ])  # fmt: skip
