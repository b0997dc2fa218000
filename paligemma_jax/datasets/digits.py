"""Scenes of real handwritten digits, with answers, boxes and masks: the embedded default's data.

The 1,797 images of 8 x 8 pixels are those of UCI "Optical Recognition of Handwritten Digits" that
scikit-learn carries. A scene has four quadrants, some of which hold one digit each, near the
middle, of varying size and tilt, in dark ink on light paper. Scenes of the two splits are drawn
from different digit images: every fifth image of a class belongs to validation.

One JSONL file per split and task, all over the same pictures:

  caption   caption en -> a 3, a 7 and an 8      (in reading order)
  count     answer en how many digits are there? -> 3
  question  answer en which digit is top left? -> 3
  detect    detect 7 -> boxes of all sevens
  segment   segment 7 -> box and mask of the only seven
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from paligemma_jax import errors

VERSION = 1  # of everything below; a new one is built beside the old
SIDE = 112  # pixels of a scene
CELL = SIDE // 2  # of a quadrant, which holds one digit at most
TASKS = ("caption", "count", "question", "detect", "segment")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIZES = {"train": 8000, "val": 400}  # scenes
_HEIGHTS = (44, 52)  # pixels of a digit before it is tilted
_TILT = 5.0  # degrees, either way
_SHIFT = 2  # pixels that a digit may lie off the middle of its quadrant, either way
_MOST_BOXES = 2  # in one answer, which keeps texts short
_COUNTS = (0.4, 0.2, 0.2, 0.2)  # share of 1, 2, 3, 4 digits; alone they are learned first


@dataclasses.dataclass(frozen=True)
class Digit:
  """A digit in a scene."""

  label: int
  place: int  # index into PLACES
  x0: int  # pixels, of the tight box around the mask
  y0: int
  alpha: np.ndarray  # float32[h, w], coverage by ink, 0..1

  @property
  def mask(self) -> np.ndarray:
    """bool[h, w], of the box alone."""
    return self.alpha > 0.5

  @property
  def box(self) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 in pixels, end-exclusive."""
    h, w = self.alpha.shape
    return self.x0, self.y0, self.x0 + w, self.y0 + h


def images() -> tuple[np.ndarray, np.ndarray]:
  """The handwritten digits: float32[N, 8, 8] in 0..1 (1 is ink) and their labels int[N].

  Raises:
    errors.UserError: scikit-learn is not installed.
  """
  try:
    from sklearn import datasets
  except ImportError:
    raise errors.UserError(
      "the handwritten digits come with scikit-learn, which is not installed;"
      " pip install paligemma_jax[demo]"
    ) from None
  data = datasets.load_digits()
  return (data.images / 16.0).astype(np.float32), data.target.astype(int)


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
  """Indices of the images each split may use: every fifth of a class is for validation."""
  rank = np.zeros(len(labels), int)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    rank[of_class] = np.arange(len(of_class))
  return {"train": np.flatnonzero(rank % 5 != 4), "val": np.flatnonzero(rank % 5 == 4)}


