"""report.html: a whole run on one page that needs nothing else, neither network nor plots library.

Made from what a workdir holds: config.json, metrics.jsonl (`train.log`) and predictions/NAME.jsonl.
Whatever of it is missing is left out.
"""

import html
import json
import math
import os
from collections.abc import Iterable

from paligemma_jax import storage
from paligemma_jax.evals import calibration, charts, gallery, predictions, theme

_EVAL = "eval/"  # a score's key in metrics.jsonl is eval/NAME/METRIC
_CEILING = "_ceiling"  # METRIC_ceiling: what METRIC could be at most
_PICTURES = 24  # in each gallery
_CURVES = {  # key in metrics.jsonl -> title; the rest is not drawn
  "loss": "Training loss (nats per example)",
  "lr": "Learning rate",
  "l2_grads": "Gradient norm, before clipping",
  "seconds_per_step": "Seconds per step",
}

Scores = dict[str, dict[str, list[tuple[int, float]]]]  # eval -> metric -> (step, value), by step


def write_report(workdir: str | os.PathLike) -> storage.Path:
  """Writes WORKDIR/report.html, whole or not at all, and returns its path."""
  workdir = storage.path(workdir)
  lines = _read_lines(workdir / "metrics.jsonl")
  config = _read_json(workdir / "config.json")
  scores, rows = _scores(lines), predictions.read_all(workdir)
  parts = [
    _header(workdir.resolve().name, config, lines),
    _facts(config, lines),
    _table(scores, {name: len(r) for name, r in rows.items()}),
    _curves(lines, scores),
    calibration.figures(rows),
  ]
  if rows:
    names = [n for n in scores if n in rows] + [n for n in rows if n not in scores]
    sections = "".join(gallery.section(name, rows[name], _PICTURES) for name in names)
    parts.append(f"<h2>Validation pictures</h2>{gallery.legend()}{sections}")
  footer = "Written by paligemma_jax. Scores are fractions, 0 to 1, unless named otherwise."
  path = workdir / "report.html"
  storage.write_whole(path, theme.page(workdir.resolve().name, "".join(parts), footer))
  return path


def _read_lines(path: storage.Path) -> list[dict]:
  """Whole lines of metrics.jsonl; of a step that was run twice (after a restart) the later stays."""
  lines = [storage.of_step(line, path) for line in storage.read_lines(path)]
  latest = {(line["step"], key): line[key] for line in lines for key in line if key != "step"}
  by_step: dict[int, dict] = {}
  for (step, key), value in latest.items():
    by_step.setdefault(step, {"step": step})[key] = value
  return [by_step[step] for step in sorted(by_step)]


def _read_json(path: storage.Path) -> dict:
  return json.loads(path.read_text()) if path.exists() else {}


def _scores(lines: Iterable[dict]) -> Scores:
  scores: Scores = {}
  for line in lines:
    for key, value in line.items():
      if key.startswith(_EVAL) and isinstance(value, int | float):
        name, _, metric = key.removeprefix(_EVAL).partition("/")
        scores.setdefault(name, {}).setdefault(metric, []).append((line["step"], value))
  return scores


def _header(name: str, config: dict, lines: list[dict]) -> str:
  step = lines[-1]["step"] if lines else 0
  model = config.get("model", {})
  what = model.get("preset") or model.get("init") or "a PaliGemma"
  text = f"{what}, trained for {step:,} steps" if step else f"{what}"
  return f'<h1>{html.escape(name)}</h1><p class="lead">{html.escape(text)}</p>'


def _facts(config: dict, lines: list[dict]) -> str:
  """What the run was, in a dozen settings, and all of them folded away."""
  model, inputs, train = (config.get(k, {}) for k in ("model", "input", "train"))
  last = lines[-1] if lines else {}
  facts = {
    "preset": model.get("preset"),
    "initialised from": model.get("init") or ("random" if model else None),
    "resolution": f"{model['res']} px" if model.get("res") else None,
    "text length": f"{inputs['text_len']} tokens" if inputs.get("text_len") else None,
    "recipe": train.get("recipe"),
    "optimizer": train.get("optimizer"),
    "learning rate": charts.number(train["lr"]) if train.get("lr") else None,
    "schedule": (train.get("schedule") or {}).get("decay_type"),
    "weight decay": charts.number(train["weight_decay"]) if train.get("weight_decay") else None,
    "batch size": train.get("batch_size"),
    "steps": last.get("step"),
    "examples seen": f"{last['step'] * train['batch_size']:,}"
    if last and train.get("batch_size")
    else None,
    "mesh": config.get("mesh"),
    "seed": config.get("seed"),
    "trained on": ", ".join(train.get("data") or {}),
  }
  facts = {k: v for k, v in facts.items() if v not in (None, "")}
  if not facts:
    return ""
  cells = "".join(
    f"<div><dt>{k}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in facts.items()
  )
  whole = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
  return (
    f'<dl class="card facts">{cells}</dl><details><summary>the whole config</summary>'
    f'<pre class="card">{whole}</pre></details>'
  )


