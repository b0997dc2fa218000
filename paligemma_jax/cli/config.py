"""Config files from the command line: `--config FILE.py[:args]` and `--config.path=value`.

A config is a Python file with `get_config(arg)` that returns an `ml_collections.ConfigDict`. The
rules are those of ml_collections' own flag (values keep their type, tuples may change length, the
part after the colon goes to `get_config`), stricter where it guesses: an unknown key names the
nearest one, and nothing raises but `UserError`. No JAX here.
"""

import ast
import difflib
import importlib.util
import inspect
import pathlib
import re
import sys
import traceback

import paligemma_jax
from paligemma_jax import errors

_PREFIX = "--config."
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def split_overrides(argv: list[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
  """Takes `--config.path=value` and `--config.path value` out of an argument list.

  Returns:
    The other arguments, and (path, value) in their order; the value is None where none follows.
  """
  rest, overrides, i = [], [], 0
  while i < len(argv):
    word, i = argv[i], i + 1
    if not word.startswith(_PREFIX):
      rest.append(word)
      continue
    path, equals, value = word.removeprefix(_PREFIX).partition("=")
    if not equals and i < len(argv) and not argv[i].startswith("--"):
      value, equals, i = argv[i], "=", i + 1
    overrides.append((path, value if equals else None))
  return rest, overrides


def load(spec: str, overrides=()):
  """Returns the config that `spec` names, with the overrides applied, locked.

  Args:
    spec: `FILE.py` or `FILE.py:args`. A path that does not exist here is looked for in the
      installed package, so `transfers/forkme.py` works everywhere.
    overrides: pairs (dotted path, text of the value or None), the last of one path wins.

  Raises:
    errors.UserError: no such file, an error inside the file, an unknown key, a value of another
      type. One line.
  """
  import ml_collections

  match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, re.DOTALL)
  if not match:
    raise errors.UserError(f'--config "{spec}" is no FILE.py or FILE.py:key=value,…')
  path = find(match[1])
  config = _call(path, match[2])
  if not isinstance(config, ml_collections.ConfigDict):
    kind = type(config).__name__
    raise errors.UserError(f"{path}: get_config returned {kind}, not a ConfigDict; return one")
  config.lock()
  for key, value in overrides:
    override(config, key, value)
  return config


def find(name: str) -> pathlib.Path:
  """Path of a config file: as given, else below the installed package.

  Raises:
    errors.UserError: neither exists; names the places and the nearest shipped config.
  """
  if pathlib.Path(name).is_file():
    return pathlib.Path(name)
  shipped = []
  for root in map(pathlib.Path, paligemma_jax.__path__):
    if (root / name).is_file() and pathlib.Path(name).parts[0] in ("transfers", "configs"):
      return root / name
    shipped += [f"transfers/{p.name}" for p in root.glob("transfers/*.py")]
  hint = errors.did_you_mean(name, {s for s in shipped if s != "transfers/common.py"})
  raise errors.UserError(f"config {name}: no such file, here or in the package{hint}")


def _call(path: pathlib.Path, arg: str | None):
  """Runs the file as a script and calls its `get_config`."""
  module_spec = importlib.util.spec_from_file_location("paligemma_config", path)
  module = importlib.util.module_from_spec(module_spec)
  try:
    sys.modules[module_spec.name] = module  # dataclasses and pickle look modules up by name
    module_spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
      raise errors.UserError(f"{path}: no function get_config(arg); a config defines one")
    takes = len(inspect.signature(module.get_config).parameters)
    if arg and not takes:
      raise errors.UserError(f'{path}: get_config takes no argument (found ":{arg}"); leave it out')
    return module.get_config(arg) if takes else module.get_config()
  except errors.UserError:
    raise
  except Exception as e:  # the file is the user's: say where it fails, in one line
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
    line = getattr(e, "lineno", None) if isinstance(e, SyntaxError) else (lines or [None])[-1]
    place = f"{path}:{line}" if line else str(path)
    message = " ".join(str(e).split())
    raise errors.UserError(f"{place}: {type(e).__name__}: {message}") from e


def override(config, path: str, value: str | None) -> None:
  """Sets the key at a dotted path from text, in place; the key's type decides how it is read.

  Raises:
    errors.UserError: there is no such key (the nearest is named), or the text is of another type.
  """
  import ml_collections

  *groups, key = path.split(".")
  holder = config
  for group in groups:
    holder = holder.get(group) if isinstance(holder, ml_collections.ConfigDict) else None
  if not isinstance(holder, ml_collections.ConfigDict) or key not in holder:
    raise errors.UserError(f"--config.{path} does not exist{_nearest(path, config)}")
  if isinstance(holder[key], ml_collections.ConfigDict):
    inside = ", ".join(f"--config.{path}.{k}" for k in holder[key])
    raise errors.UserError(f"--config.{path} is a group; set its keys ({inside or 'it is empty'})")
  kind = holder.get_type(key)
  try:
    holder[key] = _read(value, kind, holder[key])
  except (ValueError, TypeError, KeyError):
    found = "nothing" if value is None else f'"{value}"'
    raise errors.UserError(
      f"--config.{path} takes {_NAMES.get(kind, kind.__name__)} (now {holder[key]!r}), found {found}"
    ) from None


_NAMES = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  str: "text",
  tuple: "a tuple like 'a' or '(\"a\", 1)'",
}


def _read(text: str | None, kind: type, now):
  """The text as a value of `kind`; ValueError, TypeError or KeyError if it is none."""
  if text is None:
    if kind is not bool:
      raise ValueError("a value is missing")
    return True
  if text.lower() == "none" and now is None:
    return None  # a placeholder stays unset
  if kind is bool:
    return _BOOLS[text.lower()]
  if kind is tuple:
    return _tuple(text)
  if kind in (int, float, str):
    return kind(text)
  raise TypeError("not for the command line")


def _tuple(text: str) -> tuple:
  """`(1, 2)`, `1,2`, or one word that stands for a tuple of itself."""
  try:
    value = ast.literal_eval(text) if text else ()
  except (ValueError, SyntaxError):
    if "," in text or text.lstrip().startswith(("(", "[")):
      raise ValueError("quote the parts") from None
    value = text
  value = tuple(value) if isinstance(value, list) else value
  return value if isinstance(value, tuple) else (value,)


def paths(config, prefix: str = "") -> list[str]:
  """The dotted paths of all keys that hold a value."""
  found = []
  for key, value in config.items():
    found += paths(value, f"{prefix}{key}.") if hasattr(value, "items") else [prefix + key]
  return found


def _nearest(path: str, config) -> str:
  """The hint at the nearest key: by the whole path first, else by the last word alone."""
  every = paths(config)
  near = difflib.get_close_matches(path, every, n=1, cutoff=0.75)
  if not near:
    last = path.rsplit(".")[-1]
    near = [p for p in every if p.rsplit(".")[-1] == last][:1]
  inside, holder = "", config
  for group in path.split(".")[:-1]:
    if not hasattr(holder.get(group), "items"):
      break
    inside, holder = f"{inside}{group}.", holder[group]
  known = [f"{inside}{key}" for key in holder]
  return errors.did_you_mean(path, known, limit=32, near=near[0] if near else "")