def ink(image: np.ndarray, height: int, tilt: float = 0.0) -> np.ndarray:
  """An 8 x 8 digit, enlarged smoothly and cut tightly around what counts as its mask.

  Args:
    image: float32[8, 8] in 0..1.
    height: pixels, before it is tilted.
    tilt: degrees, counter-clockwise.

  Returns:
    float32[h, w], coverage by ink 0..1; every border row and column holds a value above 0.5.
  """
  wide = np.pad(image, 2)
  side = round(height * len(wide) / 8)
  picture = Image.fromarray(wide).resize((side, side), Image.Resampling.BICUBIC)
  x = np.asarray(picture.rotate(tilt, Image.Resampling.BICUBIC))
  alpha = np.clip((x - 0.2) / 0.4, 0.0, 1.0)
  rows, cols = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
  return alpha[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def scene(
  rng: np.random.Generator, pictures: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, list[Digit]]:
  """One scene: uint8[SIDE, SIDE, 3] and its one to four digits in reading order.

  Args:
    rng: decides everything.
    pictures: float32[N, 8, 8], the digits to choose from.
    labels: int[N].
  """
  count = 1 + rng.choice(len(_COUNTS), p=_COUNTS)
  places = np.sort(rng.permutation(len(PLACES))[:count])
  paper, inks = _colors(rng, len(places))
  canvas, digits = _paper(rng, paper), []
  for place, color in zip(places, inks):
    i = rng.integers(len(labels))
    height, tilt = rng.integers(_HEIGHTS[0], _HEIGHTS[1] + 1), rng.uniform(-_TILT, _TILT)
    alpha = ink(pictures[i], height, tilt)[:CELL, :CELL]
    row, col = divmod(int(place), 2)
    y0 = row * CELL + _offset(rng, alpha.shape[0])
    x0 = col * CELL + _offset(rng, alpha.shape[1])
    part = canvas[y0 : y0 + alpha.shape[0], x0 : x0 + alpha.shape[1]]
    part += alpha[..., None] * (color - part)
    digits.append(Digit(int(labels[i]), int(place), x0, y0, alpha))
  return np.clip(np.round(canvas), 0, 255).astype(np.uint8), digits


def _offset(rng, size):
  """Where in its quadrant a digit of so many pixels starts: about the middle, never outside."""
  middle = (CELL - size) // 2 + rng.integers(-_SHIFT, _SHIFT + 1)
  return int(np.clip(middle, 0, CELL - size))


def _colors(rng, n):
  """Color of the paper and n colors of ink, float[3] each; ink is much darker."""
  return rng.uniform(205, 250, 3), rng.uniform(5, 70, (n, 3))


def _paper(rng, color):
  """float[SIDE, SIDE, 3]: the color, brighter to one side. (A grain would triple a PNG's cost.)"""
  y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
  slope = rng.uniform(-25, 25, 2)
  return color + (slope[0] * y + slope[1] * x)[..., None]


def records(name: str, digits: list[Digit]) -> dict[str, list[dict]]:
  """What is asked about a scene, per task; each becomes a line of a JSONL file.

  Args:
    name: of the picture's file.
    digits: in reading order, as `scene` gives them.
  """
  words = [f"{'an' if d.label == 8 else 'a'} {d.label}" for d in digits]
  said = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
  labels = [d.label for d in digits]
  ask = lambda prefix, suffix: {"image": name, "prefix": prefix, "suffix": suffix}  # noqa: E731
  show = lambda label, shown: {  # noqa: E731
    "image": name, "objects": [o for d, o in zip(digits, shown) if d.label == label],
  }  # fmt: skip
  boxes = [{"label": str(d.label), "box": list(d.box)} for d in digits]
  masks = [{**b, "mask": rle(d)} for b, d in zip(boxes, digits)]
  return {
    "caption": [ask("caption en", said)],
    "count": [ask("answer en how many digits are there?", str(len(digits)))],
    "question": [ask(f"answer en which digit is {PLACES[d.place]}?", str(d.label)) for d in digits],
    "detect": [
      {"prefix": f"detect {label}", **show(label, boxes)}
      for label in dict.fromkeys(labels)
      if labels.count(label) <= _MOST_BOXES
    ],
    "segment": [
      {"prefix": f"segment {label}", **show(label, masks)}
      for label in labels
      if labels.count(label) == 1
    ],
  }


def rle(digit: Digit) -> dict:
  """The mask in the whole scene as uncompressed COCO run lengths, column by column."""
  whole = np.zeros((SIDE, SIDE), bool)
  x0, y0, x1, y1 = digit.box
  whole[y0:y1, x0:x1] = digit.mask
  flat = np.concatenate([[False], whole.ravel(order="F")])
  edges = np.flatnonzero(flat[1:] != flat[:-1])
  counts = np.diff(np.concatenate([[0], edges, [whole.size]]))
  return {"size": [SIDE, SIDE], "counts": counts.tolist()}


def build(
  folder: pathlib.Path,
  seed: int = 0,
  sizes: dict[str, int] | None = None,
  progress: Callable[[str], None] = lambda line: None,
) -> None:
  """Writes the scenes into an existing folder: SPLIT_TASK.jsonl and SPLIT/NUMBER.png.

  Args:
    folder: where to; the caller sees to it that half a folder is never taken for a whole one.
    seed: everything follows from it.
    sizes: scenes per split; None for `SIZES`.
    progress: called with a line now and then.
  """
  pictures, labels = images()
  for number, (name, size) in enumerate((sizes or SIZES).items()):
    mine = split(labels)[name]
    (folder / name).mkdir()
    lines = {task: [] for task in TASKS}
    for i in range(size):
      rng = np.random.default_rng((seed, number, i))
      picture, digits = scene(rng, pictures[mine], labels[mine])
      file = f"{name}/{i:05d}.png"
      Image.fromarray(picture).save(folder / file)
      for task, found in records(file, digits).items():
        lines[task] += [json.dumps({"id": f"{name}-{i}-{k}", **r}) for k, r in enumerate(found)]
      if (i + 1) % 2000 == 0:
        progress(f"scenes: {name} {i + 1}/{size}")
    for task, text in lines.items():
      (folder / f"{name}_{task}.jsonl").write_text("\n".join(text) + "\n")
