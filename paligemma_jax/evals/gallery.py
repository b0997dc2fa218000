"""The report's validation pictures: each with prompt, answer and truth, boxes and masks drawn."""

import base64
import html
import io
import re
from collections.abc import Callable, Sequence

from paligemma_jax import errors
from paligemma_jax.data import files
from paligemma_jax.processing import draw, image

SIDE = 224  # pixels of the longer side of an embedded picture; half of it where there are several
_FRAMES = 4  # most pictures of one example
_OBJECT = re.compile(r"((?:<loc\d{4}>){4})\s*((?:<seg\d{3}>){16})?\s*")


def section(
  name: str,
  rows: Sequence[dict],
  first: int,
  worst: int = 0,
  see: Callable[[list[dict]], list[dict]] = lambda rows: rows,
) -> str:
  """One gallery of rows of an evaluation, with buttons to sort by score and a box to search.

  Args:
    name: of the evaluation.
    rows: as predictions/NAME.jsonl holds them, masks as bool[H, W].
    first: how many from the beginning; pictures are embedded, some 10 kB each.
    worst: how many of the others, those of the lowest scores.
    see: the rows that are shown -> the same with pictures that can be read.
  """
  scored = any(row.get("scores") for row in rows)
  orders = list(range(min(first, len(rows))))
  if scored:
    orders += sorted(range(len(orders), len(rows)), key=lambda i: _goodness(rows[i]))[:worst]
  shown = see([rows[i] for i in orders])
  cards = "".join(map(_card, shown, orders))
  anchor = html.escape(f"gallery-{name}", quote=True)
  buttons = (
    '<button value="order" aria-pressed="true">in order</button>'
    '<button value="worst" aria-pressed="false">worst first</button>'
    '<button value="best" aria-pressed="false">best first</button>'
  )
  search = '<input type="search" placeholder="search" aria-label="search in texts"/>'
  tools = f'<span class="sort" data-gallery="{anchor}">{buttons if scored else ""}{search}</span>'
  count = str(len(rows))
  if len(rows) > len(shown):
    others = f" and the {len(shown) - first} worst of the others" if len(shown) > first else ""
    count = f"the first {first:,}{others} of {len(rows):,}"
  return (
    f'<div class="head"><h3>{html.escape(name)}</h3><span class="small">{count} examples</span>'
    f'{tools}</div><div class="gallery" id="{anchor}">{cards}</div>'
  )


def legend() -> str:
  """What the two colours mean."""
  return (
    f'<p class="small"><span class="key"><i style="background:rgb{draw.PREDICTION}"></i>answer, solid line</span> &nbsp; '
    f'<span class="key"><i style="background:rgb{draw.TRUTH}"></i>truth, dashed line</span></p>'
  )


def _card(row: dict, order: int) -> str:
  truth = row.get("suffix")
  answers = [truth] if isinstance(truth, str) else list(truth or [])
  prediction = row.get("prediction")  # None: only the likelihood of the truth was measured
  right = prediction in answers
  parts = [_entry("prompt", "", row.get("prefix", ""))]
  if prediction is not None:
    parts.append(_entry("answer", "right" if right else "answer", prediction, right))
  if answers and not right:
    parts.append(_entry("truth", "truth", " / ".join(answers)))
  chips = "".join(
    f'<span class="chip">{html.escape(key)} {value:.2f}</span>'
    for key, value in (row.get("scores") or {}).items()
    if not key.startswith("exact_match")  # of short answers, which the colour tells
  )
  return (
    f'<article class="card item" data-order="{order}" data-score="{_goodness(row):.6f}">{_pictures(row)}'
    f"<dl>{''.join(parts)}{f'<div>{chips}</div>' if chips else ''}</dl></article>"
  )


def _goodness(row: dict) -> float:
  """The score of the row alone, higher is better; where only the likelihood was measured, minus nats."""
  score = next(iter((row.get("scores") or {}).values()), 0.0)
  return -score if "nll_sum" in row else score


def _entry(term: str, css: str, text: str, right: bool = False) -> str:
  shown = html.escape(_readable(text)) or "<em>nothing</em>"
  return (
    f"<div><dt>{term}{' ✓' if right else ''}</dt>"
    f'<dd class="{css}" title="{html.escape(text, quote=True)}">{shown}</dd></div>'
  )


def _readable(text: str) -> str:
  """The text with a sign for every box (▭) and mask (◍) in place of its 4 or 20 tokens."""
  return _OBJECT.sub(lambda m: "▭ ◍ " if m.group(2) else "▭ ", text)


def _pictures(row: dict) -> str:
  """The pictures as data URIs, the objects on the last; a note where one cannot be read."""
  given = row.get("image")
  sources = given if isinstance(given, list) else [given]
  if len(sources) > _FRAMES:
    steps = [round(k * (len(sources) - 1) / (_FRAMES - 1)) for k in range(_FRAMES)]
    sources = [sources[k] for k in steps]
  side = SIDE // 2 if len(sources) > 1 else SIDE
  marks = [[]] * (len(sources) - 1) + [_marks(row)]
  found = [_picture(source, drawn, side) for source, drawn in zip(sources, marks)]
  return f'<div class="several">{"".join(found)}</div>' if len(found) > 1 else "".join(found)


def _marks(row: dict) -> list[draw.Mark]:
  if "pred_objects" not in row:
    return []  # a question about a picture whose objects are known needs no boxes
  found = draw.marks(row.get("objects") or [], draw.TRUTH, dashed=True)
  return found + draw.marks(row["pred_objects"], draw.PREDICTION)


def _picture(source, marks: list[draw.Mark], side: int) -> str:
  """One picture as a data URI; a note where there is none to be read (the data may have moved)."""
  try:
    if isinstance(source, str) and files.is_url(source):
      source = files.read_bytes(source)
    pixels = None if source is None else image.decode(source)
  except (errors.UserError, OSError):
    pixels = None
  if pixels is None:
    return '<div class="none">picture not found</div>'
  file = io.BytesIO()
  draw.annotate(pixels, marks, side=side).save(file, "JPEG", quality=88, subsampling=0)
  data = base64.b64encode(file.getvalue()).decode()
  return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'
