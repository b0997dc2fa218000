"""MSR-VTT: clips from the web, twenty captions each."""

import collections

from paligemma_jax.datasets import dataset, raw, video

_FILES = {  # file, its split
  "train": ("train_val_videodatainfo.json", "train"),
  "valid": ("train_val_videodatainfo.json", "validate"),
  "test": ("test_videodatainfo.json", "test"),
}


def features(f):
  """Those of a record, of the module tfds.features."""
  return video.features(f, **{"caption/string": f.Sequence(f.Text())})


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each clip, with all its captions."""
  name, theirs = _FILES[split]
  captions = collections.defaultdict(list)
  for row in folder.rows(name, "sentences"):
    captions[row["video_id"]].append(row["caption"])
  for row in folder.rows(name, "videos"):
    if row["split"] == theirs:
      yield (
        row["video_id"],
        {
          "frames": video.clip(folder, row["video_id"]),
          "example/video_id": row["video_id"],
          "caption/string": captions[row["video_id"]],
        },
      )


TASK = dataset.Task(
  source="https://www.microsoft.com/en-us/research/publication/msr-vtt-a-large-video-description-"
  "dataset-for-bridging-video-and-language/",
  licence="see the page; videos belong to their owners",
  layout=f"""
train_val_videodatainfo.json
test_videodatainfo.json
{video.LAYOUT.replace("{name}", "video0")}
""",
  datasets=(
    dataset.Dataset(
      name="msrvtt",
      version="1.0.0",
      features=features,
      sizes={"train": 4663, "valid": 316, "test": 2094},  # videos that the reference could load
      records=records,
      lenient=("train", "valid", "test"),
    ),
  ),
)
