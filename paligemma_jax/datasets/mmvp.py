"""MMVP: pairs of pictures that differ in what CLIP does not see, and one question about both."""

import re

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

_OPTION = re.compile(r"\(([a-z])\)\s*(.*?)\s*(?=\([a-z]\)|$)")


def features(f):
  """Those of a record, of the module tfds.features. (There is no builder of the reference.)"""
  return {
    "question_id": np.int32,  # 1..300
    "pair": np.int32,  # two questions each
    "image": f.Image(encoding_format="jpeg"),
    "question": f.Text(),
    "options": f.Sequence(f.Text()),
    "answer": f.Text(),  # text of the right option
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question."""
  for row in folder.csv("Questions.csv"):
    number = int(next(iter(row.values())))
    options = dict(_OPTION.findall(row["Options"]))
    letter = row["Correct Answer"].strip("() ")
    if letter not in options:
      raise errors.UserError(
        f'{folder.place}: answer "{row["Correct Answer"]}" is none of "{row["Options"]}"'
      )
    yield (
      number,
      {
        "question_id": number,
        "pair": (number - 1) // 2,
        "image": folder.picture(f"MMVP Images/{number}.jpg"),
        "question": row["Question"],
        "options": list(options.values()),
        "answer": options[letter],
      },
    )


TASK = dataset.Task(
  source="https://huggingface.co/datasets/MMVP/MMVP",
  licence="MIT",
  layout="""
Questions.csv
MMVP Images/{1,…,300}.jpg
""",
  datasets=(dataset.Dataset("mmvp", "1.0.0", features, {"test": 300}, records),),
)
