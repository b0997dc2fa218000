"""ChartQA: questions about charts, written by people or made from summaries of charts."""

import functools

import numpy as np

from paligemma_jax.datasets import dataset, raw

_ROOT = "ChartQA Dataset"
_SIZES = {
  "human": {"train": 7398, "val": 960, "test": 1250},
  "augmented": {"train": 20901, "val": 960, "test": 1250},
}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question_id": np.int32,  # number of the row
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "question": f.Text(),
    "answer": f.Text(),
  }


def records(kind: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question of a kind, "human" or "augmented"."""
  for i, row in enumerate(folder.rows(f"{_ROOT}/{split}/{split}_{kind}.json")):
    yield (
      i,
      {
        "question_id": i,
        "image/filename": row["imgname"],
        "image": folder.picture(f"{_ROOT}/{split}/png/{row['imgname']}"),
        "question": row["query"],
        "answer": str(row["label"]),
      },
    )


TASK = dataset.Task(
  source="https://github.com/vis-nlp/ChartQA",
  licence="see the page (GPL-3.0 for the repository); charts belong to their publishers",
  layout="""
ChartQA Dataset/{train,val,test}/{train,val,test}_{human,augmented}.json
ChartQA Dataset/{train,val,test}/png/10095.png
""",
  datasets=tuple(
    dataset.Dataset(f"chartqa/{kind}", "1.0.0", features, sizes, functools.partial(records, kind))
    for kind, sizes in _SIZES.items()
  ),
)
