"""What every value of a config may be: one table, checked before anything is opened or made.

Here stands what a value alone may be; what several have to do with each other is in `settings`.
docs/config.md holds the same table.
"""

import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from paligemma_jax import errors
from paligemma_jax.configs import meshes
from paligemma_jax.data import layout, tasks
from paligemma_jax.decode import grammar, samplers
from paligemma_jax.metrics import METRICS
from paligemma_jax.models import tree, variants
from paligemma_jax.processing import augment, image
from paligemma_jax.train import optimizer, recipes, schedule, step

# Names in jax.checkpoint_policies, from the least to the most that is kept for the backward pass.
REMAT = (
  "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable", "everything_saveable",
)  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")
_MOST = 2**31 - 1  # of a whole number: steps and positions are int32


class Range(NamedTuple):
  """What a value may be."""

  holds: Callable[[Any], bool]  # may raise a UserError with words of its own
  words: str  # completes "… must be"
  known: Collection[str] | None = None  # where it is one of these names


def _names(*groups: Collection[str], empty: bool = False) -> Range:
  """One of these names, looked up when it is asked for; "" as well if `empty`."""
  known = groups[0] if len(groups) == 1 else tuple(name for group in groups for name in group)
  listed = ", ".join(f"`{name}`" for name in known if name)
  words = f"one of {listed}" + (', or ""' if empty else "")
  return Range(lambda v: v in known or (empty and v == ""), words, known)


def _count(least: int) -> Range:
  return Range(lambda v: least <= v <= _MOST, f"a whole number from {least} to {_MOST}")


def _is_number(v: Any) -> bool:
  return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)


def _number(words: str, holds: Callable[[float], bool] = lambda v: True) -> Range:
  return Range(lambda v: _is_number(v) and holds(v), words)


def _optional(some: Range) -> Range:
  return Range(lambda v: v is None or some.holds(v), f"{some.words}, or None", some.known)


def _accepted(check: Callable[[Any], Any], words: str) -> Range:
  """What `check` raises no error about."""

  def holds(v):
    check(v)
    return True

  return Range(holds, words)


def _is_regex(v: Any) -> bool:
  try:
    return isinstance(v, str) and bool(re.compile(v))
  except re.error as e:
    raise errors.UserError(f'"{v}" is no regular expression ({e})') from None


def _pairs(number: Range) -> Range:
  holds = lambda v: all(len(p) == 2 and _is_regex(p[0]) and number.holds(p[1]) for p in v)
  return Range(holds, f"pairs of a regular expression and {number.words}")


def _all(holds: Callable[[Any], bool], words: str) -> Range:
  return Range(lambda v: all(map(holds, v)), words)


def _is_mesh(name: str) -> bool:
  try:
    sizes = list(meshes.get(name)["axes"].values())
  except (KeyError, ValueError):
    return False
  return all(n == -1 or n > 0 for n in sizes) and sizes.count(-1) <= 1


_TEXT = Range(lambda v: isinstance(v, str), "text")
_SWITCH = Range(lambda v: isinstance(v, bool), "true or false")
_NOT_NEGATIVE = _number("a finite number from 0 on", lambda v: v >= 0)
_POSITIVE = _number("a finite number above 0", lambda v: v > 0)
_BELOW_1 = _number("a number from 0 to below 1", lambda v: 0 <= v < 1)
_SHARE = _number("a number from 0 to 1", lambda v: 0 <= v <= 1)
_REGEX = Range(_is_regex, "a regular expression")

