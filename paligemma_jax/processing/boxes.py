"""Boxes as location tokens and back.

A box is four tokens in the order y0 x0 y1 x1, each a coordinate in bins of the picture's side:
`<loc0100><loc0200><loc0700><loc0900> cat`, several joined by " ; ". Training data and evaluators
of the reference count 1023 bins, its public demos 1024; they differ by less than a pixel at 1024 px.

Source: big_vision `pp/proj/paligemma/segmentation.py` and the evaluator of RefCOCO.
"""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from paligemma_jax import errors, structs

BINS = 1023
DEMO_BINS = 1024
DUPLICATE = 0.9  # IoU from which two boxes of a label count as one (chosen)
NOISE = "<noise>"  # label of random boxes that hold nothing (PaliGemma 2, appendix C)
_LAST = 1023  # the highest location token, in both conventions
# Text before an object is skipped; a label ends at ";" or at the next token.
_OBJECT = re.compile(r"((?:<loc\d{4}>){4})\s*((?:<seg\d{3}>){16})?\s*([^;<>]*)")
_SLACK = 0.5  # pixels that annotation tools may round a coordinate beyond the edge


def parse_boxes(
  text: str,
  height: int,
  width: int,
  bins: int = BINS,
  spans: Sequence[tuple[int, int]] = (),
  logprobs: Sequence[float] = (),
) -> list[structs.Box]:
  """Finds all objects in an answer, in their order. Anything else in the text is skipped.

      boxes = parse_boxes(out.text[0], height, width, spans=out.spans[0], logprobs=out.logprobs[0])

  Args:
    text: what the model wrote, of `detect` or `segment`.
    height, width: of the picture, pixels. 1 and 1 give coordinates in 0..1.
    bins: 1023 as training and evaluators: token / 1023 * size, not rounded. 1024 as the demos:
      token / 1024 * size, rounded to whole pixels.
    spans, logprobs: of every token, the letters [first, last) that it wrote and its natural
      log-probability, as `structs.Output` has them; none: the boxes have no score.

  Returns:
    Boxes in pixels, x0 y0 x1 y1, end-exclusive; `codes` where 16 seg tokens follow; `score`, the
    probability of the label's tokens, of a box without a label the geometric mean of its four loc
    tokens' (docs/decode.md says why). Empty boxes (y1 <= y0 or x1 <= x0) and ones with tokens that
    do not exist are left out: they score nothing.
  """
  found = []
  for match in _OBJECT.finditer(text):
    loc, seg, label = match.groups(default="")
    tokens = [int(t) for t in re.findall(r"\d+", loc)]
    codes = tuple(int(t) for t in re.findall(r"\d+", seg)) or None
    y0, x0, y1, x1 = tokens
    if y1 <= y0 or x1 <= x0 or max(tokens) > _LAST or max(codes or (0,)) > 127:
      continue
    y0, y1 = from_bins((y0, y1), height, bins)
    x0, x1 = from_bins((x0, x1), width, bins)
    score = _score(match, spans, logprobs) if spans else None
    found.append(structs.Box(label.strip(), x0, y0, x1, y1, score, codes))
  return found


def suppress(boxes: Sequence[structs.Box], iou: float = DUPLICATE) -> list[structs.Box]:
  """Leaves out boxes that say again what a better one says, in the order of the others.

  Args:
    boxes: of one picture, all with a score or none; of equal ones, and without scores, the earlier
      is the better.
    iou: from this overlap on, above 0, two boxes of the same label are one.
  """
  kept: list[int] = []
  for i in sorted(range(len(boxes)), key=lambda i: -(boxes[i].score or 0.0)):
    box = boxes[i]
    if all(box.label != boxes[j].label or _iou(box, boxes[j]) < iou for j in kept):
      kept.append(i)
  return [boxes[i] for i in sorted(kept)]


def format_boxes(boxes: Iterable[structs.Box], height: int, width: int, bins: int = BINS) -> str:
  """Writes boxes as the model does: 4 loc tokens, 16 seg tokens if it has codes, the label.

  Args:
    boxes: in pixels, x0 y0 x1 y1.
    height, width: of the picture, pixels.
    bins: 1023 or 1024, see `parse_boxes`.
  """
  texts, boxes = [], list(boxes)
  ys = to_bins([y for box in boxes for y in (box.y0, box.y1)], height, bins)  # all at once: faster
  xs = to_bins([x for box in boxes for x in (box.x0, box.x1)], width, bins)
  for box, y0, x0, y1, x1 in zip(boxes, ys[::2], xs[::2], ys[1::2], xs[1::2]):
    tokens = "".join(f"<loc{v:04d}>" for v in (y0, x0, y1, x1))
    tokens += "".join(f"<seg{c:03d}>" for c in box.codes or ())
    texts.append(f"{tokens} {box.label}".rstrip())
  return " ; ".join(texts)


