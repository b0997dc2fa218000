"""Total-Text: words in photos, also along curves, with the boxes around them.

An annotation takes a line, or several where its numbers are wrapped.
"""

import ast
import re

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw, text_spotting

_START = re.compile(r"(?=x: \[\[)")
_WORD = re.compile(r"x: \[\[(.*?)\]\], y: \[\[(.*?)\]\], .*?transcriptions: \[(.*?)\]\s*$")


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  kind = split.title()
  for name in text_spotting.listed(folder, f"Groundtruth/Polygon/{kind}", "poly_gt_*.txt"):
    found = []
    parts = _START.split(" ".join(folder.text(name)))
    for i, part in enumerate(filter(str.strip, parts), 1):
      folder.place = f"{folder.root / name}: word {i}"
      match = _WORD.match(part)
      if match is None:
        raise errors.UserError(f"{folder.place}: wanted x: [[…]], y: [[…]], …, transcriptions: […]")
      x, y = ([int(v) for v in numbers.split()] for numbers in match.groups()[:2])
      said = ast.literal_eval(match[3]) if match[3] else ""
      found.append((said, x, y))
    stem = name.rpartition("poly_gt_")[2].removesuffix(".txt")
    yield text_spotting.record(folder, stem, [f"Images/{kind}"], found, unread="#")


TASK = dataset.Task(
  source="https://github.com/cs-chan/Total-Text-Dataset",
  licence="BSD-3-Clause; photos belong to their owners",
  layout="""
Groundtruth/Polygon/{Train,Test}/poly_gt_img1.txt
Images/{Train,Test}/img1.jpg
""",
  datasets=(
    dataset.Dataset(
      "total_text", "1.0.0", text_spotting.features, {"train": 1255, "test": 300}, records
    ),
  ),
)
