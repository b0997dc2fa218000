"""VQAv2: questions about COCO photos, ten answers each."""

import numpy as np

from paligemma_jax.datasets import coco, dataset, raw

_YEARS = {
  "train": "train2014", "validation": "val2014", "test": "test2015", "test-dev": "test-dev2015",
}  # fmt: skip


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image": f.Image(encoding_format="jpeg"),
    "image/id": np.int32,
    "image/filename": f.Text(),
    "question_id": np.int32,
    "question_type": f.Text(),
    "question_text": f.Text(),
    "answer_type": f.Text(),
    "answers": f.Sequence(f.Text()),
    "answer_confidences": f.Sequence(f.ClassLabel(names=["no", "maybe", "yes"])),
    "top_answer": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers in the test splits."""
  year = _YEARS[split]
  questions = f"v2_OpenEnded_mscoco_{year}_questions.json"
  is_test = split.startswith("test")
  pictures = "test2015" if is_test else year
  if not is_test:
    annotations = folder.table(f"v2_mscoco_{year}_annotations.json", "annotations", "question_id")
  for row in folder.rows(questions, "questions"):
    found = {} if is_test else annotations[row["question_id"]]
    if not is_test:
      coco.check_same_image(folder, row, found)
    answers = [] if is_test else found["answers"]
    name = coco.file_2014(pictures, row["image_id"])
    yield (
      row["question_id"],
      {
        "image": folder.picture(f"{pictures}/{name}"),
        "image/id": row["image_id"],
        "image/filename": name,
        "question_id": row["question_id"],
        "question_type": "" if is_test else found["question_type"],
        "question_text": row["question"],
        "answer_type": "" if is_test else found["answer_type"],
        "answers": raw.texts(answers, "answer"),
        "answer_confidences": raw.texts(answers, "answer_confidence"),
        "top_answer": "" if is_test else found["multiple_choice_answer"],
      },
    )
  if not is_test:
    annotations.check_all_used(questions)


TASK = dataset.Task(
  source="https://visualqa.org/download.html and " + coco.SOURCE,
  licence="questions and answers CC BY 4.0; " + coco.LICENCE,
  layout="""
v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json
v2_mscoco_{train2014,val2014}_annotations.json
{train2014,val2014,test2015}/COCO_{train2014,val2014,test2015}_000000000009.jpg
""",
  datasets=(
    dataset.Dataset(
      name="vqa",
      version="3.0.0",
      features=features,
      sizes={"train": 443757, "validation": 214354, "test": 447793, "test-dev": 107394},
      records=records,
      lenient=("test", "test-dev"),
    ),
  ),
)
