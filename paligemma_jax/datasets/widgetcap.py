"""Widget captioning: what the elements of Android screens (RICO) are for."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

_CANVAS = 2560  # height of the canvas that RICO's bounds count in


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "texts": f.Sequence(f.Text()),
    "bbox": f.BBoxFeature(),
    "screen_id": f.Text(),
    "node_id": f.Text(),
    "height": np.int32,
    "width": np.int32,
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each element, with all its captions."""
  screens = {line.strip() for line in folder.text(f"split/{split}.txt")}
  for row in folder.csv("widget_captions.csv"):
    screen, node = row["screenId"], row["nodeId"]
    if screen not in screens:
      continue
    picture = folder.picture(f"combined/{screen}.jpg")
    width, height = picture.size()
    with folder.partner():
      view = folder.json(f"combined/{screen}.json")
    place = f"{folder.place}: {folder.root}/combined/{screen}.json"
    bounds = _bounds(view["activity"]["root"], node, place)
    x0, y0, x1, y1 = (v * height / _CANVAS for v in bounds)
    yield (
      f"{screen}_{node}",
      {
        "image/id": f"{screen}_{node}",
        "image/filename": f"{screen}.jpg",
        "image": picture,
        "texts": row["captions"].split("|"),
        "bbox": np.array((y0 / height, x0 / width, y1 / height, x1 / width), np.float32),
        "screen_id": screen,
        "node_id": node,
        "height": height,
        "width": width,
      },
    )


def _bounds(node: dict, path: str, place: str) -> list[float]:
  """The bounds of the element that a dotted path of child numbers leads to; the first is the root."""
  try:
    for step in path.split(".")[1:]:
      node = node["children"][int(step)]
    return node["bounds"]
  except (KeyError, IndexError, TypeError, ValueError):
    raise errors.UserError(f"{place} has no node {path}") from None


TASK = dataset.Task(
  source="https://github.com/google-research-datasets/widget-caption and"
  " http://interactionmining.org/rico (UI screenshots and view hierarchies)",
  licence="captions CC BY 4.0; for RICO see its page",
  layout="""
widget_captions.csv
split/{train,dev,test}.txt
combined/50105.{jpg,json}
""",
  datasets=(
    dataset.Dataset(
      name="widgetcap",
      version="1.0.0",
      features=features,
      sizes={"train": None, "dev": None, "test": None},
      records=records,
    ),
  ),
)
