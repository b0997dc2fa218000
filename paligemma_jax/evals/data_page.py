"""What `data check` found, on one page: defects first, then examples as the model gets them.

The page needs nothing else. The pictures are the exact pixels that the model gets, every token has
the colour of its block and loss; links lead to the files.
"""

import base64
import html
import io
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from paligemma_jax import errors, storage
from paligemma_jax.data import examples, files, show, survey
from paligemma_jax.evals import charts, theme
from paligemma_jax.processing import image

_EXAMPLES = 24  # without defects; some 100 kB each at 224 px
_PLACES = 100  # of one kind of defect
_BARS = 40  # of the histogram of lengths
_RAW = 1200  # letters of a record
_STYLE = """
.defects li { margin: 0 0 10px; overflow-wrap: anywhere; } .defects ul { margin: 0; padding: 14px 18px 6px; list-style: none; }
.defects b { font-variant-numeric: tabular-nums; } a { color: var(--c0); } .error { color: var(--c1); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 14px; align-items: start; }
.example { padding: 14px 16px; min-width: 0; } .example pre { white-space: pre-wrap; overflow-wrap: anywhere; } .example h3 { overflow-wrap: anywhere; }
.example p { margin: 6px 0; overflow-wrap: anywhere; } .pair { display: flex; flex-wrap: wrap; gap: 12px; margin: 10px 0; }
.pair img { min-width: min(100%, 224px); max-width: 100%; image-rendering: pixelated; background: var(--track); }
.tokens span { display: inline-block; color: #191919; border-radius: 4px; padding: 0 4px; margin: 0 2px 3px 0;
  font: 12px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; }
.tokens span.rest { color: var(--soft); background: none; }
""" + "".join(
  f".tokens .{kind} {{ background: rgb{color}; }}\n" for kind, (color, _) in show.KINDS.items()
)


def write(path: str | os.PathLike, surveys: Sequence[survey.Survey], processor, codec=None) -> None:
  """Writes the page, whole or not at all.

  Args:
    path: of the HTML file.
    surveys: what `data.survey.run` found.
    processor: that training would use; without a tokenizer texts are shown in place of tokens.
    codec: parameters of the mask codec; without it masks are not drawn.
  """
  chosen = survey.sample(surveys, _EXAMPLES)
  anchors = {(s.name, i): f"e{k}" for k, (s, i) in enumerate(chosen)}
  defects = sum(count for _, _, count, _ in survey.lines(surveys))
  lead = f"{_counted(defects, 'defect')} in {_counted(len(surveys), 'source')}"
  seen = f"; pictures at {processor.res} px, {processor.resize}"
  parts = [
    f'<h1>Data check</h1><p class="lead">{lead}{seen}</p>',
    _findings(surveys, anchors, notes=False),
    _findings(surveys, anchors, notes=True),
    _sources(surveys),
    _figures(surveys),
    f'<h2>Examples</h2>{_legend()}<div class="examples">',
    *(_card(s, i, anchors[s.name, i], processor, codec) for s, i in chosen),
    "</div>",
  ]
  footer = "Written by paligemma_jax."
  page = theme.page("Data check", "".join(parts), footer, _STYLE)
  storage.write_whole(pathlib.Path(path), page)


def _counted(count: int, what: str) -> str:
  return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def _findings(surveys, anchors, notes: bool) -> str:
  """Every kind with its first line in full, and its places."""
  items = []
  for s, kind, count, line in survey.lines(surveys, notes):
    places = _places(s, kind, anchors) if s.report else ""
    mark = "" if notes else ' class="error"'
    items.append(
      f"<li><b{mark}>{count}</b> × {html.escape(line)} <span"
      f' class="small">{html.escape(s.name)}</span><br>{places}</li>'
    )
  if not items:
    return ""
  title = "Worth a look" if notes else "Defects"
  return f'<h2>{title}</h2><div class="card defects"><ul>{"".join(items)}</ul></div>'


def _places(s, kind, anchors) -> str:
  found = sorted(s.report.found[kind])
  parts = []
  for i in found[:_PLACES]:
    place = html.escape(s.report.source.place(i).rpartition("/")[2])
    anchor = anchors.get((s.name, i))
    parts.append(f'<a href="#{anchor}">{place}</a>' if anchor else place)
  more = f" and {len(found) - _PLACES} more" if len(found) > _PLACES else ""
  return f'<span class="small">{", ".join(parts)}{more}</span>'


def _sources(surveys) -> str:
  rows = []
  for s in surveys:
    if s.report is None:
      continue
    longest = f"{s.lengths.max(initial=0)}" if len(s.lengths) else ""
    iou = f"{s.ious.mean():.3f}" if len(s.ious) else ""
    numbers = (len(s.report.source), s.num_pictures, s.num_objects, longest, s.text_len or "", iou)
    cells = "".join(f'<td class="num">{n}</td>' for n in numbers)
    rows.append(
      f'<tr><td class="group">{html.escape(s.name)}</td><td>{html.escape(s.rules.task)}</td>{cells}'
      f'<td class="small">{html.escape(s.report.source.path)}</td></tr>'
    )
  heads = ("examples", "pictures", "objects", "longest", "text_len", "mask IoU")
  head = "".join(f'<th class="num">{h}</th>' for h in heads)
  return (
    '<h2>Sources</h2><div class="card scroll"><table><thead><tr><th>source</th><th>task</th>'
    f"{head}<th>path</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
  )


