"""Random changes of training pictures, their boxes moved along.

The published transfers use none; these are what the reference has ready for them:

  inception_crop[:A]   a random window of at least A % of the area (5), sides 0.75 to 1.33 : 1
  random_crop[:F]      a square window of the fraction F (0.875) of the shorter side, anywhere
  random_flip          mirrored left to right, every second picture
  random_resize        resized by one of ten filters instead of the model's own
  random_jpeg[:P]      with the probability P (0.5) through JPEG of quality 75 to 95

Windows hold all boxes whole; where 100 draws find none that does, the picture stays as it is.

Source: big_vision `pp/ops_image.py` (inception_crop; random_crop after resize_small(res * 8 // 7);
flip_lr), `pp/proj/paligemma/robustness.py` (resize_r, random_jpeg), and the `min_obj_cover=1.0` of
`configs/proj/paligemma/transfers/refcoco_seg.py`. Windows are cut before the one resize here, so
that `random_crop` keeps the model's filter, and JPEG is decoded in its accurate form only.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import bilinear

Steps = tuple[tuple[str, float], ...]  # (name in `AUGMENTS`, its number)
_DRAWS = 100
_ASPECT = (0.75, 1.33)  # width / height
_QUALITY = (75, 96)  # of JPEG, the second excluded


class Changed(NamedTuple):
  """A picture on its way through the steps."""

  image: np.ndarray  # uint8[H, W, 3]
  boxes: np.ndarray  # float64[N, 4], x0 y0 x1 y1 in its pixels
  is_mirrored: bool = False


def parse(steps: Sequence[str], name: str = "augment") -> Steps:
  """Reads ("inception_crop:50", "random_flip"), a config's value called `name`.

  Raises:
    errors.UserError: an unknown step, or a number that is none or out of range.
  """
  return tuple(_parsed(step, name) for step in steps)


def moves(steps: Steps) -> bool:
  """Whether a step changes where things are, so that loc tokens written in a text would be wrong."""
  return any(name in ("inception_crop", "random_crop", "random_flip") for name, _ in steps)


def mirrors(steps: Steps) -> bool:
  """Whether a step may mirror the picture."""
  return any(name == "random_flip" for name, _ in steps)


def apply(
  image: np.ndarray, boxes: np.ndarray, steps: Steps, rng: np.random.Generator, res: int
) -> Changed:
  """Takes a picture through the steps, in their order.

  Args:
    image: uint8[H, W, 3].
    boxes: float[N, 4], x0 y0 x1 y1 in pixels; what must stay in the picture.
    steps: as `parse` returns them.
    rng: of everything drawn.
    res: pixels a side that the model sees, for "random_resize".
  """
  changed = Changed(image, np.asarray(boxes, np.float64).reshape(-1, 4))
  for name, number in steps:
    changed = AUGMENTS[name][0](changed, number, rng, res)
  return changed


def _inception_crop(c: Changed, percent, rng, res) -> Changed:
  """As TensorFlow's `sample_distorted_bounding_box` draws windows."""
  height, width, _ = c.image.shape
  area, least = height * width, percent / 100 * height * width
  for _ in range(_DRAWS):
    aspect = rng.uniform(*_ASPECT)
    low = round((least / aspect) ** 0.5)
    high = min(round((area / aspect) ** 0.5), height, int((width + 0.5) / aspect))
    if low > high:
      continue
    h = int(rng.integers(max(low, 1), high + 1))
    w = max(round(h * aspect), 1)
    if w > width or w * h < least:
      continue
    found = _window(c, h, w, rng)
    if found is not None:
      return found
  return c


def _random_crop(c: Changed, fraction, rng, res) -> Changed:
  side = max(round(min(c.image.shape[:2]) * fraction), 1)
  for _ in range(_DRAWS):
    found = _window(c, side, side, rng)
    if found is not None:
      return found
  return c


def _window(c: Changed, h: int, w: int, rng) -> Changed | None:
  """A window of that size anywhere; None if it cuts a box."""
  height, width, _ = c.image.shape
  y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
  inside = np.clip(c.boxes, 0, [width, height, width, height])  # annotations stick out by a half
  if (inside[:, :2] < [x, y]).any() or (inside[:, 2:] > [x + w, y + h]).any():
    return None
  return c._replace(image=c.image[y : y + h, x : x + w], boxes=c.boxes - [x, y, x, y])


