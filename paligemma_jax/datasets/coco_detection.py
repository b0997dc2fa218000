"""COCO 2017 detection: the boxes of 80 classes of objects.

Crowd regions are kept, marked `is_crowd`: answers leave them out and mAP ignores what they cover.
Boxes without area or wholly outside are left out, boxes that stick out are clipped.
"""

import numpy as np

from paligemma_jax.datasets import coco, dataset, raw


def features(f):
  """Those of a record, of the module tfds.features: as TFDS's own coco/2017, areas not rounded."""
  objects = {
    "id": np.int64,
    "area": np.float32,
    "bbox": f.BBoxFeature(),
    "label": f.ClassLabel(names=coco.CATEGORIES),
    "is_crowd": np.bool_,
  }
  return {
    "image": f.Image(encoding_format="jpeg"),
    "image/filename": f.Text(),
    "image/id": np.int64,
    "objects": f.Sequence(objects),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo; those of the test split have no objects."""
  year = {"train": "train2017", "validation": "val2017", "test": "test2017"}[split]
  if split == "test":
    for row in folder.rows("annotations/image_info_test-dev2017.json", "images"):
      yield row["file_name"], _photo(folder, year, row, [])
    return
  instances = coco.Instances(folder, f"annotations/instances_{year}.json")
  for image_id in instances.images:
    row = instances.images[image_id]
    folder.place = f"{folder.root}/annotations/instances_{year}.json: image {image_id}"
    yield row["file_name"], _photo(folder, year, row, coco.objects(instances, row))


def _photo(folder, year, row, objects):
  return {
    "image": folder.picture(f"{year}/{row['file_name']}"),
    "image/filename": row["file_name"],
    "image/id": row["id"],
    "objects": objects,
  }


TASK = dataset.Task(
  source=coco.SOURCE,
  licence="annotations CC BY 4.0; " + coco.LICENCE,
  layout="""
annotations/instances_{train2017,val2017}.json
annotations/image_info_test-dev2017.json    (optional)
{train2017,val2017,test2017}/000000000009.jpg
""",
  datasets=(
    dataset.Dataset(
      name="coco/2017",
      version="1.1.0",
      features=features,
      sizes={"train": 118287, "validation": 5000, "test": 20288},
      records=records,
      lenient=("test",),
      is_partial=True,
    ),
  ),
)