CONFIG: dict[str, Range] = {
  "seed": Range(lambda v: 0 <= v < 2**32, "a whole number from 0 to 4294967295"),
  "resume": _names(("override",), empty=True),
  "build": Range(
    lambda v: bool(re.fullmatch(r"|digits|sample:.+", v)),
    '`digits`, `sample:TASK`, or ""',
    ("digits", "sample:TASK"),
  ),
  "mesh": Range(_is_mesh, "a mesh of configs/meshes.py", meshes.MESHES),
  "log_every": _count(1),
  "wandb": Range(
    lambda v: bool(re.fullmatch(r"|[^/\s]+(/[^/\s]+)?", v)), '`PROJECT`, `ENTITY/PROJECT`, or ""'
  ),
  "model.preset": _names(variants.PRESETS, empty=True),
  "model.res": _count(0),
  "model.init": _TEXT,
  "model.dtype": _names(DTYPES, empty=True),
  "model.remat": _names(("none", *REMAT)),
  "model.remat_img": _names(("none", *REMAT), empty=True),
  "model.dropout": _BELOW_1,
  "model.quant": _accepted(
    lambda v: v and tree.check_quant(v), 'a form of docs/adapters.md, or ""'
  ),
  "model.adapter": _TEXT,
  "model.settings.final_logits_softcap": _optional(_NOT_NEGATIVE),
  "model.settings.attn_logits_softcap": _optional(_NOT_NEGATIVE),
  "model.settings.sliding_window": _optional(_count(0)),
  "model.settings.query_pre_attn_norm": _optional(_names(variants.QUERY_NORMS)),
  "input.text_len": _count(1),
  "input.resize": _names(image.METHODS, empty=True),
  "input.alpha": _names(image.ALPHAS, empty=True),
  "input.tokenizer": _TEXT,
  "input.codec": _TEXT,
  "input.truncate": _SWITCH,
  "input.max_unreadable": _count(0),
  "train.epochs": _NOT_NEGATIVE,
  "train.steps": _count(0),
  "train.patience": _count(0),
  "train.batch_size": _count(1),
  "train.recipe": _names(recipes.RECIPES),
  "train.lora.targets": _TEXT,
  "train.lora.rank": _count(1),
  "train.lora.alpha": _POSITIVE,
  "train.lora.dropout": _BELOW_1,
  "train.lora.rslora": _SWITCH,
  "train.lora.dora": _SWITCH,
  "train.lora.rank_pattern": _pairs(_count(1)),
  "train.lora.alpha_pattern": _pairs(_POSITIVE),
  "train.lr": _NOT_NEGATIVE,
  "train.weight_decay": _NOT_NEGATIVE,
  "train.wd_mults": _pairs(_NOT_NEGATIVE),
  "train.optimizer": _names(optimizer.TRANSFORMS, empty=True),
  "train.b1": _BELOW_1,
  "train.b2": _BELOW_1,
  "train.mu_dtype": _names(DTYPES, empty=True),
  "train.momentum": _BELOW_1,
  "train.ema_decay": _BELOW_1,
  "train.accumulate": _count(1),
  "train.mean_over": _names(step.LOSSES),
  "train.grad_clip_norm": _NOT_NEGATIVE,
  "train.label_smoothing": _BELOW_1,
  "train.lr_mults": _pairs(_POSITIVE),
  "train.freeze": _all(_is_regex, "regular expressions"),
  "train.workers": _count(0),
  "checkpoint.every": _count(1),
  "checkpoint.keep": _count(1),
  "checkpoint.keep_every": _count(0),
  "checkpoint.best": _TEXT,
}
# Of `train.schedule` and of each of `train.schedules`.
SCHEDULE: dict[str, Range] = {
  "params": _REGEX,
  "decay_type": _names(schedule.DECAYS, empty=True),
  **{f"{part}_{unit}": _optional(_SHARE if unit == "percent" else _NOT_NEGATIVE)
     for part in ("warmup", "cooldown") for unit in schedule.UNITS},
  "end": _NOT_NEGATIVE,
  "linear_end": _NOT_NEGATIVE,
  "power": _POSITIVE,
  "timescale": _POSITIVE,
  "shift": _NOT_NEGATIVE,
  "steps": _all(lambda v: _is_number(v) and v >= 0, "numbers from 0 on"),
  "mults": _all(lambda v: _is_number(v) and v >= 0, "numbers from 0 on"),
}  # fmt: skip
# Of each of `train.data`, and of the `data` of an evaluation.
SOURCE: dict[str, Range] = {
  "kind": _TEXT,  # opening it tells of an unknown one
  "path": _TEXT,
  "name": _TEXT,
  "split": _TEXT,
  "data_dir": _TEXT,
  "fields": _all(lambda v: len(v) == 2 and all(isinstance(x, str) for x in v), "pairs of keys"),
  "boxes": _names(layout.BOXES),
  "max_images": _count(0),
  "where": _TEXT,
  "task": _names(tasks.TASKS),
  "prefix": _TEXT,
  "suffix": _TEXT,
  "weight": _NOT_NEGATIVE,
  "augment": _accepted(augment.parse, "steps of processing/augment.py"),
  "lower": _SWITCH,
  "draw": _names(tasks.DRAWS),
  "resize": _names(image.METHODS, empty=True),
  "fit": _names(tasks.FITS),
  "outline": _TEXT,
  "frames": _count(0),
  "stride": _count(0),
  "noise": _count(0),
}
# Of each of `evals`.
EVALUATION: dict[str, Range] = {
  "metric": _names(METRICS, empty=True),
  "every": _number("a fraction of the training, above 0 and up to 1", lambda v: 0 < v <= 1),
  "max_new_tokens": _count(1),
  "batch_size": _count(1),
  "sampler": _accepted(samplers.parse, "a sampler of docs/decode.md"),
  "limit": _count(0),
  "constrain": _accepted(lambda v: v and grammar.check(v), 'a grammar of docs/decode.md, or ""'),
  "answers": _all(lambda v: isinstance(v, str), "texts"),
}
# Of each of `expect`.
EXPECTED: dict[str, Range] = {
  "scores": _all(lambda v: isinstance(v, str), "names EVALUATION/METRIC"),
  "value": _number("a finite number"),
  "std": _optional(_NOT_NEGATIVE),
  "source": _TEXT,
}


