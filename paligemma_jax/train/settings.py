"""The config of a run: checked against `transfers/common.py`, stored, compared with the stored one.

`transfers/common.base()` names every key there is and, by its values, their types, so there is no
second list here. Starts no JAX backend.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from paligemma_jax import errors, storage
from paligemma_jax.models import variants
from paligemma_jax.train import best, provenance, ranges, recipes, schedule, table
from paligemma_jax.transfers import common

CONFIG = "config.json"

# What may differ when a run goes on: it changes neither the parameters nor the order of the data
# (another mesh changes the sums' order only).
HARMLESS = (
  "resume", "build", "mesh", "log_every", "wandb", "evals", "expect", "checkpoint", "train.workers", "model.remat",
  "model.remat_img", "input.max_unreadable",
)  # fmt: skip


def check(
  config: Mapping | ml_collections.ConfigDict, train: bool = True
) -> ml_collections.ConfigDict:
  """Returns the whole config, every key of `common.base()` in it, the recipe's values filled in.

  Args:
    config: as `get_config` returns it, or nested dicts with some of its keys; what is absent has
      the value of `common.base()`.
    train: whether it is to be trained with, and not only evaluated.

  Raises:
    UserError: one line for every key that does not exist (with the nearest that does), value of
      another type or out of range.
  """
  given = _plain(config)
  base = common.base()
  findings = _compare_keys(given, base, "")
  if not findings:
    whole = _whole(given)
    findings = _compare_values(whole, train)
  if findings:
    raise errors.UserError("\n".join(findings))
  train = recipes.resolve(whole["train"])
  for _, options in (*train.pop("rules"), *train.pop("otherwise")):  # follow from the other keys
    if options is not None:
      schedule.make(100, batch_size=1, data_size=1, **options)  # its own words about options
  whole["train"] = train
  return ml_collections.ConfigDict(whole).lock()


def _whole(given: dict) -> dict:
  """With the value of `common.base()`, or of a source's kind, for every key that is absent."""
  whole = _merged(common.base().copy_and_resolve_references().to_dict(), given)
  for name, parts in (("train.data", whole["train"]["data"]), ("evals", whole["evals"])):
    parts |= {entry: _merged(_like(name, part).to_dict(), part) for entry, part in parts.items()}
  return whole


def _plain(config: Any) -> Any:
  """ConfigDicts and mappings -> dicts; lists -> tuples."""
  if isinstance(config, ml_collections.ConfigDict):
    config = dict(config.items())
  if isinstance(config, Mapping):
    return {key: _plain(value) for key, value in config.items()}
  return tuple(map(_plain, config)) if isinstance(config, (list, tuple)) else config


def _merged(base: dict, given: dict) -> dict:
  merged = dict(base)
  for key, value in given.items():
    nested = isinstance(value, dict) and isinstance(base.get(key), dict)
    merged[key] = _merged(base[key], value) if nested else value
  return merged


def _compare_keys(given: dict, base: ml_collections.ConfigDict, path: str) -> list[str]:
  """One line for every key of `given` that `base` does not have or that is of another type."""
  findings = []
  for key, value in given.items():
    name = f"{path}{key}"
    if name in ("train.schedule", "train.schedules", "expect"):
      continue  # the first two's keys depend on the decay; schedule.make checks them
    if name in ("train.data", "evals"):
      for entry, part in value.items():
        findings += _compare_keys(part, _like(name, part), f"{name}.{entry}.")
    elif key not in base:
      findings.append(f'config has no key "{name}"{errors.did_you_mean(key, base)}')
    elif isinstance(base[key], ml_collections.ConfigDict):
      if isinstance(value, dict):
        findings += _compare_keys(value, base[key], f"{name}.")
      else:
        findings.append(f"config.{name} is a group of keys, found {value!r}")
    elif not _fits(value, base.get_type(key), base[key] is None):
      kind = base.get_type(key).__name__
      findings.append(f"config.{name} takes {kind} (e.g. {base[key]!r}), found {value!r}")
  return findings


def _like(name: str, part: dict) -> ml_collections.ConfigDict:
  """A source, or an evaluation of one, with every key that its kind has."""
  source = part if name == "train.data" else part.get("data", {})
  kind = source.get("kind", "jsonl") if isinstance(source, dict) else "jsonl"
  like = common.SOURCES.get(kind, common.jsonl)("")  # opening it tells of an unknown kind
  return like if name == "train.data" else common.evaluate(like, "")


def _fits(value: Any, kind: type, optional: bool) -> bool:
  if value is None:
    return optional
  if kind is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, kind)


