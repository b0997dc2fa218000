"""The report's validation pictures: each with prompt, answer and truth, boxes and masks drawn."""

import base64
import html
import io
import re
from collections.abc import Sequence

from paligemma_jax import errors
from paligemma_jax.processing import draw, image

SIDE = 224  # pixels of the longer side of an embedded picture
_OBJECT = re.compile(r"((?:<loc\d{4}>){4})\s*((?:<seg\d{3}>){16})?\s*")


def section(name: str, rows: Sequence[dict], limit: int) -> str:
  """One gallery of the first `limit` rows of an evaluation, with buttons to sort by score.

  Args:
    name: of the evaluation.
    rows: as predictions/NAME.jsonl holds them, masks as bool[H, W].
    limit: pictures are embedded, some 10 kB each. The first ones, not the best ones.
  """
  shown = rows[:limit]
  scored = any(row.get("scores") for row in shown)
  cards = "".join(_card(row, order) for order, row in enumerate(shown))
  anchor = html.escape(f"gallery-{name}", quote=True)
  buttons = (
    f'<span class="sort" data-gallery="{anchor}">'
    '<button value="order" aria-pressed="true">in order</button>'
    '<button value="worst" aria-pressed="false">worst first</button>'
    '<button value="best" aria-pressed="false">best first</button></span>'
  )
  count = f"{len(shown)} of {len(rows)}" if len(rows) > len(shown) else str(len(rows))
  return (
    f'<div class="head"><h3>{html.escape(name)}</h3><span class="small">{count} examples</span>'
    f'{buttons if scored else ""}</div><div class="gallery" id="{anchor}">{cards}</div>'
  )


def legend() -> str:
  """What the two colours mean."""
  return (
    f'<p class="small"><span class="key"><i style="background:rgb{draw.PREDICTION}"></i>answer, solid line</span> &nbsp; '
    f'<span class="key"><i style="background:rgb{draw.TRUTH}"></i>truth, dashed line</span></p>'
  )


def _card(row: dict, order: int) -> str:
  score = next(iter((row.get("scores") or {}).values()), 0.0)
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
    f'<article class="card item" data-order="{order}" data-score="{score:.6f}">{_picture(row)}'
    f"<dl>{''.join(parts)}{f'<div>{chips}</div>' if chips else ''}</dl></article>"
  )


def _entry(term: str, css: str, text: str, right: bool = False) -> str:
  shown = html.escape(_readable(text)) or "<em>nothing</em>"
  return (
    f"<div><dt>{term}{' ✓' if right else ''}</dt>"
    f'<dd class="{css}" title="{html.escape(text, quote=True)}">{shown}</dd></div>'
  )


def _readable(text: str) -> str:
  """The text with a sign for every box (▭) and mask (◍) in place of its 4 or 20 tokens."""
  return _OBJECT.sub(lambda m: "▭ ◍ " if m.group(2) else "▭ ", text)


def _picture(row: dict) -> str:
  """The picture as a data URI; a note where there is none to be read (the data may have moved)."""
  source = row.get("image")
  source = source[-1] if isinstance(source, list) and source else source
  try:
    pixels = image.decode(source) if source else None
  except (errors.UserError, OSError):
    pixels = None
  if pixels is None:
    return '<div class="none">picture not found</div>'
  found = []
  if "pred_objects" in row:  # a question about a picture whose objects are known needs no boxes
    found = draw.marks(row.get("objects") or [], draw.TRUTH, dashed=True)
    found += draw.marks(row["pred_objects"], draw.PREDICTION)
  file = io.BytesIO()
  draw.annotate(pixels, found, side=SIDE).save(file, "JPEG", quality=88, subsampling=0)
  data = base64.b64encode(file.getvalue()).decode()
  return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'
