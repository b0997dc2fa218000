"""COCO captions in the splits of Karpathy and Li: five sentences about each photo."""

import numpy as np

from paligemma_jax.datasets import coco, dataset, raw


def features(f):
  """Those of a record, of the module tfds.features: as TFDS's own coco_captions."""
  objects = {
    "id": np.int64,
    "area": np.int64,
    "bbox": f.BBoxFeature(),
    "label": f.ClassLabel(names=coco.CATEGORIES),
    "is_crowd": np.bool_,
  }
  return {
    "image": f.Image(encoding_format="jpeg"),
    "image/filename": f.Text(),
    "image/id": np.int64,
    "captions": f.Sequence({"text": f.Text(), "id": np.int64}),
    "objects": f.Sequence(objects),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo, with all its captions and, where instances are at hand, its objects."""
  instances = {}
  for row in folder.rows("dataset_coco.json", "images"):
    if row["split"] != split:
      continue
    year = row["filepath"]
    if year not in instances:
      with folder.partner():
        instances[year] = _instances(folder, year)
    yield (
      row["filename"],
      {
        "image": folder.picture(f"{year}/{row['filename']}"),
        "image/filename": row["filename"],
        "image/id": row["cocoid"],
        "captions": [{"text": s["raw"], "id": s["sentid"]} for s in row["sentences"]],
        "objects": _objects(instances[year], row["cocoid"]),
      },
    )


def _instances(folder, year) -> coco.Instances | None:
  """The objects of the photos of a year; None: their file is not there, captions do not need it."""
  name = f"annotations/instances_{year}.json"
  return coco.Instances(folder, name) if (folder.root / name).is_file() else None


def _objects(instances, image_id) -> list[dict]:
  found = coco.objects(instances, instances.images[image_id]) if instances else []
  return [{**one, "area": int(one["area"])} for one in found]


TASK = dataset.Task(
  source="https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip and "
  + coco.SOURCE,
  licence="captions CC BY 4.0; " + coco.LICENCE,
  layout="""
dataset_coco.json
annotations/instances_{train2014,val2014}.json    (optional) the objects
{train2014,val2014}/COCO_{train2014,val2014}_000000000009.jpg
""",
  datasets=(
    dataset.Dataset(
      name="coco_captions/2014",  # TFDS knows the name and asks for its config
      version="1.1.0",
      features=features,
      sizes={"train": 82783, "restval": 30504, "val": 5000, "test": 5000},
      records=records,
    ),
  ),
)
