"""Several runs side by side, from what their workdirs hold: seeds, sweeps. Loads no JAX."""

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paligemma_jax import errors, storage
from paligemma_jax.train import best
from paligemma_jax.train import log as logs

_CEILING = "_ceiling"  # METRIC_ceiling: what METRIC could be at most, the same in every run


@dataclasses.dataclass(frozen=True)
class Run:
  """What one workdir tells."""

  workdir: str
  config: dict[str, Any]  # dotted key -> value
  step: int  # the last one in metrics.jsonl
  figures: dict[str, float]  # head of the column -> value


def read(workdir: str | os.PathLike) -> Run:
  """Reads config.json and metrics.jsonl of a workdir.

  Its figures are "loss", the last of training; the newest value of every score, "NAME/METRIC";
  "best NAME/METRIC" where `checkpoint.best` names one; and "examples/s", the median of all lines.

  Raises:
    UserError: it is no workdir.
  """
  path = storage.path(workdir) / "config.json"
  try:
    config = leaves(json.loads(path.read_text()))
    config["seed"] + 0, config.get("checkpoint.best", "") + ""
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise errors.UserError(
      f"{workdir} is no workdir of a training: it has no config.json of one; several checkpoints"
      " are looked at one by one"
    ) from None
  figures, scores, rates = {}, {}, []
  lines = logs.read_metrics(workdir)
  for line in lines:
    figures |= {"loss": line["loss"]} if "loss" in line else {}
    rates += [line["examples_per_second"]] if "examples_per_second" in line else []
    for key, value in line.items():
      if key.startswith(logs.EVAL) and not key.endswith(_CEILING):
        scores[key.removeprefix(logs.EVAL)] = value
  figures |= scores
  if config.get("checkpoint.best"):
    criterion = best.Criterion.of(config["checkpoint.best"])
    if first := best.first_best(best.scores(workdir, criterion), criterion.sign):
      figures[f"best {criterion.name}/{criterion.metric}"] = first[1]
  if rates:
    figures["examples/s"] = statistics.median(rates)
  return Run(str(workdir), config, lines[-1]["step"] if lines else 0, figures)


def rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
  """The table: a head, a row for each run, a row for each group that differs in `seed` alone.

  Columns are the workdir, the config's keys that differ between the runs, the step, and all figures.
  The row of a group has the mean ± the standard deviation of its runs (of the sample, n - 1).
  """
  keys = [
    key
    for key in dict.fromkeys(key for run in runs for key in run.config)
    if any(run.config.get(key) != runs[0].config.get(key) for run in runs)
  ]
  names = [n for n in dict.fromkeys(n for run in runs for n in run.figures) if n != "examples/s"]
  names += ["examples/s"] if any("examples/s" in run.figures for run in runs) else []
  table = [("workdir", *keys, "step", *names)]
  for run in runs:
    table.append(_row(run.workdir, keys, [run], names, lambda values: f"{values[0]:.4g}"))
  for group in _groups(runs):
    title, others = f"{len(group)} seeds", [key for key in keys if key != "seed"]
    cells = _row(title, others, group, names, _mean)
    if "seed" in keys:
      at = 1 + keys.index("seed")
      cells = (*cells[:at], "", *cells[at:])
    table.append(cells)
  return table


def leaves(config: Mapping, prefix: str = "") -> dict[str, Any]:
  """Nested config -> dotted key -> value."""
  flat = {}
  for key, value in config.items():
    nested = isinstance(value, Mapping)
    flat |= leaves(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
  return flat


def _row(
  title: str,
  keys: Sequence[str],
  runs: Sequence[Run],
  names: Sequence[str],
  show: Callable[[list[float]], str],
) -> tuple[str, ...]:
  """Of runs that agree in `keys`; what one of them lacks is left empty."""
  shown = [_word(runs[0].config.get(key, "")) for key in keys]
  steps = {run.step for run in runs}
  shown.append(str(*steps) if len(steps) == 1 else "")
  for name in names:
    values = [run.figures[name] for run in runs if name in run.figures]
    shown.append(show(values) if len(values) == len(runs) else "")
  return (title, *shown)


def _word(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)


def _mean(values: list[float]) -> str:
  if not all(map(math.isfinite, values)):  # a run that diverged; statistics cannot
    return "not finite"
  return f"{statistics.mean(values):.4g} ± {statistics.stdev(values):.2g}"


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
  """Runs whose configs differ in nothing but `seed`, where there are two or more."""
  groups: dict[str, list[Run]] = {}
  for run in runs:
    rest = {key: value for key, value in run.config.items() if key != "seed"}
    groups.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
  return [group for group in groups.values() if len(group) > 1]
