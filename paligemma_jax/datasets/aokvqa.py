"""A-OKVQA: questions about COCO photos with four choices, ten direct answers and rationales."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import coco, dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image": f.Image(shape=(None, None, 3)),
    "image_id": np.int64,
    "direct_answers": f.Sequence(f.Text()),
    "direct_answer_is_difficult": np.bool_,
    "multiple_choice_possible_answers": f.Sequence(f.Text()),
    "multiple_choice_correct_idx": np.int32,  # 0..3, -1 in the test split
    "answer_rationales": f.Sequence(f.Text()),
    "question": f.Text(),
    "question_id": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers and rationales in the test split."""
  is_test = split == "test"
  for row in folder.rows(f"aokvqa_v1p0_{split}.json"):
    if len(row["choices"]) != 4:
      raise errors.UserError(f"{folder.place}: {len(row['choices'])} choices, not 4")
    yield (
      row["question_id"],
      {
        "image": folder.picture(f"{split}2017/{row['image_id']:012d}.jpg"),
        "image_id": row["image_id"],
        "direct_answers": [] if is_test else row["direct_answers"],
        "direct_answer_is_difficult": row["difficult_direct_answer"],
        "multiple_choice_possible_answers": row["choices"],
        "multiple_choice_correct_idx": -1 if is_test else row["correct_choice_idx"],
        "answer_rationales": [] if is_test else row["rationales"],
        "question": row["question"],
        "question_id": row["question_id"],
      },
    )


TASK = dataset.Task(
  source="https://github.com/allenai/aokvqa (aokvqa_v1p0.tar.gz) and " + coco.SOURCE,
  licence="see the page; " + coco.LICENCE,
  layout="""
aokvqa_v1p0_{train,val,test}.json
{train2017,val2017,test2017}/000000000009.jpg
""",
  datasets=(
    dataset.Dataset(
      name="aokvqa",
      version="1.0.0",
      features=features,
      sizes={"train": 17056, "val": 1145, "test": 6702},
      records=records,
      lenient=("test",),
    ),
  ),
)
