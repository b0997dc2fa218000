"""Masks between the picture and the 64 x 64 crops of the mask codec, and as COCO run lengths.

The codec itself (16 codes <-> 64 x 64) is `models.vqvae`; here is the geometry around it.

Source: big_vision `pp/proj/paligemma/segmentation.py` and the evaluator of RefCOCO; the demo
functions follow its public demo.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from paligemma_jax import errors, structs
from paligemma_jax.processing import bilinear

SIDE = 64  # pixels of a mask as the codec sees it
_MOST = 2**28  # pixels of a mask; Pillow refuses pictures of two thirds of it (chosen)
_FAR = 10  # sizes of the picture: edges are traced point by point (chosen)
_FINER = 5  # points a pixel on which the edges of polygons are traced


def crop_for_codec(mask: np.ndarray, box) -> np.ndarray:
  """Cuts the box out of a mask and resizes it for the codec's encoder.

  Corners are rounded to whole pixels, half to even; a box that is thinner than a pixel gets one.
  The values stay soft.

  Args:
    mask: bool[h, w], or uint8[h, w] in 0..255, of the whole picture.
    box: Box, or x0 y0 x1 y1 in pixels.

  Returns:
    float32[64, 64] in 0..1.
  """
  if mask.dtype == bool:
    mask = mask.astype(np.uint8) * np.uint8(255)
  x0, y0, x1, y1 = (int(np.round(v)) for v in corners(box))
  (y0, y1), (x0, x1) = _one_pixel(y0, y1, mask.shape[0]), _one_pixel(x0, x1, mask.shape[1])
  crop = bilinear.antialiased(mask[y0:y1, x0:x1, None], SIDE, SIDE)[..., 0]
  return crop / np.float32(255)


def paste(mask: np.ndarray, box, height: int, width: int) -> np.ndarray:
  """Puts a decoded mask into its box, as the reference's evaluator does.

  Args:
    mask: float[64, 64] as the codec decodes it, about -1..1; above 0 is inside.
    box: Box, or x0 y0 x1 y1 in pixels; corners are cut to whole pixels (int()), end-exclusive.
    height, width: of the picture.

  Returns:
    bool[height, width]; all False when the box holds no whole pixel.
  """
  x0, y0, x1, y1 = (int(v) for v in corners(box))
  out = np.zeros((height, width), bool)
  if y1 > y0 and x1 > x0:
    small = Image.fromarray(np.asarray(mask, np.float32))
    inside = np.asarray(small.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)) > 0
    _put(out, inside, y0, x0)
  return out


def paste_soft(mask: np.ndarray, box, height: int, width: int) -> np.ndarray:
  """Puts a decoded mask into its box, as the public demo does: whole grey levels, kept soft.

  Args:
    mask: float[64, 64] as the codec decodes it, about -1..1.
    box: Box of `parse_boxes(…, bins=1024)`, or x0 y0 x1 y1 in pixels; corners are rounded.
    height, width: of the picture.

  Returns:
    float32[height, width] in 0..1.
  """
  x0, y0, x1, y1 = (int(round(v)) for v in corners(box))
  out = np.zeros((height, width), np.float32)
  if y1 > y0 and x1 > x0:
    grey = np.clip(np.asarray(mask, np.float32) * 0.5 + 0.5, 0, 1)
    small = Image.fromarray((grey * 255).astype(np.uint8))  # cut to whole grey levels
    soft = small.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
    _put(out, np.asarray(soft) / 255, y0, x0)
  return out


def corners(box) -> tuple[float, float, float, float]:
  """x0, y0, x1, y1 of a Box or of four numbers in this order."""
  if isinstance(box, structs.Box):
    return box.x0, box.y0, box.x1, box.y1
  x0, y0, x1, y1 = box
  return x0, y0, x1, y1


def box_of(mask: np.ndarray) -> tuple[float, float, float, float] | None:
  """The tightest box of a mask bool[h, w]: x0, y0, x1, y1, end-exclusive; None when it is empty."""
  rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
  if not len(rows):
    return None
  return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def encode_rle(mask: np.ndarray) -> dict:
  """bool[h, w] -> COCO's compressed run lengths: {"size": [h, w], "counts": str}.

  Runs go down the columns and start with the zeros. Source: cocoapi `common/maskApi.c`.
  """
  flat = np.asarray(mask, bool).ravel(order="F")
  edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
  counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
  if flat.size and flat[0]:
    counts.insert(0, 0)
  return {"size": [int(n) for n in mask.shape], "counts": _to_string(counts)}


def decode_rle(rle: dict, place: str = "mask", size: tuple[int, int] | None = None) -> np.ndarray:
  """COCO run lengths -> bool[h, w].

  Args:
    rle: {"size": [h, w], "counts": compressed str or bytes, or a list of run lengths}.
    place: where it stands, for errors.
    size: height and width of the picture; None: any that a picture may have.

  Raises:
    errors.UserError: a key is missing, the size is another one, or the runs do not fill it. This
      is told before the runs are laid out.
  """
  try:
    height, width = (int(n) for n in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
      counts = _from_string(counts.encode() if isinstance(counts, str) else counts)
    counts = np.asarray(counts, np.int64).reshape(-1)
    if min(height, width) < 0:
      raise ValueError(rle["size"])
  except (KeyError, TypeError, ValueError, IndexError, OverflowError):
    raise errors.UserError(
      f'{place}: not COCO run lengths; wanted {{"size": [height, width], "counts": str or list}}'
    ) from None
  check_size((height, width), size, place)
  if height * width > _MOST:
    raise errors.UserError(
      f"{place}: the run lengths have the size [{height}, {width}]; no picture is so large, correct"
      " it"
    )
  covered = sum(counts.tolist())  # in whole numbers without bound
  if (counts < 0).any() or covered != height * width:
    raise errors.UserError(
      f"{place}: the runs cover {covered} pixels, the size {height} x {width} has "
      f"{height * width}; the run lengths are damaged or belong to another picture"
    )
  flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
  return flat.reshape((height, width), order="F")


def check_size(found: tuple[int, int], size: tuple[int, int] | None, place: str) -> None:
  """Raises a UserError if a mask of this height and width is not that of its picture, if known."""
  if size is not None and tuple(found) != tuple(size):
    raise errors.UserError(
      f"{place}: a mask has {found[1]} x {found[0]} pixels, the picture {size[1]} x {size[0]};"
      " store masks at the size of their picture"
    )


def fill(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
  """The pixels inside polygons, joined: the very ones that COCO's own tools find.

  Edges are traced on a grid five times finer than the pixels. In every column, a pixel is inside
  when the edges cross the column's middle an odd number of times at or above it.

  Args:
    polygons: each x0 y0 x1 y1 …, pixels; a pixel covers the square from its index to the next.
    height, width: of the picture.

  Returns:
    bool[height, width].

  Raises:
    errors.UserError: a corner is no number, or lies `_FAR` times the picture away.

  Source: cocoapi `common/maskApi.c`, rleFrPoly.
  """
  out = np.zeros((height, width), bool)
  for polygon in polygons:
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    if not (np.abs(points) <= _FAR * max(height, width)).all():  # nor is NaN
      raise errors.UserError(
        f"a polygon has a corner far outside its picture of {width} x {height} pixels"
        f" ({points[np.abs(points).max(axis=1).argmax()].tolist()}); correct it"
      )
    corner = np.trunc(_FINER * points + 0.5).astype(int)
    x, y = _outline(corner, np.roll(corner, -1, axis=0))
    step = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[step], x[step + 1]) + 0.5) / _FINER - 0.5
    row = np.ceil(np.clip((np.minimum(y[step], y[step + 1]) + 0.5) / _FINER - 0.5, 0, height))
    middle = (column == np.floor(column)) & (column >= 0) & (column < width)
    if not middle.any():
      continue
    first, last = int(column[middle].min()), int(column[middle].max()) + 1
    crossing = ((column[middle] - first) * height + row[middle]).astype(int)
    odd = np.cumsum(np.bincount(crossing, minlength=(last - first) * height + 1)[:-1]) % 2 == 1
    out[:, first:last] |= odd.reshape((height, last - first), order="F")
  return out


def _outline(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """x and y, int[M], of all grid points on the lines from start to end, both int[K, 2]."""
  length = np.abs(end - start)
  flat = length[:, 0] >= length[:, 1]
  backward = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
  low, high = (np.where(backward[:, None], a, b) for a, b in ((end, start), (start, end)))
  count = length.max(axis=1) + 1
  line = np.repeat(np.arange(len(start)), count)
  along = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
  along = np.where(backward[line], count[line] - 1 - along, along)  # in the order of the polygon
  rise, run = (high - low).astype(float), np.maximum(count - 1, 1)
  slope = np.where(flat, rise[:, 1], rise[:, 0]) / run
  across = np.where(flat, low[:, 1], low[:, 0])[line] + slope[line] * along
  across = np.trunc(across + 0.5).astype(int)
  first = np.where(flat, low[:, 0], low[:, 1])[line] + along
  return np.where(flat[line], first, across), np.where(flat[line], across, first)


def _one_pixel(start: int, end: int, size: int) -> tuple[int, int]:
  """The range inside 0..size, at least one pixel long."""
  start = min(max(start, 0), size - 1)
  return start, min(max(end, start + 1), size)


def _put(out: np.ndarray, values: np.ndarray, y0: int, x0: int):
  """Writes `values` at row y0 and column x0; what lies outside is dropped."""
  top, left = max(-y0, 0), max(-x0, 0)
  values = values[top : max(out.shape[0] - y0, 0), left : max(out.shape[1] - x0, 0)]
  y, x = y0 + top, x0 + left
  out[y : y + values.shape[0], x : x + values.shape[1]] = values


def _to_string(counts: list[int]) -> str:
  """Run lengths as text: from the fourth on the difference to the one before the last, in 5 bits."""
  out = bytearray()
  for i, count in enumerate(counts):
    x = count - counts[i - 2] if i > 2 else count
    while True:
      bits = x & 31
      x >>= 5
      more = x != (-1 if bits & 16 else 0)  # the sign is the highest bit written
      out.append((bits | 32 if more else bits) + 48)
      if not more:
        break
  return out.decode()


def _from_string(text: bytes) -> list[int]:
  counts, i = [], 0
  while i < len(text):
    x, shift, more = 0, 0, True
    while more:
      bits = text[i] - 48
      if not 0 <= bits < 64:
        raise ValueError(text[i])
      x |= (bits & 31) << shift
      more, shift, i = bits & 32, shift + 5, i + 1
    if bits & 16:
      x -= 1 << shift
    counts.append(x + counts[-2] if len(counts) > 2 else x)
  return counts
