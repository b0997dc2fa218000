"""VizWiz VQA: photos and spoken questions of blind people, up to ten answers each."""

import numpy as np

from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question": f.Text(),
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "answers": f.Sequence(f.Text()),
    "answer_confidences": f.Sequence(f.Text()),
    "answerable": np.int32,  # 0 or 1, -1 in the test split
    "question_id": np.int32,  # the number in the name of the photo
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo; without answers in the test split. Empty answers are dropped."""
  is_test = split == "test"
  for row in folder.rows(f"annotations/{split}.json"):
    answers = [] if is_test else [a for a in row["answers"] if a["answer"]]
    yield (
      row["image"],
      {
        "question": row["question"],
        "image/filename": row["image"],
        "image": folder.picture(f"{split}/{row['image']}"),
        "answers": raw.texts(answers, "answer"),
        "answer_confidences": raw.texts(answers, "answer_confidence"),
        "answerable": -1 if is_test else row["answerable"],
        "question_id": int(row["image"].rpartition(".")[0].rpartition("_")[2]),
      },
    )


TASK = dataset.Task(
  source="https://vizwiz.org/tasks-and-datasets/vqa/",
  licence="CC BY 4.0",
  layout="""
annotations/{train,val,test}.json
{train,val,test}/VizWiz_{train,val,test}_00000000.jpg
""",
  datasets=(
    dataset.Dataset(
      name="vizwizvqa",
      version="1.0.0",
      features=features,
      sizes={"train": 20523, "val": 4319, "test": 8000},
      records=records,
      lenient=("test",),
    ),
  ),
)
