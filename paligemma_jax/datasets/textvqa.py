"""TextVQA: questions about the writing in Open Images photos, ten answers each.

Some photos lie on their side; Open Images' table of rotations says which, and they are turned back.
"""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

FOLDERS = {"train": "train_images", "val": "train_images", "test": "test_images"}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": np.int32,  # the question's
    "image_filepath": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "question_id": np.int32,
    "question": f.Text(),
    "answers": f.Sequence(f.Text()),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers in the test split."""
  asked, pictures = f"TextVQA_0.5.1_{split}.json", FOLDERS[split]
  turns = _quarter_turns(folder, pictures, {row["image_id"] for row in folder.rows(asked, "data")})
  for row in folder.rows(asked, "data"):
    if row["image_id"] not in turns:
      raise errors.UserError(
        f"{folder.place}: {folder.root / pictures / 'rotation.csv'} has no row with ImageID"
        f" {row['image_id']}; take the table of this split"
      )
    file = f"{pictures}/{row['image_id']}.jpg"
    yield (
      row["question_id"],
      {
        "image/id": row["question_id"],
        "image_filepath": file,
        "image": folder.picture(file, turns[row["image_id"]]),
        "question_id": row["question_id"],
        "question": row["question"],
        "answers": [] if split == "test" else row["answers"],
      },
    )


def _quarter_turns(folder, pictures, wanted) -> dict[str, int]:
  """Image id -> how often its picture is to be turned; the table has millions of others."""
  turns = {}
  for row in folder.csv(f"{pictures}/rotation.csv"):
    if row["ImageID"] in wanted:
      degrees = float(row["Rotation"] or 0)
      if degrees % 90:
        raise errors.UserError(f"{folder.place}: Rotation {degrees:g}; wanted a multiple of 90")
      turns[row["ImageID"]] = int(degrees // 90)
  return turns


TASK = dataset.Task(
  source="https://textvqa.org/dataset and https://storage.googleapis.com/openimages/2018_04/"
  " (train/train-images-boxable-with-rotation.csv, test/test-images-with-rotation.csv)",
  licence="CC BY 4.0; photos of Open Images CC BY 2.0",
  layout="""
TextVQA_0.5.1_{train,val,test}.json
{train_images,test_images}/0a0bc91825468c45.jpg    train and val share train_images
{train_images,test_images}/rotation.csv            the two tables of Open Images
""",
  datasets=(
    dataset.Dataset(
      name="textvqa",
      version="1.0.1",
      features=features,
      sizes={"train": 34602, "val": 5000, "test": 5734},
      records=records,
      lenient=("test",),
    ),
  ),
)
