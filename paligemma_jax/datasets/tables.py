"""What PubTabNet and FinTabNet share: pictures of tables, their HTML and the box of every cell.

Cells without text have no box in the files; theirs is empty here. PubTabNet's tables begin with
their head, FinTabNet's with <table>, as all do here. Of a cell's tokens those longer than a
character are tags; the others are text, in which <, > and & are escaped as in HTML.
"""

import html
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


def cells(table: dict, at: Callable) -> list[dict]:
  """The cells; `at` maps a box of the file to its `pictures.unit_box`."""
  found = table["cells"] if "cells" in table else table["cell"]  # both spellings are about
  return [
    {
      "text": "".join(t if len(t) > 1 else html.escape(t, quote=False) for t in cell["tokens"]),
      "bbox": at(cell["bbox"]) if cell.get("bbox") else np.zeros(4, np.float32),
    }
    for cell in found
  ]


def record(row: dict, picture: pictures.Picture, cells: list[dict]) -> dict:
  """The features of a table."""
  structure = row["html"]["structure"]["tokens"]
  if structure[0] != "<table>":
    structure = ["<table>", *structure, "</table>"]
  return {"filename": row["filename"], "image": picture, "structure": structure, "cells": cells}