def format_noise(n: int, rng: np.random.Generator) -> str:
  """`n` boxes with the label `NOISE` as `format_boxes` writes them; corners uniform, in order."""
  places = np.sort(rng.integers(0, _LAST + 1, (n, 2, 2)), axis=1).reshape(n, 4)  # y0 x0 y1 x1
  texts = ("".join(f"<loc{v:04d}>" for v in place) for place in places)
  return " ; ".join(f"{text} {NOISE}" for text in texts)


def _score(match: re.Match, spans, logprobs) -> float:
  """Of the object that `_OBJECT` matched."""

  def tokens(first, last):
    return [x for (a, b), x in zip(spans, logprobs) if a < b and a < last and b > first]

  label = match[3].rstrip()
  if label:  # and the space in front of it
    of_label = tokens(match.end(2 if match[2] else 1), match.start(3) + len(label))
    return float(np.exp(np.sum(of_label, dtype=np.float64)))
  return float(np.exp(np.mean(tokens(*match.span(1)), dtype=np.float64)))


def _iou(a: structs.Box, b: structs.Box) -> float:
  width = min(a.x1, b.x1) - max(a.x0, b.x0)
  height = min(a.y1, b.y1) - max(a.y0, b.y0)
  if width <= 0 or height <= 0:
    return 0.0
  area = lambda box: (box.x1 - box.x0) * (box.y1 - box.y0)
  return width * height / (area(a) + area(b) - width * height)


def to_bins(coordinates: Sequence[float], size: float, bins: int = BINS) -> tuple[int, ...]:
  """Location tokens of coordinates along a side of `size` pixels: round half to even, 0..1023.

  In float32 as the reference, whose ties are others than those of float64.
  """
  fractions = np.clip(np.asarray(coordinates, np.float64) / size, -1, 2).astype(np.float32)
  return tuple(int(v) for v in np.clip(np.round(fractions * np.float32(bins)), 0, _LAST))


def from_bins(tokens: Sequence[int], size: float, bins: int = BINS) -> tuple[float, ...]:
  """Coordinates in pixels of location tokens; whole ones with 1024 bins, see `parse_boxes`."""
  pixels = tuple(t / bins * size for t in tokens)
  return tuple(float(round(p)) for p in pixels) if bins == DEMO_BINS and size > 1 else pixels


def check_box(
  box, height: int, width: int, place: str = "box"
) -> tuple[float, float, float, float]:
  """Checks a box of the user's data; returns it as four floats inside the picture.

  Half a pixel beyond the edge is clipped without a word: annotation tools round.

  Args:
    box: [x0, y0, x1, y1] in pixels, end-exclusive.
    height, width: of the picture, pixels.
    place: where the box stands, such as `train.jsonl:17: objects[0].box`.

  Raises:
    errors.UserError: not four finite numbers, empty, or outside the picture.
  """
  try:
    x0, y0, x1, y1 = (float(v) for v in box)
  except (TypeError, ValueError, OverflowError):
    raise errors.UserError(f"{place}: a box is [x0, y0, x1, y1] in pixels, found {box!r}") from None
  values = (x0, y0, x1, y1)
  found = "[" + ", ".join(f"{v:g}" for v in values) + "]"
  if not all(math.isfinite(v) for v in values):
    raise errors.UserError(f"{place}: {found} is not finite")
  if x1 <= x0 or y1 <= y0:
    raise errors.UserError(
      f"{place}: {found} is empty; the order is x0, y0, x1, y1 with x0 < x1 and y0 < y1"
    )
  if min(x0, y0) < -_SLACK or x1 > width + _SLACK or y1 > height + _SLACK:
    raise errors.UserError(
      f"{place}: {found} is outside the picture of {width} x {height} pixels (width x height); "
      "coordinates are pixels, x0 y0 x1 y1, end-exclusive"
    )
  if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
    raise errors.UserError(f"{place}: {found} holds no pixel of the {width} x {height} picture")
  return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