def _figures(surveys) -> str:
  figures = []
  for s in surveys:
    lengths = s.lengths[s.lengths > 0]
    if len(lengths):
      reach = max(int(lengths.max()), s.text_len) - int(lengths.min()) + 1
      mark = s.text_len or None
      chart = charts.histogram(lengths, max(1, -(-reach // _BARS)), "tokens", mark)
      cut = int((lengths > s.text_len).sum()) if s.text_len else 0
      note = f"{cut} longer than text_len {s.text_len}" if s.text_len else ""
      figures.append(_figure(f"{s.name}: tokens of text", note, chart))
    if len(s.ious):
      chart = charts.histogram(np.minimum(s.ious, 0.999), 0.025, "IoU")
      figures.append(
        _figure(f"{s.name}: masks after codec and tokens", f"mean {s.ious.mean():.3f}", chart)
      )
  return (
    f'<h2>Lengths and masks</h2><div class="charts">{"".join(figures)}</div>' if figures else ""
  )


def _figure(title: str, note: str, chart: str) -> str:
  note = f'<span class="key"><b>{note}</b></span>' if note else ""
  return charts.figure(title, note, chart)


def _legend() -> str:
  spans = "".join(
    f'<span class="{kind}">{html.escape(text)}</span> ' for kind, (_, text) in show.KINDS.items()
  )
  return f'<p class="tokens">{spans}</p>'


def _card(s, i: int, anchor: str, processor, codec) -> str:
  """One example: what is wrong with it, its pictures, its tokens, its record."""
  source, parts = s.report.source, []
  for found in s.report.found.values():
    if i in found:
      parts.append(f'<p class="error">{html.escape(found[i])}</p>')
  try:
    record = source[i]
  except errors.UserError:
    record = None
  if record is not None:
    parts += [_links(record, source.folder), _as_given(s, i, processor, codec), _raw(record)]
  head = f'<h3>{html.escape(source.place(i))}</h3><span class="small">{html.escape(s.name)}</span>'
  return f'<article class="card example" id="{anchor}">{head}{"".join(parts)}</article>'


def _as_given(s, i: int, processor, codec) -> str:
  """Pixels and tokens as the model gets them; nothing where it gets none."""
  source, drawn = s.report.source, None
  try:
    if processor.tokenizer is None:
      example = examples.make(source, i, s.rules, alpha=processor.alpha)
      frames = [image.resize(p, processor.res, processor.resize) for p in example.images]
      tokens = [(example.prefix, "prefix"), (example.suffix or "", "target")]
    else:
      row = show.row_of(source, i, s.rules, processor, text_len=s.text_len, codec=codec)
      frames, drawn = show.pictures_of(row, processor, codec)
      tokens = show.tokens_of(row, processor)
  except (errors.UserError, LookupError, TypeError, ValueError, AttributeError):
    return ""  # the findings say why
  pictures = [_picture(Image.fromarray(f), "PNG") for f in frames]
  if drawn is not None:
    pictures.append(_picture(drawn, "JPEG"))
  spans = "".join(
    f'<span class="{kind or "rest"}">{html.escape(_printable(piece))}</span>'
    for piece, kind in tokens
  )
  return f'<div class="pair">{"".join(pictures)}</div><p class="tokens">{spans}</p>'


def _picture(picture: Image.Image, format: str) -> str:
  file = io.BytesIO()
  picture.save(file, format, **({"quality": 90, "subsampling": 0} if format == "JPEG" else {}))
  data = base64.b64encode(file.getvalue()).decode()
  return f'<img alt="" loading="lazy" src="data:image/{format.lower()};base64,{data}">'


def _links(record: dict, folder: str) -> str:
  """Links to the files of the record's pictures."""
  given = record.get("image")
  paths = [p for p in (given if isinstance(given, list) else [given]) if isinstance(p, str)]
  links = []
  for path in paths:
    path = _printable(path)
    full = files.join(folder, path)
    address = full if files.is_url(full) else pathlib.Path(full).absolute().as_uri()
    links.append(f'<a href="{html.escape(address, quote=True)}">{html.escape(path)}</a>')
  return f'<p class="small">{" ".join(links)}</p>' if links else ""


def _raw(record: dict) -> str:
  text = json.dumps(record, ensure_ascii=False, default=lambda v: f"<{type(v).__name__}>")
  text = _printable(text if len(text) <= _RAW else text[:_RAW] + " …")
  return f"<details><summary>record</summary><pre>{html.escape(text)}</pre></details>"


def _printable(text: str) -> str:
  """The text with halves of characters, which no file can hold, as \\uXXXX."""
  return text.encode("utf-8", "backslashreplace").decode()