def _compare_values(c: dict, has_data: bool) -> list[str]:
  """One line for every value that cannot be; `has_data`: there must be something to train on."""
  found, train, model = ranges.problems(c), c["train"], c["model"]
  if not (model["preset"] or model["init"]):
    found.append(
      "model.init is empty, and so is model.preset: name the checkpoint to start from (init=FILE of"
      " forkme.py), or the preset to begin with random parameters (init=none)"
    )
  if model["preset"] in variants.PRESETS:
    patch = variants.PRESETS[model["preset"]][0].patch_size
    if 0 < model["res"] < patch:
      found.append(f"model.res {model['res']} is less than a patch of {model['preset']}, {patch}")
  if has_data and not train["data"]:
    found.append("train.data is empty; name at least one source")
  if has_data and not (train["steps"] or train["epochs"]):
    found.append("train.steps and train.epochs are both 0; say how long to train")
  if train["accumulate"] > 0 and train["batch_size"] % train["accumulate"]:
    found.append(
      f"train.batch_size {train['batch_size']} cannot be cut into {train['accumulate']} equal"
      " pieces; choose train.accumulate so that it divides"
    )
  for name, options in train["schedules"].items():
    if not isinstance(options, dict) or "params" not in options:
      found.append(f'train.schedules.{name} needs a key "params", a regex over parameter names')
  criterion = best.Criterion.of(c["checkpoint"]["best"])
  if c["checkpoint"]["best"]:
    if criterion.name not in c["evals"]:
      hint = errors.did_you_mean(criterion.name, c["evals"])
      found.append(f'checkpoint.best names the evaluation: "{criterion.name}" is unknown{hint}')
    if not criterion.metric:
      found.append(
        f'checkpoint.best: "{criterion.name}" needs a metric, e.g. {criterion.name}/NAME'
      )
  elif train["patience"]:
    found.append("train.patience needs checkpoint.best, the score to wait for")
  for name, e in c["evals"].items():
    if e["constrain"] and e["answers"]:
      found.append(f"evals.{name} has both constrain and answers; keep one")
  return found


def check_stored(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
  """Checks that a WORKDIR/config.json, if there is one, asks for the same result as `config`.

  Raises:
    UserError: a key that changes the result differs and `resume` is not "override"; the message is
      a table of all such keys.
  """
  path = storage.path(workdir) / CONFIG
  if path.exists() and config.resume != "override":
    differences = compare(_stored(path), plain(config))
    if differences:
      raise errors.UserError(_table(differences, f"{path} was made with another config"))


def _stored(path: storage.Path) -> dict:
  try:
    found = json.loads(path.read_text())
    table.leaves(found)
    return plain(ml_collections.ConfigDict(_whole(_plain(found))))  # keys that are newer than it
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
    raise errors.UserError(
      f"{path} is no config of a run ({e}); --config.resume=override writes it anew"
    ) from None


def check_data(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike, data: Mapping[str, str]
) -> None:
  """Checks that the data of a run that goes on are those of its last start.

  Args:
    config: as in `check_stored`.
    workdir: with a runs.jsonl, where the last start left the hashes.
    data: name of every source -> hash of its records now.

  Raises:
    UserError: they differ and `resume` is not "override"; a table, as of `check_stored`.
  """
  stored = provenance.last_data(workdir)
  changed = [
    (f"train.data.{name}", stored[name], now)
    for name, now in data.items()
    if stored.get(name, now) != now
  ]
  if changed and config.resume != "override":
    raise errors.UserError(
      _table(changed, f"{storage.path(workdir) / provenance.RUNS}: the data have changed")
    )


def store(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
  """Writes WORKDIR/config.json, whole or not at all; makes the folder if needed."""
  text = json.dumps(plain(config) | {"resume": ""}, indent=2) + "\n"
  storage.write_whole(storage.path(workdir) / CONFIG, text)


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config as JSON holds it: dicts, lists, strings, numbers. A callable is its name."""
  return json.loads(json.dumps(config.to_dict(), default=lambda x: getattr(x, "__name__", str(x))))


def compare(stored: dict, now: dict) -> list[tuple[str, Any, Any]]:
  """(dotted key, stored value, value now) where two configs differ in what changes the result."""
  a, b = table.leaves(stored), table.leaves(now)
  return [
    (key, a.get(key), b.get(key))
    for key in [*a, *(k for k in b if k not in a)]
    if a.get(key) != b.get(key) and not any(f"{key}.".startswith(f"{h}.") for h in HARMLESS)
  ]


def _table(differences: list[tuple[str, Any, Any]], what: str) -> str:
  rows = [("key", "stored", "now"), *((k, repr(a), repr(b)) for k, a, b in differences)]
  widths = [max(len(row[i]) for row in rows) for i in range(2)]
  lines = [f"  {k:{widths[0]}}  {a:{widths[1]}}  {b}" for k, a, b in rows]
  return "\n".join(
    [
      f"{what}; use another workdir, or --config.resume=override to go on with what is now:",
      *lines,
    ]
  )
