"""TallyQA: counting questions, simple and complex, about photos of Visual Genome and COCO."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import coco, dataset, raw

_FOLDERS = ("VG_100K/", "VG_100K_2/", "train2014/", "val2014/")


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image": f.Image(shape=(None, None, 3)),
    "image_id": np.int32,
    "image_source": f.Text(),
    "question": f.Text(),
    "question_id": np.int32,
    "answer": np.int32,
    "issimple": np.int32,  # 0 or 1, -1 in the train split
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question."""
  for row in folder.rows(f"{split}.json"):
    if not row["image"].startswith(_FOLDERS):
      raise errors.UserError(
        f'{folder.place}: image "{row["image"]}" is in none of {", ".join(_FOLDERS)}'
      )
    yield (
      f"{row['image_id']} / {row['question_id']}",
      {
        "image": folder.picture(row["image"]),
        "image_id": row["image_id"],
        "image_source": row["data_source"],
        "question": row["question"],
        "question_id": row["question_id"],
        "answer": int(row["answer"]),
        "issimple": int(row["issimple"]) if split == "test" else -1,
      },
    )


TASK = dataset.Task(
  source="https://github.com/manoja328/TallyQA_dataset, https://homes.cs.washington.edu/~ranjay/"
  "visualgenome/api.html (photos, two parts) and " + coco.SOURCE,
  licence="see the page; Visual Genome CC BY 4.0; " + coco.LICENCE,
  layout="""
{train,test}.json
{VG_100K,VG_100K_2}/2.jpg
{train2014,val2014}/COCO_{train2014,val2014}_000000000009.jpg
""",
  datasets=(
    dataset.Dataset("tallyqa", "1.0.0", features, {"train": 249318, "test": 38589}, records),
  ),
)
