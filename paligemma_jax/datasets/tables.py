"""PubTabNet and FinTabNet: pictures of tables, their HTML and the box of every cell.

Cells without text have no box in the files; theirs is empty here.
"""

import dataclasses

import numpy as np
from PIL import Image

from paligemma_jax.datasets import dataset, pictures, raw

_SCALE = 2  # pixels a point of the rendered pages of FinTabNet: 144 dpi


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "structure": f.Sequence(f.Text()),  # tags; "<td" may come in pieces
    "cells": f.Sequence({"bbox": f.BBoxFeature(), "text": f.Text()}),
  }


def pubtabnet(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each table of PubTabNet."""
  for row in folder.lines("PubTabNet_2.0.0.jsonl"):
    if row["split"] == split:
      picture = folder.picture(f"{split}/{row['filename']}")
      width, height = _size(picture)
      cells = _cells(row["html"], lambda box, w=width, h=height: _unit(*box, w, h))
      yield row["imgid"], _record(row, picture, cells)


def fintabnet(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each table of FinTabNet, cut from its page."""
  for row in folder.lines(f"FinTabNet_1.0.0_{split}.jsonl"):
    page = folder.picture(f"png/{row['filename'].removesuffix('.pdf')}.png")
    left, bottom, right, top = row["bbox"]  # points, from the lower left corner
    height = _size(page)[1] / _SCALE
    area = tuple(round(v * _SCALE) for v in (left, height - top, right, height - bottom))
    at = lambda b, x=left, y=top, w=right - left, h=top - bottom: _unit(  # noqa: E731
      b[0] - x, y - b[3], b[2] - x, y - b[1], w, h
    )
    picture = Cut(page.path, page.place, 0, area)
    yield row["table_id"], _record(row, picture, _cells(row["html"], at))


@dataclasses.dataclass(frozen=True)
class Cut(pictures.Picture):
  """A part of a picture, stored as PNG.

  Attributes:
    area: x0 y0 x1 y1, pixels.
  """

  area: tuple[int, int, int, int] = (0, 0, 0, 0)

  def read(self) -> bytes:
    """The bytes to store."""
    x0, y0, x1, y1 = self.area
    return pictures.encode(self._decoded()[max(y0, 0) : y1, max(x0, 0) : x1], "PNG")


def _size(picture) -> tuple[int, int]:
  picture.probe()
  with Image.open(picture.path) as found:
    return found.size


def _unit(x0, y0, x1, y1, width, height):
  """ymin xmin ymax xmax in 0..1."""
  box = np.array((y0 / height, x0 / width, y1 / height, x1 / width), np.float32)
  return np.clip(box, 0, 1)


def _cells(html, at):
  found = html.get("cells", html.get("cell"))  # both spellings are about
  return [
    {
      "text": "".join(cell["tokens"]),
      "bbox": at(cell["bbox"]) if cell.get("bbox") else np.zeros(4, np.float32),
    }
    for cell in found
  ]


def _record(row, picture, cells):
  structure = row["html"]["structure"]["tokens"]
  return {"filename": row["filename"], "image": picture, "structure": structure, "cells": cells}


TASK = dataset.Task(
  source="https://github.com/ibm-aur-nlp/PubTabNet and"
  " https://developer.ibm.com/exchanges/data/all/fintabnet/",
  licence="CDLA-Permissive-1.0",
  layout="""
PubTabNet_2.0.0.jsonl
{train,val}/PMC1064074_007_00.png
FinTabNet_1.0.0_{train,val,test}.jsonl    for table_structure/fintabnet
png/AAL/2002/page_65.png                  its pages, rendered: pdftoppm -r 144 -png -singlefile
""",
  datasets=tuple(
    dataset.Dataset(name, "1.0.0", features, sizes, records)
    for name, sizes, records in (
      ("pubtabnet", {"train": 500777, "val": 9115}, pubtabnet),
      ("fintabnet", {"train": 91596, "val": 10635, "test": 10656}, fintabnet),
    )
  ),
)