def _random_flip(c: Changed, _, rng, res) -> Changed:
  if rng.random() < 0.5:
    return c
  x0, y0, x1, y1 = c.boxes.T
  width = c.image.shape[1]
  boxes = np.stack([width - x1, y0, width - x0, y1], axis=1)
  return Changed(np.ascontiguousarray(c.image[:, ::-1]), boxes, not c.is_mirrored)


def _random_resize(c: Changed, _, rng, res) -> Changed:
  height, width, _ = c.image.shape
  name = FILTERS[rng.integers(len(FILTERS))]
  scale = np.array([res / width, res / height] * 2)
  return c._replace(image=resized(c.image, res, *name), boxes=c.boxes * scale)


def _random_jpeg(c: Changed, probability, rng, res) -> Changed:
  if rng.random() >= probability:
    return c
  out = io.BytesIO()
  Image.fromarray(c.image).save(out, "JPEG", quality=int(rng.integers(*_QUALITY)))
  with Image.open(out) as decoded:
    return c._replace(image=np.array(decoded))


def resized(image: np.ndarray, res: int, kernel: str, antialias: bool) -> np.ndarray:
  """uint8[res, res, 3] by a filter of `KERNELS`, clipped and truncated as the reference does."""
  if kernel == "triangle" and not antialias:
    return bilinear.plain(image, res, res, np.uint8)
  function, radius = KERNELS[kernel]
  made = bilinear.resample(image, res, res, function, radius, antialias)
  return np.clip(made, 0, 255).astype(np.uint8)


def _cubic(x: np.ndarray, b: float, c: float) -> np.ndarray:
  """The cubics of Mitchell and Netravali, Reconstruction filters in computer graphics, 1988."""
  near = (12 - 9 * b - 6 * c) * x**3 + (-18 + 12 * b + 6 * c) * x**2 + (6 - 2 * b)
  far = (-b - 6 * c) * x**3 + (6 * b + 30 * c) * x**2 + (-12 * b - 48 * c) * x + (8 * b + 24 * c)
  return np.where(x < 1, near, np.where(x < 2, far, 0)) / 6


def _keys(x: np.ndarray) -> np.ndarray:
  return _cubic(x, 0, 0.5)


def _mitchell(x: np.ndarray) -> np.ndarray:
  return _cubic(x, 1 / 3, 1 / 3)


def _lanczos3(x: np.ndarray) -> np.ndarray:
  return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _box(x: np.ndarray) -> np.ndarray:
  return np.where(x <= 0.5001, 1, 0)  # a pixel half way belongs to one of its neighbours at least


KERNELS = {  # name -> (weight at a distance in pixels, radius)
  "triangle": (bilinear.triangle, 1.0),
  "keys": (_keys, 2.0),
  "lanczos3": (_lanczos3, 3.0),
  "box": (_box, 0.5),
  "mitchell": (_mitchell, 2.0),
}
FILTERS = [(kernel, antialias) for kernel in KERNELS for antialias in (True, False)]
AUGMENTS = {  # name -> (function, its number when none is given, the greatest it may be)
  "inception_crop": (_inception_crop, 5.0, 100.0),
  "random_crop": (_random_crop, 0.875, 1.0),
  "random_flip": (_random_flip, None, None),
  "random_resize": (_random_resize, None, None),
  "random_jpeg": (_random_jpeg, 0.5, 1.0),
}


def _parsed(step: str, name: str) -> tuple[str, float]:
  kind, given, text = str(step).partition(":")
  if kind not in AUGMENTS:
    raise errors.UserError(f'{name}: "{kind}" is unknown{errors.did_you_mean(kind, AUGMENTS)}')
  _, default, most = AUGMENTS[kind]
  if not given:
    return kind, default or 0.0
  if default is None:
    raise errors.UserError(f'{name}: "{step}": {kind} takes no number')
  try:
    number = float(text)
  except ValueError:
    number = -1.0
  if not 0 < number <= most:
    raise errors.UserError(
      f'{name}: "{step}": wanted a number above 0, at most {most:g}, as in {kind}:{default:g}'
    )
  return kind, number
