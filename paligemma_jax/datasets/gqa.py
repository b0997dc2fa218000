"""GQA: questions made from scene graphs, of photos of Visual Genome, answered in a word.

The splits of all questions repeat each picture a hundred times and more, which takes a terabyte;
the transfers use train_balanced, val_balanced and testdev_balanced.
"""

import numpy as np

from paligemma_jax.datasets import dataset, raw

_SIZES = {
  "train_balanced": 943000, "val_balanced": 132062, "testdev_balanced": 12578,
  "challenge_balanced": None, "train_all": 14305356, "val_all": 2011853, "testdev_all": 172174,
  "challenge_all": None,
}  # fmt: skip


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "example_id": np.int64,
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "question": f.Text(),
    "answer": f.Text(),
    "full_answer": f.Text(),
    "is_balanced": np.bool_,
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers in the challenge splits."""
  for name in _files(folder, split):
    for question_id, row in folder.items(name):
      yield (
        question_id,
        {
          "example_id": int(question_id),
          "image/id": row["imageId"],
          "image": folder.picture(f"images/{row['imageId']}.jpg"),
          "question": row["question"],
          "answer": row.get("answer", ""),
          "full_answer": row.get("fullAnswer", ""),
          "is_balanced": row["isBalanced"],
        },
      )


def _files(folder, split):
  """The question files of a split; that of all training questions comes in pieces."""
  if split != "train_all":
    return [f"{split}_questions.json"]
  found = sorted(p.name for p in (folder.root / "train_all_questions").glob("*.json"))
  return [f"train_all_questions/{n}" for n in found or ["train_all_questions_0.json"]]


TASK = dataset.Task(
  source="https://cs.stanford.edu/people/dorarad/gqa/download.html",
  licence="see the page; photos of Visual Genome CC BY 4.0",
  layout="""
{train,val,testdev,challenge}_balanced_questions.json    those that are there
{val,testdev,challenge}_all_questions.json
train_all_questions/train_all_questions_{0,1,…}.json
images/2354786.jpg
""",
  datasets=(
    dataset.Dataset(
      name="gqa",
      version="1.0.0",
      features=features,
      sizes=_SIZES,
      records=records,
      lenient=("challenge_balanced", "challenge_all"),
      is_partial=True,
    ),
  ),
)
