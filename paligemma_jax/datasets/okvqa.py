"""OK-VQA: questions about COCO photos that need knowledge of the world, ten answers each."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import coco, dataset, raw

_TYPES = {
  "one": "Vehicles and Transportation", "two": "Brands, Companies and Products",
  "three": "Objects, Material and Clothing", "four": "Sports and Recreation",
  "five": "Cooking and Food", "six": "Geography, History, Language and Culture",
  "seven": "People and Everyday life", "eight": "Plants and Animals",
  "nine": "Science and Technology", "ten": "Weather and Climate", "other": "Other",
}  # fmt: skip
_SURE = {"yes": True, "no": False}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image": f.Image(shape=(None, None, 3)),
    "image_id": np.int64,
    "answer_type": f.Text(),
    "answers": f.Sequence(f.Text()),  # lemmatised, unlike the raw ones
    "answers_confidence": f.Tensor(shape=(10,), dtype=np.bool_),
    "answers_raw": f.Sequence(f.Text()),
    "question_id": np.int64,
    "question_type": f.Text(),
    "question_type_readable": f.Text(),
    "question": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question."""
  year = f"{split}2014"
  asked = f"OpenEnded_mscoco_{year}_questions.json"
  annotations = folder.table(f"mscoco_{year}_annotations.json", "annotations", "question_id")
  for row in folder.rows(asked, "questions"):
    found = annotations[row["question_id"]]
    coco.check_same_image(folder, row, found)
    if len(found["answers"]) != 10:
      raise errors.UserError(
        f"{folder.place}: question {row['question_id']} has {len(found['answers'])} answers, not 10"
      )
    yield (
      row["question_id"],
      {
        "image": folder.picture(f"{year}/{coco.file_2014(year, row['image_id'])}"),
        "image_id": row["image_id"],
        "answer_type": found["answer_type"],
        "answers": raw.texts(found["answers"], "answer"),
        "answers_confidence": [_SURE[a["answer_confidence"]] for a in found["answers"]],
        "answers_raw": raw.texts(found["answers"], "raw_answer"),
        "question_id": row["question_id"],
        "question_type": found["question_type"],
        "question_type_readable": _TYPES[found["question_type"]],
        "question": row["question"],
      },
    )
  annotations.check_all_used(asked)


TASK = dataset.Task(
  source="https://okvqa.allenai.org/download.html and " + coco.SOURCE,
  licence="see the page; " + coco.LICENCE,
  layout="""
OpenEnded_mscoco_{train2014,val2014}_questions.json
mscoco_{train2014,val2014}_annotations.json
{train2014,val2014}/COCO_{train2014,val2014}_000000000009.jpg
""",
  datasets=(dataset.Dataset("okvqa", "1.0.0", features, {"train": 9009, "val": 5046}, records),),
)
