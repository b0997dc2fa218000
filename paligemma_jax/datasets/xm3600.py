"""Crossmodal-3600: captions of 3,600 photos written by people in 36 languages, a split for each."""

from paligemma_jax.datasets import coco35l, dataset, raw

LANGUAGES = sorted([*coco35l.LANGUAGES, "quz"])


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "captions": f.Sequence(f.Text()),
    "captions/tokenized": f.Sequence(f.Text()),
    "language": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo, with its captions in the language of the split."""
  for row in folder.lines("captions.jsonl"):
    said, key = row[split], f"{row['image/key']}_{split}"
    yield (
      key,
      {
        "image/id": key,
        "image": folder.picture(f"images/{row['image/key']}.jpg"),
        "captions": said["caption"],
        "captions/tokenized": said.get("caption/tokenized", []),
        "language": split,
      },
    )


TASK = dataset.Task(
  source="https://google.github.io/crossmodal-3600/ (captions.zip, images.tgz)",
  licence="CC BY 4.0",
  layout="""
captions.jsonl
images/000411001ff7dd4f.jpg
""",
  datasets=(dataset.Dataset("xm3600", "1.0.0", features, dict.fromkeys(LANGUAGES, 3600), records),),
)
