"""InfographicVQA: questions about infographics."""

import itertools

import numpy as np

from paligemma_jax.datasets import dataset, raw

_FILES = {
  "train": "infographicsVQA_train_v1.0.json",
  "val": "infographicsVQA_val_v1.0_withQT.json",
  "test": "infographicsVQA_test_v1.0.json",
}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question_id": np.int32,
    "filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "question": f.Text(),
    "answers": f.Sequence(f.Text()),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; in val, lists as answers come in every order, the official one first."""
  for row in folder.rows(_FILES[split], "data"):
    answers = [] if split == "test" else row["answers"]
    if split == "val":
      orders = (itertools.permutations(answer.split(", ")) for answer in answers)
      answers = [", ".join(items) for each in orders for items in each]
    yield (
      row["questionId"],
      {
        "question_id": row["questionId"],
        "filename": row["image_local_name"],
        "image": folder.picture(f"images/{row['image_local_name']}"),
        "question": row["question"],
        "answers": answers,
      },
    )


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=17&com=downloads (task 3, after registration)",
  licence="see the page",
  layout="""
infographicsVQA_train_v1.0.json
infographicsVQA_val_v1.0_withQT.json
infographicsVQA_test_v1.0.json
images/30471.jpeg
""",
  datasets=(
    dataset.Dataset(
      name="infovqa",
      version="1.1.0",
      features=features,
      sizes={"train": 23946, "val": 2801, "test": 3288},
      records=records,
      lenient=("test",),
    ),
  ),
)
