"""FinTabNet: tables of annual reports, their HTML and the boxes of their cells."""

import dataclasses

from paligemma_jax.datasets import dataset, pictures, raw, tables

_SCALE = 2  # pixels a point of the rendered pages: 144 dpi


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each table, cut from its page."""
  for row in folder.lines(f"FinTabNet_1.0.0_cell_{split}.jsonl"):
    page = folder.picture(f"png/{row['filename'].removesuffix('.pdf')}.png")
    left, bottom, right, top = row["bbox"]  # points, from the lower left corner
    height = page.size()[1] / _SCALE
    area = tuple(round(v * _SCALE) for v in (left, height - top, right, height - bottom))
    at = lambda b, x=left, y=top, w=right - left, h=top - bottom: pictures.unit_box(  # noqa: E731
      b[0] - x, y - b[3], b[2] - x, y - b[1], w, h
    )
    picture = Cut(page.path, page.place, 0, area)
    yield row["table_id"], tables.record(row, picture, tables.cells(row["html"], at))


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


TASK = dataset.Task(
  source="https://developer.ibm.com/exchanges/data/all/fintabnet/",
  licence="CDLA-Permissive-1.0",
  layout="""
FinTabNet_1.0.0_cell_{train,val,test}.jsonl
png/AAL/2002/page_65.png    the pages of pdf/, rendered: pdftoppm -r 144 -png -singlefile
""",
  datasets=(
    dataset.Dataset(
      "fintabnet",
      "1.0.0",
      tables.features,
      {"train": 91596, "val": 10656, "test": 10635},
      records,
    ),
  ),
)
