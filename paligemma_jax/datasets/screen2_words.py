"""Screen2Words: summaries of screens of Android apps (RICO), five each."""

import collections

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": np.int32,
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "summary": f.Sequence(f.Text()),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each screen, with all its summaries."""
  summaries = collections.defaultdict(list)
  for row in folder.csv("screen_summaries.csv"):
    summaries[row["screenId"]].append(row["summary"])
  name = f"split/{split}_screens.txt"
  for screen in filter(None, map(str.strip, folder.text(name))):
    folder.place = f"{folder.root / name}: {screen}"
    if screen not in summaries:
      raise errors.UserError(f"{folder.place} is not in {folder.root}/screen_summaries.csv")
    yield (
      int(screen),
      {
        "image/id": int(screen),
        "image/filename": f"{screen}.jpg",
        "image": folder.picture(f"combined/{screen}.jpg"),
        "summary": summaries[screen],
      },
    )


TASK = dataset.Task(
  source="https://github.com/google-research-datasets/screen2words and"
  " http://interactionmining.org/rico (UI screenshots and view hierarchies)",
  licence="summaries CC BY 4.0; for RICO see its page",
  layout="""
screen_summaries.csv
split/{train,dev,test}_screens.txt
combined/50105.jpg
""",
  datasets=(
    dataset.Dataset(
      name="screen2_words",
      version="1.0.0",
      features=features,
      sizes={"train": 15743, "dev": 2364, "test": 4310},
      records=records,
    ),
  ),
)
