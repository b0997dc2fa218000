"""What PubTabNet and FinTabNet share: pictures of tables, their HTML and the box of every cell.

Cells without text have no box in the files; theirs is empty here.
"""

from collections.abc import Callable

import numpy as np

from paligemma_jax.datasets import pictures


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "structure": f.Sequence(f.Text()),  # tags; "<td" may come in pieces
    "cells": f.Sequence({"bbox": f.BBoxFeature(), "text": f.Text()}),
  }


def cells(html: dict, at: Callable) -> list[dict]:
  """The cells; `at` maps a box of the file to its `pictures.unit_box`."""
  found = html.get("cells", html.get("cell"))  # both spellings are about
  return [
    {
      "text": "".join(cell["tokens"]),
      "bbox": at(cell["bbox"]) if cell.get("bbox") else np.zeros(4, np.float32),
    }
    for cell in found
  ]


def record(row: dict, picture: pictures.Picture, cells: list[dict]) -> dict:
  """The features of a table."""
  structure = row["html"]["structure"]["tokens"]
  return {"filename": row["filename"], "image": picture, "structure": structure, "cells": cells}
