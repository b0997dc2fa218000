"""NLVR2: whether a sentence is true of a pair of photos."""

from paligemma_jax.datasets import dataset, raw

_FILES = {"train": "train", "dev": "dev", "test": "test1"}


def features(f):
  """Those of a record, of the module tfds.features: as the reference's configs read them."""
  return {
    "example_id": f.Text(),
    "image_left": f.Image(encoding_format="png"),
    "image_right": f.Image(encoding_format="png"),
    "sentence": f.Text(),
    "label": f.Text(),  # "True" or "False"
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each sentence."""
  name = _FILES[split]
  for row in folder.lines(f"data/{name}.json"):
    place = f"images/train/{row['directory']}" if split == "train" else name
    pair = row["identifier"].rpartition("-")[0]
    yield (
      row["identifier"],
      {
        "example_id": row["identifier"],
        "image_left": folder.picture(f"{place}/{pair}-img0.png"),
        "image_right": folder.picture(f"{place}/{pair}-img1.png"),
        "sentence": row["sentence"],
        "label": str(row["label"]),
      },
    )


TASK = dataset.Task(
  source="https://github.com/lil-lab/nlvr/tree/master/nlvr2 (photos on request, or by its script)",
  licence="sentences CC BY 4.0; photos belong to their owners",
  layout="""
data/{train,dev,test1}.json
images/train/{0,…,99}/train-10171-0-img{0,1}.png
{dev,test1}/dev-850-0-img{0,1}.png
""",
  datasets=(
    dataset.Dataset(
      "nlvr2", "1.0.0", features, {"train": 86373, "dev": 6982, "test": 6967}, records
    ),
  ),
)
