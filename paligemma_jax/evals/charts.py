"""Charts as inline SVG: axes, grid, a hover title for every step, colours from the page's CSS.

Everything is text: a report needs no plotting library and no script. Colours are the CSS variables
--c0 … --c5, so that a chart follows the page from light to dark.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 28  # room for the numbers on the axes
_MAX_POINTS = 280  # about one for every second pixel
_COLORS = 6


@dataclasses.dataclass(frozen=True)
class Series:
  """One line of a chart."""

  name: str
  steps: Sequence[float]  # ascending
  values: Sequence[float]  # the same length; a value that is not finite leaves a gap
  color: int = 0  # which of the page's colours
  faint: bool = False  # the raw values behind a smoothed line
  dashed: bool = False  # a bound rather than a measurement


def line_chart(
  series: Sequence[Series],
  log: bool = False,
  bounds: tuple[float, float] | None = None,
  unit: str = "step",
) -> str:
  """An `<svg>` element with all series over one axis, of steps unless another is named.

  Args:
    series: at least one with a finite value; long ones are thinned to means of equal pieces.
    log: logarithmic value axis; needs positive values.
    bounds: of the value axis, lowest and highest; None takes them from the values.
    unit: what is counted along the axis; only steps are whole numbers.
  """
  series = [_thinned(s) for s in series]
  values = np.concatenate([np.asarray(s.values, float) for s in series])
  values = values[np.isfinite(values)]
  lo, hi = bounds or (values.min(), values.max())
  ticks = _log_ticks(lo, hi) if log else _ticks(lo, hi)
  lo, hi = min(lo, ticks[0]), max(hi, ticks[-1])
  first = min(s.steps[0] for s in series)
  last = max(s.steps[-1] for s in series)
  warp = math.log10 if log else float

  def x(step):
    return _LEFT + (step - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT)

  def y(value):
    return (
      _HEIGHT
      - _BOTTOM
      - (warp(value) - warp(lo)) / ((warp(hi) - warp(lo)) or 1) * (_HEIGHT - _TOP - _BOTTOM)
    )

  across = _step_ticks(first, last) if unit == "step" else _ticks_inside(first, last)
  parts = [_axes(x, y, across, ticks)]
  parts += [_line(s, x, y) for s in series]
  parts.append(_hits(series, x, y, unit))
  return (
    f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    f' aria-label="{html.escape(", ".join(s.name for s in series))}">{"".join(parts)}</svg>'
  )


def histogram(values: Sequence[float], width: float, unit: str, mark: float | None = None) -> str:
  """An `<svg>` element with a bar for every piece of `width` of the values' axis.

  Args:
    values: at least one, finite. A bar holds those from its left edge up to, but not at, its right.
    width: of a bar.
    unit: what is counted along the axis, for the titles of the bars: "tokens".
    mark: where a dashed line stands; a bar that lies beyond it has the second colour.
  """
  which = np.floor(np.asarray(values, float) / width + 1e-9).astype(int)
  first = min(which.min(), which.max() if mark is None else math.floor(mark / width))
  last = max(which.max() + 1, 0 if mark is None else math.ceil(mark / width))
  counts = np.bincount(which - first, minlength=last - first)
  ticks = _ticks(0, counts.max())

  def x(value):
    return _LEFT + (value / width - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

  def y(count):
    return _HEIGHT - _BOTTOM - count / ticks[-1] * (_HEIGHT - _TOP - _BOTTOM)

  parts = [_axes(x, y, _ticks_inside(first * width, last * width), ticks)]
  for k, count in enumerate(counts):
    start = (first + k) * width
    beyond = mark is not None and start >= mark
    parts.append(
      f'<rect x="{x(start) + 0.5:.1f}" width="{max(x(start + width) - x(start) - 1, 0.5):.1f}"'
      f' y="{y(count):.1f}" height="{_HEIGHT - _BOTTOM - y(count):.1f}"'
      f' style="fill:var(--c{int(beyond)})"><title>{start:g} to {start + width:g} {unit}: {count}'
      "</title></rect>"
    )
  if mark is not None:
    at = f"{x(mark):.1f}"
    ends = f'y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"'
    parts.append(
      f'<line class="line dashed" style="stroke:var(--ink)" x1="{at}" x2="{at}" {ends}/>'
    )
  return (
    f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    f' aria-label="{html.escape(unit)}">{"".join(parts)}</svg>'
  )


def bar(value: float, mark: float | None = None, what: str = "") -> str:
  """A bar of 0..1 with a line at `mark`, whose title says `what` it is; nothing for other values."""
  if not 0 <= value <= 1:
    return ""  # nats and counts have no full bar
  line = ""
  if mark is not None and 0 <= mark <= 1:
    line = f'<b style="left:{mark:.1%}" title="{what} {mark:.3f}"></b>'
  return f'<div class="bar"><i style="width:{value:.1%}"></i>{line}</div>'


def figure(title: str, keys: str, chart: str) -> str:
  """A chart with its title; `keys` is HTML that stands beside it."""
  caption = f"<figcaption><h3>{html.escape(title)}</h3>{keys}</figcaption>"
  return f'<figure class="card">{caption}{chart}</figure>'


def smoothed(values: Sequence[float], span: float) -> list[float]:
  """Exponential mean whose weights fall to 1/e after `span` values, unbiased at the start."""
  keep, total, weight, out = math.exp(-1 / max(span, 1e-9)), 0.0, 0.0, []
  for value in values:
    if math.isfinite(value):
      total, weight = keep * total + value, keep * weight + 1
    out.append(total / weight if weight else math.nan)
  return out


def number(value: float) -> str:
  """A number for people: 4 digits, thousands as k, small ones as 3e-5."""
  if not math.isfinite(value):
    return str(value)
  size = abs(value)
  if size and size < 1e-3:
    return f"{value:.2g}".replace("e-0", "e-")
  if size >= 1e6:
    return f"{value / 1e6:.4g}M"
  if size >= 1e4:
    return f"{value / 1e3:.4g}k"
  return f"{value:.4g}"


def _thinned(s: Series) -> Series:
  if len(s.steps) <= _MAX_POINTS:
    return s
  pieces = np.array_split(np.arange(len(s.steps)), _MAX_POINTS)
  values = np.asarray(s.values, float)
  finite = [values[p][np.isfinite(values[p])] for p in pieces]
  means = [float(v.mean()) if len(v) else math.nan for v in finite]
  return dataclasses.replace(s, steps=[s.steps[p[-1]] for p in pieces], values=means)


def _ticks(lo: float, hi: float, count: int = 4) -> list[float]:
  """Round numbers that enclose lo..hi in about `count` steps."""
  if hi <= lo:
    lo, hi = lo - (abs(lo) or 1) * 0.5, hi + (abs(hi) or 1) * 0.5
  rough = (hi - lo) / count
  base = 10 ** math.floor(math.log10(rough))
  step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= rough * 0.999)
  start, end = math.floor(lo / step + 1e-9), math.ceil(hi / step - 1e-9)
  return [i * step for i in range(start, end + 1)]


def _ticks_inside(first: float, last: float) -> list[float]:
  return [t for t in _ticks(first, last, 5) if first <= t <= last]


def _step_ticks(first: float, last: float) -> list[float]:
  inside = _ticks_inside(first, last)
  return [t for t in inside if t == int(t)] or [first]


def _log_ticks(lo: float, hi: float) -> list[float]:
  """Powers of ten that enclose lo..hi, or 1-2-5 steps where these are few."""
  low, high = math.floor(math.log10(lo)), math.ceil(math.log10(hi))
  factors = (1,) if high - low > 3 else (1, 2, 5)
  ticks = [f * 10.0**e for e in range(low, high + 1) for f in factors]
  start = max((i for i, t in enumerate(ticks) if t <= lo), default=0)
  end = next((i for i, t in enumerate(ticks) if t >= hi), len(ticks) - 1)
  return ticks[start : max(end, start + 1) + 1]


def _axes(x, y, step_ticks, value_ticks) -> str:
  parts = []
  for value in value_ticks:
    at = f"{y(value):.1f}"
    parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
    parts.append(
      f'<text x="{_LEFT - 8}" y="{at}" dy=".32em" text-anchor="end">{number(value)}</text>'
    )
  for step in step_ticks:
    at = f"{x(step):.1f}"
    anchor = "end" if x(step) > _WIDTH - 40 else "middle"
    parts.append(f'<text x="{at}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{number(step)}</text>')
  return "".join(parts)


def _line(s: Series, x, y) -> str:
  style = f"stroke:var(--c{s.color % _COLORS})"
  css = "line" + (" faint" if s.faint else "") + (" dashed" if s.dashed else "")
  pieces, piece = [], []
  for step, value in zip(s.steps, s.values, strict=True):
    if math.isfinite(value):
      piece.append(f"{x(step):.1f},{y(value):.1f}")
    elif piece:
      pieces, piece = [*pieces, piece], []
  pieces = [p for p in [*pieces, piece] if p]
  out = [f'<polyline class="{css}" style="{style}" points="{" ".join(p)}"/>' for p in pieces]
  if len(s.steps) <= 30 and not s.dashed:
    dots = [at.split(",") for p in pieces for at in p]
    fill = f"fill:var(--c{s.color % _COLORS})"
    out += [f'<circle cx="{cx}" cy="{cy}" r="2.6" style="{fill}"/>' for cx, cy in dots]
  return "".join(out)


def _hits(series: Sequence[Series], x, y, unit: str) -> str:
  """An invisible column for every step: shows a cross-hair and, as its title, all the values."""
  at_step: dict[float, list[tuple[Series, float]]] = {}
  for s in series:
    for step, value in zip(s.steps, s.values, strict=True):
      if math.isfinite(value):
        at_step.setdefault(step, []).append((s, value))
  steps = sorted(at_step)
  edges = [(x(a) + x(b)) / 2 for a, b in zip(steps, steps[1:])]
  edges = [_LEFT, *edges, _WIDTH - _RIGHT]
  parts = []
  for i, step in enumerate(steps):
    lines = [f"{unit} {step:.4g}" if unit != "step" else f"step {step:g}"] + [
      f"{s.name}: {number(v)}" for s, v in at_step[step]
    ]
    dots = "".join(
      f'<circle cx="{x(step):.1f}" cy="{y(v):.1f}" r="3.2" style="fill:var(--c{s.color % _COLORS})"/>'
      for s, v in at_step[step]
    )
    parts.append(
      f'<g class="hit"><title>{html.escape(chr(10).join(lines))}</title>'
      f'<rect x="{edges[i]:.1f}" y="{_TOP}" width="{max(edges[i + 1] - edges[i], 0.5):.1f}"'
      f' height="{_HEIGHT - _TOP - _BOTTOM}"/>'
      f'<line x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>{dots}</g>'
    )
  return "".join(parts)
