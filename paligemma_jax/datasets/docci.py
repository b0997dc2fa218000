"""DOCCI: photos with descriptions of a paragraph."""

from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "example_id": f.Text(),
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "description": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  for row in folder.lines("docci_descriptions.jsonlines"):
    if row["split"] == split:
      yield (
        row["example_id"],
        {
          "example_id": row["example_id"],
          "image/filename": row["image_file"],
          "image": folder.picture(f"images/{row['image_file']}"),
          "description": row["description"],
        },
      )


TASK = dataset.Task(
  source="https://google.github.io/docci/#downloads",
  licence="CC BY 4.0",
  layout="""
docci_descriptions.jsonlines
images/qual_dev_00000.jpg
""",
  datasets=(
    dataset.Dataset(
      name="docci",
      version="1.0.0",
      features=features,
      sizes={"train": 9647, "test": 5000, "qual_dev": 100, "qual_test": 100},
      records=records,
    ),
  ),
)
