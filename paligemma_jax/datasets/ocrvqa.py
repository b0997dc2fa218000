"""OCR-VQA: questions about the covers of books, several each.

Covers are loaded one by one from the URLs of dataset.json into images/ID.jpg (or another ending);
many no longer exist, so records without one are left out.
"""

import os

import numpy as np

from paligemma_jax.datasets import dataset, raw

_SPLITS = {"train": 1, "val": 2, "test": 3}


def features(f):
  """Those of a record, of the module tfds.features: as the reference's configs read them."""
  return {
    "int_id": np.int64,
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "question": f.Text(),
    "answer": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question about a cover. Its int_id counts all questions of the file."""
  int_id = 0
  for key, row in folder.items("dataset.json"):
    ending = os.path.splitext(row["imageURL"])[1] or ".jpg"
    for question, answer in zip(row["questions"], row["answers"], strict=True):
      if row["split"] == _SPLITS[split]:
        yield (
          int_id,
          {
            "int_id": int_id,
            "image/id": key,
            "image": folder.picture(f"images/{key}{ending}"),
            "question": question,
            "answer": answer,
          },
        )
      int_id += 1


TASK = dataset.Task(
  source="https://ocr-vqa.github.io",
  licence="see the page; covers belong to their publishers",
  layout="""
dataset.json
images/761183272.jpg
""",
  datasets=(
    dataset.Dataset(
      name="ocrvqa_id",
      version="1.0.0",
      features=features,
      sizes={"train": None, "val": None, "test": None},
      records=records,
      lenient=("train", "val", "test"),
    ),
  ),
)
