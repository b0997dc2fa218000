"""CountBenchQA: how many of a thing, two to ten, are in a picture from the web."""

import io

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_QUESTIONS = "countbench_paired_questions.json"


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image": f.Image(shape=(None, None, 3)),
    "image_id": np.int32,  # number of the row
    "question": f.Text(),
    "text": f.Text(),
    "image_url": f.Text(),
    "number": np.int32,
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each row that has a picture in color: about 490 of 540."""
  from pyarrow import parquet

  found = sorted(folder.root.glob("*.parquet"))
  if not found:
    path = folder.root / "*.parquet"
    raise raw.MissingFile(f"{path}: no such file", path)
  questions = [row["question"] for row in folder.rows(_QUESTIONS)]
  rows = [row for path in found for row in parquet.read_table(path).to_pylist()]
  if len(rows) != len(questions):
    raise errors.UserError(
      f"{found[0]} has {len(rows)} rows, {folder.root / _QUESTIONS} {len(questions)};"
      " the two files do not belong together"
    )
  for i, (row, question) in enumerate(zip(rows, questions)):
    folder.place = f"{found[0]}: row {i}"
    data = (row["image"] or {}).get("bytes")
    if not data or len(Image.open(io.BytesIO(data)).getbands()) < 3:
      continue
    yield (
      i,
      {
        "image": pictures.without_orientation(data),
        "image_id": i,
        "question": question,
        "text": row["text"],
        "image_url": row["image_url"],
        "number": row["number"],
      },
    )


TASK = dataset.Task(
  source="https://huggingface.co/datasets/nielsr/countbench (data/*.parquet) and"
  " https://github.com/google-research/big_vision"
  " (big_vision/datasets/countbenchqa/data/countbench_paired_questions.json)",
  licence="questions Apache-2.0; pictures belong to their owners",
  layout="""
train-00000-of-00001-cf54c241ba947306.parquet
countbench_paired_questions.json
""",
  datasets=(dataset.Dataset("countbenchqa", "1.2.0", features, {"huggingface": 490}, records),),
)
