"""results.json and results.html: scores of one or several transfers beside the published ones.

Every score has its 95 % bootstrap interval and, where one is published, that with its deviation and
source, the difference, and whether it is reached (`expected`). The page needs nothing else: pictures
are in it, those of several transfers in a page of each.
"""

import dataclasses
import html
import json
import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paligemma_jax import metrics, storage
from paligemma_jax.evals import calibration, charts, expected, gallery, theme

Values = Mapping[str, tuple[float, float | None, float | None]]  # score -> value, low, high
PAGE = "results.html"
_MOST = 50  # rows from the beginning of an evaluation, and as many of the worst
_PICTURES = 1200  # of a page, some 10 kB each; its evaluations share them
_LEAST = 4  # of the first, and of the worst, however many evaluations there are
MARKS = {True: "pass", False: "FAIL", None: "not scored"}
_STYLE = """
td.pass { color: var(--right); font-weight: 600; } td.fail { color: var(--prediction); font-weight: 600; }
.results a { color: inherit; text-decoration-color: var(--rule); } 
.results td.wide { width: 14%; min-width: 100px; } .results th, .results td { padding: 7px 11px; }
.results td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 120px; }
"""


@dataclasses.dataclass(frozen=True)
class Score:
  """One line of the table; what is not known is None."""

  transfer: str
  score: str  # EVALUATION/METRIC, or the name of a mean over several evaluations
  evaluations: tuple[str, ...] = ()  # what it is of
  value: float | None = None  # as metrics give it: 0..1, CIDEr 0..10, nats
  low: float | None = None  # of the 95 % interval; of a mean the means of the ends: rather too wide
  high: float | None = None
  published: float | None = None
  std: float | None = None  # of the published runs
  difference: float | None = None  # value - published
  passed: bool | None = None
  source: str = ""  # of the published score
  config: str = ""  # as the command line named it
  ckpt: str = ""

  @property
  def mark(self) -> str:
    """ "pass", "FAIL" or "not scored" beside a published score, else ""."""
    return "" if self.published is None else MARKS[self.passed]


def with_intervals(metric: str | Callable, scores: Mapping, rows: list[dict]) -> Values:
  """The scores of an evaluation with the ends of their intervals, None for what has none.

  Args:
    metric: what scored.
    scores, rows: as `runner.run` returns them.
  """
  ends = metrics.interval(metrics.resolve(metric), rows)
  return {name: (value, *ends.get(name, (None, None))) for name, value in scores.items()}


def collect(
  transfer: str,
  scored: Mapping[str, Values],
  expect: Mapping[str, Mapping[str, Any]],
  config: str = "",
  ckpt: str = "",
) -> list[Score]:
  """The lines of one transfer: what is published, then all else that was scored, each in order.

  Args:
    transfer: its name.
    scored: evaluation -> its scores, as `with_intervals` makes them.
    expect: the config's; see `expected.compare`.
    config, ckpt: what was evaluated, for readers.
  """
  about, lines = dict(config=config, ckpt=ckpt), {}
  for name, scores in scored.items():
    for key, ends in scores.items():
      lines[f"{name}/{key}"] = Score(transfer, f"{name}/{key}", (name,), *ends, **about)
  values = {name: {key: v[0] for key, v in scores.items()} for name, scores in scored.items()}
  intervals = {name: (line.low, line.high) for name, line in lines.items() if line.low is not None}
  for one in expected.compare(expect, values):
    name = one.name.removeprefix("-")
    line = lines.get(name)
    if line is None:
      of = tuple(score.partition("/")[0] for score in expect[one.name]["scores"])
      parts = [intervals.get(score) for score in expect[one.name]["scores"]]
      ends = [_mean(part) for part in zip(*parts)] if None not in parts else (None, None)
      line = Score(transfer, name, of, one.value, *ends, **about)
    lines[name] = dataclasses.replace(
      line,
      published=one.published,
      std=one.std,
      difference=None if one.value is None else one.value - one.published,
      passed=one.passed,
      source=one.source,
    )
  return sorted(lines.values(), key=lambda line: line.published is None)


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)


def cells(scores: Sequence[Score]) -> list[tuple[str, ...]]:
  """The table as text, its head first.

  Columns are transfer, score, value, 95 %, published, deviation, difference, mark and source; that of
  the transfer is left out for a single one, those from "published" on where nothing is published.
  """
  rows = [("transfer", "score", "value", "95 %", "published", "±", "difference", "", "source")]
  for one in scores:
    numbers = (_number(one.published), _number(one.std), _number(one.difference, "+"))
    rows.append(
      (one.transfer, one.score, _number(one.value), _ends(one), *numbers, one.mark, one.source)
    )
  start = 0 if len({one.transfer for one in scores}) > 1 else 1
  end = None if any(one.published is not None for one in scores) else 4
  return [row[start:end] for row in rows]


def _number(value: float | None, sign: str = "") -> str:
  if value is None:
    return ""
  return f"{value:{sign}.4f}" if math.isfinite(value) and abs(value) < 100 else charts.number(value)


def _ends(one: Score) -> str:
  return "" if one.low is None else f"{_number(one.low)} – {_number(one.high)}"