def _table(scores: Scores, counts: dict[str, int]) -> str:
  """Every evaluation's last scores; a line on the bar marks the ceiling."""
  rows = []
  for name, by_metric in scores.items():
    metrics = [m for m in by_metric if not m.endswith(_CEILING)]
    for i, metric in enumerate(metrics):
      step, value = by_metric[metric][-1]
      ceiling = by_metric.get(metric + _CEILING, [(0, None)])[-1][1]
      is_last = i + 1 == len(metrics)
      note = "" if ceiling is None else f"ceiling {ceiling:.3f}"
      rows.append(
        f'<tr class="{"" if is_last else "same"}"><td class="group">{"" if i else html.escape(name)}</td>'
        f'<td>{html.escape(metric)}</td><td class="num"><b>{_score(value)}</b></td>'
        f'<td class="wide">{charts.bar(value, ceiling, "ceiling")}</td><td class="small">{note}</td>'
        f'<td class="num small">{counts.get(name, "") if not i else ""}</td>'
        f'<td class="num small">{f"{step:,}" if not i else ""}</td></tr>'
      )
  if not rows:
    return ""
  return (
    '<h2>Scores</h2><div class="card scroll"><table><thead><tr><th>evaluation</th><th>metric</th>'
    '<th class="num">score</th><th></th><th></th><th class="num">examples</th><th class="num">step</th></tr>'
    f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
  )


def _score(value: float) -> str:
  return f"{value:.3f}" if math.isfinite(value) and abs(value) < 100 else charts.number(value)


def _curves(lines: list[dict], scores: Scores) -> str:
  figures = []
  for key, title in _CURVES.items():
    points = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    if len(points) >= 2:
      figures.append(_training_curve(title, key, points))
  for name, by_metric in scores.items():
    if max(len(points) for points in by_metric.values()) >= 2:
      figures.append(_score_curve(name, by_metric))
  if not figures:
    return ""
  return f'<h2>Curves</h2>{_waiting(lines)}<div class="charts">{"".join(figures)}</div>'


def _training_curve(title: str, key: str, points: list[tuple[int, float]]) -> str:
  steps, values = zip(*points)
  finite = [v for v in values if math.isfinite(v)]
  if not finite:
    return ""
  log = key in ("loss", "l2_grads") and min(finite) > 0 and max(finite) / min(finite) > 30
  lines = [charts.Series(key, steps, values)]
  if key != "lr" and len(steps) > 20:
    mean = charts.smoothed(values, len(steps) / 40)
    lines = [
      charts.Series(key, steps, values, faint=True),
      charts.Series("smoothed", steps, mean),
    ]
  key_ = f'<span class="key">last <b>{charts.number(lines[-1].values[-1])}</b></span>'
  from_zero = key in ("lr", "seconds_per_step") and max(finite) > 0
  bounds = (0.0, max(finite)) if from_zero else None
  return charts.figure(title, key_, charts.line_chart(lines, log=log, bounds=bounds))


def _score_curve(name: str, by_metric: dict[str, list[tuple[int, float]]]) -> str:
  lines, keys = [], []
  metrics = [m for m in by_metric if not m.endswith(_CEILING)]
  for color, metric in enumerate(metrics):
    for full in (metric, metric + _CEILING):
      points = [(s, v) for s, v in by_metric.get(full, ()) if math.isfinite(v)]
      if points:
        steps, values = zip(*points)
        lines.append(charts.Series(full, steps, values, color, dashed=full != metric))
    last = charts.number(by_metric[metric][-1][1])
    keys.append(
      f'<span class="key"><i style="background:var(--c{color % 6})"></i>'
      f"{html.escape(metric)} <b>{last}</b></span>"
    )
  if not lines:
    return ""
  fractions = all(0 <= v <= 1 for line in lines for v in line.values)
  chart = charts.line_chart(lines, bounds=(0.0, 1.0) if fractions else None)
  return charts.figure(name, "".join(keys), chart)


def _waiting(lines: list[dict]) -> str:
  """The share of the training time in which the device waited for data."""
  spent = [
    (line.get("seconds_per_step", 1.0), line["data_wait"]) for line in lines if "data_wait" in line
  ]
  total = sum(seconds for seconds, _ in spent)
  if not total:
    return ""
  share = sum(seconds * wait for seconds, wait in spent) / total
  return (
    f'<div class="card wait"><div class="bartitle"><h3>Time spent waiting for data</h3>'
    f'<span class="key"><b>{share:.1%}</b> of the training time</span></div>'
    f'<div class="bar"><i style="width:{share:.1%};background:var(--c1)"></i></div></div>'
  )
