"""What the formats share: pictures and the pixels that their annotations count in, boxes, masks.

What formats commonly contain and training cannot use is left out or mended, and goes into `Notes`,
which the import tells at its end. Anything else that is wrong stops it with one line.
"""

import math
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from paligemma_jax import errors
from paligemma_jax.processing import image, masks

NOTHING = "pictures without a usable annotation, left out"
WITHOUT_MASK = "masks that cannot be used, left out; their objects keep the box"
UPRIGHT = "pictures turned by their orientation, whose boxes were taken as of the upright picture"
_SLACK = 0.5  # pixels that a box may jut out without a word: tools round
_DECIMALS = 3  # of a pixel, in boxes

_NAMED = 3  # places that a note names


class Notes:
  """What was left out, mended or guessed: how often, and where first."""

  def __init__(self):
    self._places: dict[str, list[str]] = {}  # what -> its first places
    self._counts: dict[str, int] = {}
    self._hints: dict[str, None] = {}  # in order

  def add(self, what: str, place: str) -> None:
    """Counts one, such as "boxes without area, left out" at "train.json: annotations[3]"."""
    self._counts[what] = self._counts.get(what, 0) + 1
    places = self._places.setdefault(what, [])
    if len(places) < _NAMED:
      places.append(place)

  def hint(self, text: str) -> None:
    """Keeps a sentence about the data as a whole; the same is told once."""
    self._hints[text] = None

  def lines(self) -> list[str]:
    """The hints, then a line for each kind."""
    return [*self._hints, *(self._line(what) for what in sorted(self._counts))]

  def _line(self, what: str) -> str:
    count, places = self._counts[what], self._places[what]
    file = places[0].partition(": ")[0] + ": "
    if all(place.startswith(file) for place in places):  # named once
      places = [places[0], *(place.removeprefix(file) for place in places[1:])]
    more = ", …" if count > _NAMED else ""
    return f"{what}: {count} ({', '.join(places)}{more})"


class Frame(NamedTuple):
  """The pixels that the annotations of a picture count in."""

  height: int
  width: int
  turn: int = 1  # EXIF orientation that makes them upright, 5..8; 1: they are


# Orientation -> where a point of a frame of W x H goes, and where the pixels of a mask go.
_TURNS = {
  5: (lambda x, y, frame: (y, x), np.transpose),
  6: (lambda x, y, frame: (frame.height - y, x), lambda mask: np.rot90(mask, -1)),
  7: (
    lambda x, y, frame: (frame.height - y, frame.width - x),
    lambda mask: mask[::-1, ::-1].T,
  ),
  8: (lambda x, y, frame: (y, frame.width - x), np.rot90),
}


def frame_of(
  path: str | os.PathLike,
  place: str,
  stated: tuple[int, int] | None = None,
  notes: Notes | None = None,
) -> Frame:
  """The frame of a picture's annotations.

  Args:
    path: of the picture.
    place: what an error begins with: where the annotations stand.
    stated: width and height that the annotations were made for. Those of a picture that its EXIF
      orientation turns may be the stored ones: then all will be turned. None: upright.
    notes: gets the pictures whose orientation turns them, but whose size does not tell whether the
      annotations are for the stored pixels; None: it does not matter.

  Raises:
    errors.UserError: no such picture, none that can be read, or one of another size.
  """
  if not os.path.isfile(path):
    raise errors.UserError(f"{place}: no picture {path}; put it there, or correct where to look")
  try:
    found = image.read_header(path)
  except errors.UserError as e:
    raise errors.UserError(f"{place}: {e}") from None
  if stated is None or stated == (found.width, found.height):
    tells = stated is not None and found.orientation in _TURNS and found.width != found.height
    if notes is not None and found.orientation != 1 and not tells:
      notes.add(UPRIGHT, f"{place}: {path}")
    return Frame(found.height, found.width)
  if found.orientation in _TURNS and stated == (found.height, found.width):
    return Frame(found.width, found.height, found.orientation)
  raise errors.UserError(
    f"{place}: {path} has {found.width} x {found.height} pixels, the annotations are for"
    f" {stated[0]:g} x {stated[1]:g}; use the pictures that they were made for"
  )


def make_object(
  label: str,
  box: Iterable[float] | None,
  mask: np.ndarray | None,
  frame: Frame,
  place: str,
  notes: Notes,
) -> dict | None:
  """One entry of "objects": upright, its box inside the picture; None if nothing is left of it.

  Args:
    label: its class.
    box: x0, y0, x1, y1 in pixels of the frame, end-exclusive; None: the tightest of the mask.
    mask: bool[height, width] of the frame, or None.
    frame: of the picture.
    place: where it stands.
    notes: gets what was left out or cut.

  Raises:
    errors.UserError: no label, a box that is none, or one outside the picture.
  """
  if not label.strip():
    raise errors.UserError(f"{place}: the name of the class is empty; name it")
  if mask is not None and not mask.any():
    if box is None:
      notes.add("objects whose mask holds no pixel, left out", place)
      return None
    notes.add(WITHOUT_MASK, f"{place}: it holds no pixel")
    mask = None
  corners = _inside(masks.box_of(mask) if box is None else box, frame, place, notes)
  if corners is None:
    return None
  if frame.turn != 1:
    point, pixels = _TURNS[frame.turn]
    xs, ys = zip(*(point(x, y, frame) for x, y in (corners[:2], corners[2:])))
    corners = min(xs), min(ys), max(xs), max(ys)
    mask = None if mask is None else pixels(mask)
  made = {"label": label.strip(), "box": [round(v, _DECIMALS) for v in corners]}
  return made if mask is None else {**made, "mask": masks.encode_rle(mask)}


def _inside(box, frame, place, notes) -> tuple[float, ...] | None:
  """The part of the box that lies in the picture; None if the box has no area."""
  try:
    x0, y0, x1, y1 = (float(v) for v in box)
  except (TypeError, ValueError):
    raise errors.UserError(f"{place}: the box is {box!r}; wanted four numbers") from None
  found = f"the box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
  if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 < x0 or y1 < y0:
    raise errors.UserError(f"{place}: {found} ends before it begins; correct its corners")
  if x1 == x0 or y1 == y0:
    notes.add("boxes without area, left out", place)
    return None
  cut = max(x0, 0.0), max(y0, 0.0), min(x1, float(frame.width)), min(y1, float(frame.height))
  if cut[0] >= cut[2] or cut[1] >= cut[3]:
    raise errors.UserError(
      f"{place}: {found} lies outside the picture of {frame.width} x {frame.height} pixels;"
      " correct it or the picture"
    )
  if max(abs(a - b) for a, b in zip(cut, (x0, y0, x1, y1))) > _SLACK:
    notes.add("boxes cut at the edge of the picture", place)
  return cut


def choose_split(split: str, known: Iterable[str], src: str | os.PathLike) -> str:
  """The split to import: the one that was named, or the only one there is.

  Args:
    split: "" if none was named.
    known: of the data; "" or nothing where it has no splits.
    src: the data.

  Raises:
    errors.UserError: none was named and there are several, or one that is not there.
  """
  known = sorted(known)
  if split in known or (not split and len(known) == 1):
    return split or known[0]
  if not any(known):
    raise errors.UserError(f'{src} has no splits, found --split "{split}"; leave it out')
  hint = errors.did_you_mean(split, known)
  found = f'has no split "{split}"' if split else "has several splits; name one with --split"
  raise errors.UserError(f"{src} {found}{hint}")
