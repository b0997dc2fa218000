"""The command line: one thin file per command, one place for exit statuses.

0 done; 2 the user's input is wrong (one line, no traceback); 75 preempted with the state saved,
run the same command again; 1 anything else. `--help` and usage errors import no JAX.
"""

import argparse
import os
import sys

import paligemma_jax
from paligemma_jax import errors
from paligemma_jax.cli import (
  bench,
  codec,
  config,
  convert,
  data,
  eval,
  generate,
  inspect,
  plan,
  runtime,
  score,
  train,
)

COMMANDS = {
  "train": train,
  "eval": eval,
  "generate": generate,
  "score": score,
  "convert": convert,
  "inspect": inspect,
  "data": data,
  "codec": codec,
  "plan": plan,
  "bench": bench,
}


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, as everything else does; no abbreviations of options."""

  def __init__(self, **kwargs):
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(allow_abbrev=False, **kwargs)

  def _check_value(self, action, value):
    if action.choices is not None and value not in action.choices:
      hint = errors.did_you_mean(value, action.choices)
      raise argparse.ArgumentError(action, f'"{value}" is unknown{hint}')

  def error(self, message):
    raise errors.UserError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
  """The parser of all commands; each command puts its function into `run` of the namespace."""
  parser = _Parser(prog="paligemma", description=paligemma_jax.__doc__.splitlines()[0])
  version = f"paligemma_jax {paligemma_jax.__version__}"
  parser.add_argument("--version", action="version", version=version)
  commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
  for name, module in COMMANDS.items():
    summary = module.__doc__.splitlines()[0]
    command = commands.add_parser(name, help=summary, description=module.__doc__)
    command.set_defaults(takes_config=False)
    module.add_arguments(command)
  return parser


def main(argv: list[str] | None = None) -> int:
  """Runs one command.

  Args:
    argv: the arguments without the program's name; None for those of the process.

  Returns:
    The exit status, see the head of this file. Errors that are not the user's are raised.
  """
  if argv is None and sys.argv[1:2] == ["train"]:
    runtime.take_huge_pages()
  try:
    return _run(sys.argv[1:] if argv is None else argv)
  except errors.UserError as e:
    return _say(str(e), 2)
  except errors.RunError as e:
    return _say(str(e), 1)
  except KeyboardInterrupt:
    return _say("interrupted", 1)
  except BrokenPipeError:  # `paligemma inspect … | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except OSError as e:
    if e.filename is None:  # not about a file that someone named
      raise
    return _say(f"{e.filename}: {e.strerror}", 2)


def _run(argv: list[str]) -> int:
  rest, overrides = config.split_overrides(argv)
  try:
    args = build_parser().parse_args(rest)
  except SystemExit as e:  # --help and --version have printed
    return e.code or 0
  if overrides and not args.takes_config:
    raise errors.UserError(f"--config.{overrides[0][0]}: this command takes no config")
  args.overrides = overrides
  try:
    return args.run(args) or 0
  except SystemExit as e:  # 75: preempted
    return e.code


def _say(message: str, status: int) -> int:
  """Prints it; what names from files may hold that is no letter, such as an escape, is spelled."""
  spelled = lambda c: c if c.isprintable() else c.encode("unicode_escape").decode()
  lines = ("".join(map(spelled, line)) for line in message.split("\n") if line.strip())
  print("paligemma:", "\n".join(lines), file=sys.stderr, flush=True)
  return status
