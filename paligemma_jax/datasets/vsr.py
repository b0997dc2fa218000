"""VSR: whether a spatial relation between two things in a COCO photo holds."""

import functools

from paligemma_jax.datasets import coco, dataset, raw

_SIZES = {
  "zeroshot": {"train": 3489, "dev": 340, "test": 1222},
  "random": {"train": 7680, "dev": 1097, "test": 2195},
}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "caption": f.Text(),
    "relation": f.Text(),
    "answer": f.Text(),  # "True" or "False"
  }


def records(kind: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each statement of a partition, "zeroshot" or "random"."""
  for i, row in enumerate(folder.lines(f"splits/{kind}/{split}.jsonl")):
    year = row["image_link"].split("/")[-2]
    yield (
      i,
      {
        "image/filename": row["image"],
        "image": folder.picture(f"{year}/{row['image']}"),
        "caption": row["caption"],
        "relation": row["relation"],
        "answer": "True" if row["label"] else "False",
      },
    )


TASK = dataset.Task(
  source="https://github.com/cambridgeltl/visual-spatial-reasoning and " + coco.SOURCE,
  licence="Apache-2.0; " + coco.LICENCE,
  layout="""
splits/{zeroshot,random}/{train,dev,test}.jsonl
{train2017,val2017}/000000000009.jpg
""",
  datasets=tuple(
    dataset.Dataset(f"vsr/{kind}", "1.0.0", features, sizes, functools.partial(records, kind))
    for kind, sizes in _SIZES.items()
  ),
)
