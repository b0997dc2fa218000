"""What a metric compares predictions with, and what is said where there is nothing of it."""

import dataclasses
from collections.abc import Callable

import numpy as np

from paligemma_jax import errors


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of truth.

  Attributes:
    name: what it is called.
    of: row -> what the row has of it, empty for nothing; raises a UserError for anything else.
    todo: what to do where no row has any.
    task: as which kind of examples the records of a file are read for it.
  """

  name: str
  of: Callable[[dict], list]
  todo: str
  task: str = "text"

  def missing(self, count: int) -> str:
    """What is wrong with `count` rows of which none has any."""
    return f"no {self.name} to compare with in {count} example{'s' * (count != 1)}; {self.todo}"


def answers(row: dict) -> list[str]:
  """The true answers of a row: none, one, or all that its "suffix" lists.

  Raises:
    errors.UserError: "suffix" is neither a string nor a list of them.
  """
  suffix = row.get("suffix")
  if suffix is None:
    return []
  found = [suffix] if isinstance(suffix, str) else suffix
  if not isinstance(found, list | tuple | np.ndarray) or not all(isinstance(a, str) for a in found):
    raise errors.UserError(f'"suffix" is {_shown(suffix)}; wanted a string or a list of strings')
  return list(found)


def objects(row: dict) -> list[dict]:
  """The true objects of a row.

  Raises:
    errors.UserError: "objects" is no list of {"label", "box"}.
  """
  found = row.get("objects")
  if found is None:
    return []
  if not isinstance(found, list | tuple) or not all(isinstance(o, dict) for o in found):
    raise errors.UserError(f'"objects" is {_shown(found)}; wanted a list of {{"label", "box"}}')
  for item in found:
    if not _is_box(item.get("box")):
      text = f'the "box" of an object is {_shown(item.get("box"))}'
      raise errors.UserError(f"{text}; wanted [x0, y0, x1, y1] in pixels")
  return list(found)


def is_ignored(item: dict) -> bool:
  """Whether a true object is a region of many, or one that cannot be read: answers never name it."""
  return bool(item.get("iscrowd") or item.get("ignore"))


def _shown(value) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:77]}..."


def _is_box(box) -> bool:
  try:
    return np.shape(box) == (4,) and bool(np.isfinite(np.asarray(box, np.float64)).all())
  except (TypeError, ValueError):
    return False


def _to_find(row: dict) -> list[dict]:
  return [o for o in objects(row) if not is_ignored(o)]


def _masked(row: dict) -> list[dict]:
  return [o for o in objects(row) if o.get("mask") is not None or o.get("codes") is not None]


ANSWERS = Target(
  "answers",
  answers,
  'write them as "suffix", or set metric="" to keep the predictions alone',
)
OBJECTS = Target(
  "objects",
  _to_find,
  'write them as "objects", [{"label", "box"}], or choose a metric of texts, e.g. exact_match',
  "detect",
)
MASKS = Target(
  "masks",
  _masked,
  'write a "mask" into every one of the "objects", or choose a metric of boxes',
  "segment",
)
