"""DocLayNet: the boxes of eleven kinds of parts of pages."""

import numpy as np

from paligemma_jax.datasets import coco, dataset, raw

_LABELS = (
  "Caption", "Footnote", "Formula", "List-item", "Page-footer", "Page-header", "Picture",
  "Section-header", "Table", "Text", "Title",
)  # fmt: skip
_PART = ("id", "bbox", "label")


def features(f):
  """Those of a record, of the module tfds.features."""
  objects = {"id": np.int64, "bbox": f.BBoxFeature(), "label": f.ClassLabel(names=_LABELS)}
  return {
    "image": f.Image(encoding_format="png"),
    "image/filename": f.Text(),
    "image/id": np.int64,
    "objects": f.Sequence(objects),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each page."""
  name = f"COCO/{'val' if split == 'validation' else split}.json"
  instances = coco.Instances(folder, name)
  for image_id in instances.images:
    row = instances.images[image_id]
    folder.place = f"{folder.root / name}: image {image_id}"
    found = [{k: part[k] for k in _PART} for part in coco.objects(instances, row)]
    yield (
      row["file_name"],
      {
        "image": folder.picture(f"PNG/{row['file_name']}"),
        "image/filename": row["file_name"],
        "image/id": image_id,
        "objects": found,
      },
    )


TASK = dataset.Task(
  source="https://github.com/DS4SD/DocLayNet (DocLayNet_core.zip)",
  licence="CDLA-Permissive-1.0",
  layout="""
COCO/{train,val,test}.json
PNG/132a855ee8b23533d8ae69af0049c038171a06ddfcac892c3c6d7e6b4091c642.png
""",
  datasets=(
    dataset.Dataset(
      "doclaynet",
      "1.0.0",
      features,
      {"train": 69375, "validation": 6489, "test": 4999},
      records,
    ),
  ),
)
