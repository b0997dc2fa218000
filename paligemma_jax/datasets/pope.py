"""POPE: whether a thing is in a COCO photo; absent things are drawn in three ways."""

import functools
import re

import numpy as np

from paligemma_jax.datasets import coco, dataset, raw

_KINDS = ("random", "popular", "adversarial")
_FRAME = re.compile(r"Is there an? | in the image\?")


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question_id": np.int32,  # number of the line
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="png"),  # as the reference says; the files are JPEG
    "question": f.Text(),
    "answer": f.Text(),
    "thing": f.Text(),
  }


def records(kind: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question of a kind, "random", "popular" or "adversarial"."""
  for i, row in enumerate(folder.lines(f"output/coco/coco_pope_{kind}.json")):
    yield (
      i,
      {
        "question_id": i,
        "image/filename": row["image"],
        "image": folder.picture(f"val2014/{row['image']}"),
        "question": row["text"],
        "answer": row["label"],
        "thing": _FRAME.sub("", row["text"]),
      },
    )


TASK = dataset.Task(
  source="https://github.com/RUCAIBox/POPE and " + coco.SOURCE,
  licence="MIT; " + coco.LICENCE,
  layout="""
output/coco/coco_pope_{random,popular,adversarial}.json
val2014/COCO_val2014_000000000042.jpg
""",
  datasets=tuple(
    dataset.Dataset(
      f"pope/pope_{kind}", "1.0.0", features, {"test": 3000}, functools.partial(records, kind)
    )
    for kind in _KINDS
  ),
)
