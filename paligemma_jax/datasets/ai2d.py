"""AI2D: multiple-choice questions about diagrams of school books.

Where the choices are letters, these are drawn into the diagram in place of its texts. The reference
does so in DM Sans; without that font beside the folder ai2d, Pillow's own is taken.
"""

import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_FONT = "DMSans-Regular.ttf"
_LARGEST = 100  # size of the letters


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "id": f.Text(),
    "question": f.Text(),
    "label": np.int32,  # index of the right answer
    "answer": f.Text(),
    "possible_answers": f.Sequence(f.Text()),
    "abc_label": np.bool_,  # the answers are letters
    "image_name": f.Text(),
    "image": f.Image(encoding_format="png"),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question."""
  test_ids = {line.strip() for line in folder.text("ai2d_test_ids.csv")}
  found = sorted((folder.root / "ai2d/questions").glob("*.json"))
  if not found:
    path = folder.root / "ai2d/questions"
    raise raw.MissingFile(f"{path}: no .json files there", path)
  for path in found:
    if (path.name.split(".")[0] in test_ids) != (split == "test"):
      continue
    asked = folder.json(f"ai2d/questions/{path.name}")
    with folder.partner():
      texts = folder.json(f"ai2d/annotations/{path.name}")["text"]
    for question, row in asked["questions"].items():
      label, choices = int(row["correctAnswer"]), row["answerTexts"]
      yield (
        row["questionId"],
        {
          "id": row["questionId"],
          "question": question,
          "label": label,
          "answer": choices[label],
          "possible_answers": choices,
          "abc_label": row["abcLabel"],
          "image_name": asked["imageName"],
          "image": _picture(folder, asked["imageName"], texts if row["abcLabel"] else {}),
        },
      )


def _picture(folder, name, texts) -> pictures.Picture:
  plain = folder.picture(f"ai2d/images/{name}")
  if not texts:
    return plain
  letters = tuple(
    (tuple(v for corner in t["rectangle"] for v in corner), t["replacementText"])
    for t in texts.values()
  )
  font = folder.root / _FONT
  return Lettered(plain.path, plain.place, 0, letters, str(font) if font.is_file() else "")


@dataclasses.dataclass(frozen=True)
class Lettered(pictures.Picture):
  """A diagram whose texts are replaced by letters.

  Attributes:
    letters: (x0 y0 x1 y1 of a text, in pixels; the letter instead).
    font: path of the font; "" for Pillow's own.
  """

  letters: tuple[tuple[tuple[float, float, float, float], str], ...] = ()
  font: str = ""

  def read(self) -> bytes:
    """The diagram as a PNG: texts in white, each with its letter at the top, centred."""
    with Image.open(self.path) as picture:
      picture.load()
    pen = ImageDraw.Draw(picture)
    for (xa, ya, xb, yb), letter in self.letters:
      x0, y0, x1, y1 = min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)  # some run backwards
      pen.rectangle((x0, y0, x1, y1), fill="white")
      for size in range(_LARGEST, 0, -1):  # the largest that fits
        font = _font(self.font, size)
        _, _, right, bottom = font.getbbox(letter)
        if right <= x1 - x0 and bottom <= y1 - y0:
          break
      pen.text((x0 + (x1 - x0 - right) // 2, y0), letter, fill="black", font=font)
    return pictures.encode_image(picture, "PNG")


@functools.cache
def _font(path: str, size: int):
  if not path:
    return ImageFont.load_default(size)
  try:
    return ImageFont.truetype(path, size)
  except OSError:
    raise errors.UserError(f"{pathlib.Path(path)}: not a font that Pillow can read") from None


TASK = dataset.Task(
  source="https://registry.opendata.aws/allenai-diagrams/ (ai2d-all.zip, ai2d_test_ids.csv)",
  licence="CC BY-SA 4.0",
  layout="""
ai2d/{questions,annotations}/0.png.json
ai2d/images/0.png
ai2d_test_ids.csv
DMSans-Regular.ttf    (optional) the font of the reference's letters
""",
  datasets=(dataset.Dataset("ai2d", "1.1.0", features, {"train": 12413, "test": 3088}, records),),
)
