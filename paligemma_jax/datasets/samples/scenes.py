"""Scenes of coloured shapes side by side, what can be said about them, and files made of them."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageDraw

COLORS = ("red", "blue", "green", "yellow", "black", "purple")
KINDS = ("circle", "square", "triangle")
_PLACES = ("left", "middle", "right")
_SIDE = 32  # pixels of a shape's place
_ORIENTATION = 0x0112  # EXIF tag


@dataclasses.dataclass(frozen=True)
class Shape:
  """A shape in a scene."""

  color: str
  kind: str
  place: str  # "left", "middle", "right"
  box: tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels, end-exclusive

  @property
  def name(self) -> str:
    """Such as "red circle"."""
    return f"{self.color} {self.kind}"

  @property
  def polygon(self) -> list[float]:
    """x0 y0 x1 y1 … of its outline, pixels; of a circle an octagon."""
    x0, y0, x1, y1 = self.box
    w, h = x1 - x0, y1 - y0
    points = {
      "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
      "triangle": ((0.5, 0), (1, 1), (0, 1)),
      "circle": (
        (0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3),
      ),
    }[self.kind]  # fmt: skip
    return [v for x, y in points for v in (x0 + w * x, y0 + h * y)]


@dataclasses.dataclass(frozen=True)
class Scene:
  """One to three shapes on white paper, 96 x 48 pixels."""

  shapes: tuple[Shape, ...]

  @property
  def caption(self) -> str:
    """Such as "a red circle and a blue square"."""
    return " and ".join(f"a {shape.name}" for shape in self.shapes)

  @property
  def questions(self) -> list[tuple[str, str, str]]:
    """(question, answer, kind of answer as VQA names it), true of the scene."""
    first, kinds = self.shapes[0], [shape.kind for shape in self.shapes]
    absent = next((k for k in KINDS if k not in kinds), None)
    return [
      (f"What color is the {first.kind} on the {first.place}?", first.color, "other"),
      ("How many shapes are there?", str(len(kinds)), "number"),
      (f"Is there a {absent or first.kind}?", "no" if absent else "yes", "yes/no"),
    ]

  def picture(self) -> Image.Image:
    """The scene as an RGB picture."""
    image = Image.new("RGB", (3 * _SIDE, 48), "white")
    pen = ImageDraw.Draw(image)
    for shape in self.shapes:
      points = shape.polygon
      pen.polygon(list(zip(points[::2], points[1::2])), fill=shape.color)
    return image


def scene(i: int) -> Scene:
  """The i-th scene: its number decides how many shapes there are, of which kind and color."""
  shapes = []
  for k in range(1 + i % 3):
    x0, y0 = k * _SIDE + 2 + i % 4, 4 + (3 * i + 5 * k) % 12
    side = 20 + (i + k) % 8
    color, kind = COLORS[(i + k) % len(COLORS)], KINDS[(2 * i + k) % len(KINDS)]
    shapes.append(Shape(color, kind, _PLACES[k], (x0, y0, x0 + side, y0 + side)))
  return Scene(tuple(shapes))


def save(path: pathlib.Path, picture: Image.Image, orientation: int = 1, **options) -> None:
  """Writes a picture and the folders above it, in the format its name says.

  Args:
    path: of the file.
    picture: what is in it.
    orientation: EXIF orientation to claim, 1..8.
    **options: of Pillow.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if orientation != 1:
    options["exif"] = Image.Exif()
    options["exif"][_ORIENTATION] = orientation
  picture.save(path, **options)


def save_scenes(folder: pathlib.Path, names: Iterable[str]) -> None:
  """Scene i under the i-th name. The second claims to lie on its side; the third is grey."""
  for i, name in enumerate(names):
    picture = scene(i).picture()
    save(folder / name, picture.convert("L") if i == 2 else picture, orientation=6 if i == 1 else 1)


def save_json(path: pathlib.Path, value: Any, ascii_only: bool = True) -> None:
  """Writes a JSON file and the folders above it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value, ensure_ascii=ascii_only), encoding="utf-8")


def json_lines(values: Iterable[Any]) -> str:
  """One value a line, other than ASCII characters as they are."""
  return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
  """Rows as CSV; the first is the header."""
  out = io.StringIO()
  csv.writer(out, lineterminator="\n").writerows(rows)
  return out.getvalue()
