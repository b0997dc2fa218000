"""DocVQA: questions about scanned pages of industry documents."""

import numpy as np

from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question_id": np.int32,
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "question": f.Text(),
    "answers": f.Sequence(f.Text()),  # with their case, unlike the evaluation
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers in the test split."""
  name = "test_v1.0.json" if split == "test" else f"{split}_v1.0_withQT.json"
  for row in folder.rows(name, "data"):
    yield (
      row["questionId"],
      {
        "question_id": row["questionId"],
        "image/filename": row["image"],
        "image": folder.picture(f"{split}/{row['image']}"),
        "question": row["question"],
        "answers": [] if split == "test" else row["answers"],
      },
    )


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=17&com=downloads (task 1, after registration)",
  licence="see the page",
  layout="""
{train,val}_v1.0_withQT.json
test_v1.0.json
{train,val,test}/documents/xnbl0037_1.png
""",
  datasets=(
    dataset.Dataset(
      name="docvqa",
      version="1.0.0",
      features=features,
      sizes={"train": 39463, "val": 5349, "test": 5188},
      records=records,
      lenient=("test",),
    ),
  ),
)