def to_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
  """Objects with the fields of `Score` as JSON holds them, null for numbers that are not finite."""

  def known(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value

  objects = [{k: known(v) for k, v in dataclasses.asdict(one).items()} for one in scores]
  return json.loads(json.dumps(objects))


def write_json(path: storage.Path, scores: Sequence[Score]) -> None:
  """A list of the objects of `to_json`, one a line."""
  lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in to_json(scores))
  storage.write_whole(path, f"[\n{lines}\n]\n")


def write_page(
  path: storage.Path, title: str, scores: Sequence[Score], predictions: str = ""
) -> None:
  """Writes the table, and the predictions of one transfer if they are given, whole or not at all.

  Args:
    path: of the HTML file.
    title: what was evaluated.
    scores: of all transfers.
    predictions: as `predictions` makes them; "": the table leads to TRANSFER/results.html.
  """
  tables = _table(scores) if predictions else _overview(scores)
  about = {f"{one.config} · {one.ckpt}": None for one in scores if one.config}
  about = f"{html.escape(next(iter(about)))}<br>" if len(about) == 1 else ""
  body = f'<h1>{html.escape(title)}</h1><p class="lead">{about}{_counts(scores)}</p>'
  footer = (
    "Written by paligemma_jax. Scores are fractions, 0 to 1, CIDEr 0 to 10, perplexity in nats;"
    " intervals are 95 % of a bootstrap over examples. A line on a bar is the published score."
  )
  storage.write_whole(path, theme.page(title, body + tables + predictions, footer, _STYLE))


def _counts(scores: Sequence[Score]) -> str:
  passed = [one.passed for one in scores if one.published is not None]
  words = {True: "reached", False: "not reached", None: "not scored"}
  counts = [f"{passed.count(p)} {word}" for p, word in words.items() if p in passed]
  return f"Published scores: {', '.join(counts)}" if counts else "No published scores"


def _overview(scores: Sequence[Score]) -> str:
  """The published scores of all transfers, or all of one without; the rest is on its own page."""
  by_transfer: dict[str, list[Score]] = {}
  for one in scores:
    by_transfer.setdefault(one.transfer, []).append(one)
  rows = []
  for name, found in by_transfer.items():
    page = f"./{urllib.parse.quote(name)}/results.html"
    shown = [one for one in found if one.published is not None] or found
    cells = [_cells(one, page) for one in shown]
    if len(found) > len(shown):
      more = f"and {len(found) - len(shown)} more"
      cells.append(f'<td colspan="8" class="small"><a href="{page}">{more}</a></td>')
    about = html.escape(f"{found[0].config}\n{found[0].ckpt}".strip(), quote=True)
    for i, cell in enumerate(cells):
      group = f'<a href="{page}">{html.escape(name)}</a>' if i == 0 else ""
      same = "" if i + 1 == len(cells) else "same"
      rows.append(f'<tr class="{same}"><td class="group" title="{about}">{group}</td>{cell}</tr>')
  return _framed(rows, "transfer")


def _table(scores: Sequence[Score]) -> str:
  return _framed([f"<tr>{_cells(one)}</tr>" for one in scores])


def _cells(one: Score, page: str = "") -> str:
  """The cells of a line; its name leads to its first gallery on `page`, by default the same."""
  name = html.escape(one.score)
  if one.value is not None:
    link = html.escape(f"{page}#gallery-{''.join(one.evaluations[:1])}", quote=True)
    name = f'<a href="{link}">{name}</a>'
  css = {True: "pass", False: "fail", None: "small"}[one.passed]
  std = f' <span class="small">± {_number(one.std)}</span>' if one.std is not None else ""
  bar = "" if one.value is None else charts.bar(one.value, one.published, "published")
  return (
    f'<td>{name}</td><td class="num"><b>{_number(one.value)}</b></td>'
    f'<td class="num small">{_ends(one)}</td><td class="wide">{bar}</td>'
    f'<td class="num">{_number(one.published)}{std}</td>'
    f'<td class="num">{_number(one.difference, "+")}</td><td class="{css}">{one.mark}</td>'
    f'<td class="small">{html.escape(one.source)}</td>'
  )


def _framed(rows: Sequence[str], *before: str) -> str:
  heads = (*before, "evaluation", "score", "95 %", "", "published", "difference", "", "source")
  right = ("score", "95 %", "published", "difference")
  head = "".join(f'<th class="{"num" if h in right else ""}">{h}</th>' for h in heads)
  return (
    f'<div class="card scroll results"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def predictions(
  rows: Mapping[str, list[dict]],
  see: Callable[[str, list[dict]], list[dict]] = lambda name, rows: rows,
) -> str:
  """HTML: galleries of the first and the worst predictions, and how far scores of boxes can be believed.

  Args:
    rows: evaluation -> its rows, as `runner.run` returns them.
    see: (evaluation, rows to be shown) -> the same rows with pictures that can be read.
  """
  share = max(_LEAST, min(_MOST, _PICTURES // 2 // max(len(rows), 1)))
  sections = [
    gallery.section(name, found, share, share, lambda shown, name=name: see(name, shown))
    for name, found in rows.items()
  ]
  return f"{calibration.figures(rows)}<h2>Predictions</h2>{gallery.legend()}{''.join(sections)}"