def problems(config: Mapping[str, Any]) -> list[str]:
  """One line for every value of a whole config (nested dicts) that cannot be."""
  found = []
  for path, value, allowed in _values(config):
    try:
      holds = allowed.holds(value)
    except errors.UserError as e:
      found.append(f"{path}: {e}")
      continue
    except (TypeError, ValueError, OverflowError):  # of another type within a tuple, or too large
      holds = False
    if not holds and allowed.known is not None and isinstance(value, str):
      found.append(f'{path}: "{value}" is unknown{errors.did_you_mean(value, allowed.known)}')
    elif not holds:
      found.append(f"{path} must be {allowed.words}; found {value!r}")
  return found


def _values(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Range]]:
  """(dotted key, value, its range) of everything in a config."""
  train, evals = config["train"], config["evals"]
  groups = [("train.schedule.", train["schedule"], SCHEDULE)]
  groups += [(f"train.schedules.{n}.", part, SCHEDULE) for n, part in train["schedules"].items()]
  groups += [(f"train.data.{n}.", part, SOURCE) for n, part in train["data"].items()]
  groups += [(f"evals.{n}.", part, EVALUATION) for n, part in evals.items()]
  groups += [(f"evals.{n}.data.", part.get("data", {}), SOURCE) for n, part in evals.items()]
  groups += [(f"expect.{n}.", part, EXPECTED) for n, part in config["expect"].items()]
  for path, allowed in CONFIG.items():
    yield path, functools.reduce(lambda part, key: part[key], path.split("."), config), allowed
  for prefix, part, ranges in groups:
    for key in part.keys() & ranges.keys() if isinstance(part, Mapping) else ():
      yield prefix + key, part[key], ranges[key]


def table() -> list[tuple[str, str]]:
  """(key, what it may be) of all of them, as docs/config.md has it."""
  parts = {
    "": CONFIG, "train.schedules.NAME.": SCHEDULE, "train.data.NAME.": SOURCE, "evals.NAME.": EVALUATION,
    "expect.NAME.": EXPECTED,
  }  # fmt: skip
  return [(p + key, one.words) for p, ranges in parts.items() for key, one in ranges.items()]
