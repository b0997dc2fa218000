"""Boxes, masks and labels drawn on a picture. Needs only Pillow and numpy.

For `generate --draw`, `data show` and the gallery of the report. A `Mark` is one object to draw;
`marks` makes them from parsed boxes or from the `objects` of rows, `annotate` draws them.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paligemma_jax import structs

# Two sides of one comparison. Orange and blue stay apart for every common colour blindness.
PREDICTION = (255, 122, 26)
TRUTH = (30, 144, 255)
# One colour per label, when there is nothing to compare.
PALETTE = (
  (255, 122, 26),
  (30, 144, 255),
  (46, 184, 92),
  (214, 64, 159),
  (240, 190, 20),
  (120, 94, 240),
  (20, 184, 180),
  (226, 62, 62),
)
_MASK_OPACITY = 0.38  # the picture stays recognisable under two masks


@dataclasses.dataclass(frozen=True)
class Mark:
  """One object to draw, in pixels of the picture as it was given."""

  box: tuple[float, float, float, float] | None  # x0 y0 x1 y1, end-exclusive; None: only the mask
  label: str = ""
  mask: np.ndarray | None = None  # bool[H, W] of the whole picture
  color: tuple[int, int, int] = PREDICTION
  dashed: bool = False  # the outline of the box; tells truth from prediction without colour


def marks(
  objects: Iterable[structs.Box | dict],
  color: tuple[int, int, int] | None = None,
  masks: Sequence[np.ndarray | None] | None = None,
  dashed: bool = False,
) -> list[Mark]:
  """What `annotate` draws, from boxes or from the objects of rows.

  Args:
    objects: `structs.Box`, or dicts with "label", "box" (x0 y0 x1 y1, pixels) and perhaps "mask"
      (bool[H, W]).
    color: red, green, blue 0..255 of all of them; None gives every label a colour of its own.
    masks: bool[H, W] or None, one for each object; overrides the objects' own.
    dashed: whether the boxes' outlines are dashed.
  """
  found = []
  for i, item in enumerate(objects):
    if isinstance(item, structs.Box):
      label, box, mask = item.label, (item.x0, item.y0, item.x1, item.y1), None
    else:
      label, box, mask = item.get("label", ""), item.get("box"), item.get("mask")
    mask = masks[i] if masks is not None else mask
    found.append((label or "", None if box is None else tuple(box), mask))
  labels = sorted({label for label, _, _ in found})
  by_label = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}
  return [Mark(box, label, mask, color or by_label[label], dashed) for label, box, mask in found]


def annotate(
  image: np.ndarray | Image.Image, marks: Sequence[Mark], side: int = 0, labels: bool = True
) -> Image.Image:
  """Returns an RGB copy of the picture with the marks on it: masks below, boxes and labels above.

  Args:
    image: uint8[H, W, 3], or a Pillow picture.
    marks: what to draw; the last is on top.
    side: pixels of the longer side of the result, larger or smaller than the input; 0 keeps it.
      Lines and letters are drawn after resizing, so they keep their width.
    labels: whether to write the labels.
  """
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  image = image.convert("RGB")
  width, height = image.size
  scale = side / max(width, height) if side else 1.0
  size = max(1, round(width * scale)), max(1, round(height * scale))
  canvas = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
  line = max(2, round(max(size) / 320))
  for mark in marks:
    if mark.mask is not None:
      canvas = _blend(canvas, _resized(mark.mask, size), mark.color, line)
  pen = ImageDraw.Draw(canvas)
  boxes = [(m, [v * scale for v in m.box]) for m in marks if m.box is not None]
  for mark, (x0, y0, x1, y1) in boxes:
    right, bottom = max(x0, x1 - 1), max(y0, y1 - 1)  # the last pixel inside
    _rectangle(pen, (x0, y0, right, bottom), mark.color, line, mark.dashed)
  if labels:
    _labels(pen, [(m, box) for m, box in boxes if m.label], size)
  return canvas


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  picture = Image.fromarray(np.asarray(mask, bool).astype(np.uint8) * 255)
  return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) >= 128


def _blend(canvas: Image.Image, mask: np.ndarray, color, line: int) -> Image.Image:
  """Tints the inside and paints the outline, `line` pixels wide inwards."""
  inner = mask
  for _ in range(line):
    padded = np.pad(inner, 1, constant_values=False)
    inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
  opacity = np.where(inner, _MASK_OPACITY, np.where(mask, 0.9, 0.0))[:, :, None]
  pixels = np.asarray(canvas, np.float32) * (1 - opacity) + np.float32(color) * opacity
  return Image.fromarray(pixels.round().astype(np.uint8))


def _rectangle(pen: ImageDraw.ImageDraw, box, color, line: int, dashed: bool) -> None:
  if not dashed:
    pen.rectangle(box, outline=color, width=line)
    return
  x0, y0, x1, y1 = box
  dash = 3 * line
  for start in np.arange(x0, x1, 2 * dash):
    end = min(start + dash, x1)
    pen.rectangle((start, y0, end, y0 + line - 1), fill=color)
    pen.rectangle((start, max(y0, y1 - line + 1), end, y1), fill=color)
  for start in np.arange(y0, y1, 2 * dash):
    end = min(start + dash, y1)
    pen.rectangle((x0, start, x0 + line - 1, end), fill=color)
    pen.rectangle((max(x0, x1 - line + 1), start, x1, end), fill=color)


def _labels(pen: ImageDraw.ImageDraw, boxes, size: tuple[int, int]) -> None:
  """Writes every label above its box, or where there is room: inside the picture, none on another."""
  font = ImageFont.load_default(max(10, min(22, round(max(size) / 24))))
  taken = []
  for mark, (x0, y0, x1, y1) in boxes:
    left, top, right, bottom = pen.textbbox((0, 0), mark.label, font=font)
    w, h = right - left + 6, bottom - top + 4
    x = min(max(0, x0), max(0, size[0] - w))
    candidates = [(x, y0 - h), (x, y1), (x, y0), (x, y1 - h), (min(x1, size[0] - w), y0)]
    inside = [(a, b) for a, b in candidates if a >= 0 and b >= 0 and b + h <= size[1]]
    free = [p for p in inside if not any(_overlap((*p, w, h), other) for other in taken)]
    x, y = (free or inside or [(x, max(0, min(y0, size[1] - h)))])[0]
    taken.append((x, y, w, h))
    pen.rectangle((x, y, x + w - 1, y + h - 1), fill=mark.color)
    light = sum(c * k for c, k in zip(mark.color, (0.299, 0.587, 0.114))) > 150
    ink = (20, 20, 20) if light else (255, 255, 255)
    pen.text((x + 3 - left, y + 2 - top), mark.label, font=font, fill=ink)


def _overlap(a, b) -> bool:
  return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def outline(
  image: np.ndarray, box: Sequence[float], color: tuple[int, int, int] = (255, 0, 0)
) -> np.ndarray:
  """A copy with the one-pixel outline of a box, as TensorFlow's `draw_bounding_boxes` draws it.

  Edges outside the picture are not drawn, and nothing of a box with its corners exchanged.

  Args:
    image: uint8[H, W, 3].
    box: y0 x0 y1 x1 in 0..1; an edge lies on row int(y (H - 1)) or column int(x (W - 1)).
    color: red, green, blue, 0..255.

  Source: big_vision, configs/proj/paligemma/transfers/widgetcap.py.
  """
  height, width, _ = image.shape
  ends = np.array([height - 1, width - 1] * 2)
  y0, x0, y1, x1 = (int(v) for v in np.asarray(box, np.float32) * ends)
  drawn = image.copy()
  if y1 < y0 or x1 < x0:
    return drawn
  columns, rows = slice(max(x0, 0), max(x1 + 1, 0)), slice(max(y0, 0), max(y1 + 1, 0))
  for y in (y0, y1):
    if 0 <= y < height:
      drawn[y, columns] = color
  for x in (x0, x1):
    if 0 <= x < width:
      drawn[rows, x] = color
  return drawn
