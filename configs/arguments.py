"""What stands after the colon of a config, `forkme.py:train=my.jsonl,res=448,final`, as values."""

import ml_collections

from paligemma_jax import errors

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def split(text: str) -> list[str]:
  """The parts between commas, empty ones left out; two commas in a row are one that belongs to a part."""
  parts = text.replace(",,", "\0").split(",")  # no argument of a process holds this letter
  return [part.replace("\0", ",") for part in parts if part]


def args(arg: str | None, **defaults) -> ml_collections.ConfigDict:
  """Reads what stands after the colon: `forkme.py:res=448,recipe=head_only,final`.

  Args:
    arg: comma-separated `key=value`, or `key` alone for a switch; a comma that belongs to a value is
      written twice, `train=a,,b/train.jsonl`. None or "" for the defaults.
    **defaults: every key there is, with its value; its type decides how the text is read.

  Raises:
    errors.UserError: an unknown or repeated key, or a value of another type.
  """
  a, before = ml_collections.ConfigDict(defaults), {}
  for part in split(arg or ""):
    key, given, value = part.partition("=")
    if key not in defaults:
      hint = errors.did_you_mean(key, defaults, 24)
      raise errors.UserError(
        f'config argument "{part}": "{key}" is unknown{_comma(before, part, hint)}{hint}'
      )
    if key in before:
      raise errors.UserError(f'config argument "{key}" is given twice; keep one')
    before[key] = value
    a[key] = _read(key, value if given else None, defaults[key])
  return a


def _comma(before: dict[str, str], part: str, hint: str) -> str:
  """What to do if `part` follows a comma of the value before it; "" where it is a misspelt key."""
  key, value = list(before.items())[-1] if before else ("", "")
  if not value or (part.partition("=")[0].isidentifier() and "did you mean" in hint):
    return ""
  whole = f"{value},{part}".replace(",", ",,")
  return f"; a comma that belongs to a value is written twice, {key}={whole}"


def _read(key, value, default):
  """The text `value` (None: the key stood alone) as a value of the default's type."""
  kind = type(default)
  if value is None:
    value = "true" if kind is bool else ""
  try:
    if kind is bool:
      return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[value.lower()]
    if value or kind is str:
      return kind(value)
  except (KeyError, ValueError):
    pass
  raise errors.UserError(
    f'config argument "{key}": found "{value}", wanted {kind.__name__}, e.g. {key}={default}'
  )


def one_of(key: str, value, known: dict):
  """What the value of an argument stands for; an unknown one raises an errors.UserError."""
  if value not in known:
    hint = errors.did_you_mean(str(value), map(str, known))
    raise errors.UserError(f'config argument "{key}": "{value}" is unknown{hint}')
  return known[value]
