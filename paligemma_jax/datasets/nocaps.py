"""NoCaps: captions of Open Images photos of things that COCO's captions do not know, ten each.

Photos that are missing or cannot be read are left out in both splits, as the reference does.
"""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

_FILES = {  # annotations, folder
  "val": ("nocaps_val_4500_captions.json", "validation"),
  "test": ("nocaps_test_image_info.json", "test"),
}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": np.int64,
    "image_filepath": f.Text(),
    "url": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "texts": f.Sequence(f.Text()),  # "N/A" in the test split
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo, with all its captions."""
  name, pictures = _FILES[split]
  captions = None if split == "test" else folder.groups(name, "annotations", "image_id")
  for row in folder.rows(name, "images"):
    texts = raw.texts(captions[row["id"]], "caption") if captions else ["N/A"]
    if not texts:
      raise errors.UserError(f"{folder.place}: no caption of image {row['id']} in the file")
    file = f"{pictures}/{row['file_name']}"
    yield (
      row["id"],
      {
        "image/id": row["id"],
        "image_filepath": file,
        "url": row["coco_url"],
        "image": folder.picture(file),
        "texts": texts,
      },
    )


TASK = dataset.Task(
  source="https://nocaps.org/download and https://s3.amazonaws.com/open-images-dataset/tar/"
  " (validation.tar.gz, test.tar.gz)",
  licence="see the page; photos of Open Images CC BY 2.0",
  layout="""
nocaps_val_4500_captions.json
nocaps_test_image_info.json
{validation,test}/0013ea2087020901.jpg
""",
  datasets=(
    dataset.Dataset(
      name="nocaps",
      version="1.0.0",
      features=features,
      sizes={"val": 4500, "test": 10600},
      records=records,
      lenient=("val", "test"),
    ),
  ),
)
