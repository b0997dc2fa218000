"""ScienceQA: multiple-choice questions of school books, those that have a picture."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

_ROOT = "data/scienceqa"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COPIED = (
  "question", "choices", "answer", "task", "grade", "subject", "topic", "category", "skill",
  "lecture", "solution",
)  # fmt: skip


def features(f):
  """Those of a record, of the module tfds.features."""
  texts = [name for name in _COPIED if name not in ("choices", "answer")]
  return {
    **{name: f.Text() for name in texts},
    "choices": f.Sequence(f.Text()),
    "answer": np.int32,  # index of the right choice
    "hint": f.Text(),  # "N/A" if there is none
    "image": f.Image(encoding_format="png"),
    "indexed_choices": f.Text(),
    "indexed_answer": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question with a picture."""
  name, problems = f"{_ROOT}/problems.json", set()
  listed = set(folder.json(f"{_ROOT}/pid_splits.json")[split])
  for key, row in folder.items(name):
    if row["split"] != split:
      continue
    problems.add(key)
    if key not in listed:
      raise errors.UserError(f"{folder.place}: pid_splits.json does not list it in {split}")
    if not row["image"]:
      continue
    yield (
      int(key),
      {
        **{name: row[name] for name in _COPIED},
        "hint": row["hint"] or "N/A",
        "image": folder.picture(f"{_ROOT}/images/{split}/{key}/{row['image']}"),
        "indexed_choices": ", ".join(f"({a}) {c}" for a, c in zip(_LETTERS, row["choices"])),
        "indexed_answer": _LETTERS[row["answer"]],
      },
    )
  if listed - problems:
    raise errors.UserError(
      f"{folder.root / _ROOT}/pid_splits.json: {split} lists {min(listed - problems)}, which"
      " problems.json does not have there"
    )


TASK = dataset.Task(
  source="https://github.com/lupantech/ScienceQA",
  licence="CC BY-NC-SA 4.0",
  layout="""
data/scienceqa/problems.json
data/scienceqa/pid_splits.json
data/scienceqa/images/{train,val,test}/1/image.png
""",
  datasets=(
    dataset.Dataset(
      "science_qa", "1.0.0", features, {"train": 6218, "val": 2097, "test": 2017}, records
    ),
  ),
)
