"""ActivityNet Captions: stretches of videos of everyday activities, one sentence each."""

from paligemma_jax.datasets import dataset, raw, video

_FILES = {"train": "train.json", "valid": "val_1.json", "test": "val_2.json"}


def features(f):
  """Those of a record, of the module tfds.features."""
  return video.features(f, **{"caption/string": f.Text(), "id": f.Text()})


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each stretch. Some are annotated backwards or run over the end."""
  for name, row in folder.items(_FILES[split]):
    length = row["duration"]
    for number, (times, sentence) in enumerate(
      zip(row["timestamps"], row["sentences"], strict=True)
    ):
      start, end = (min(max(t / length, 0.0), 1.0) for t in sorted(times))
      yield (
        f"{name}[{times[0]}-{times[1]}] {number}",
        {
          "frames": video.clip(folder, name, start, end, length),
          "example/video_id": name,
          "caption/string": sentence.strip(),
          "id": f"{name}[{times[0]}-{times[1]}]",
        },
      )


TASK = dataset.Task(
  source="https://cs.stanford.edu/people/ranjaykrishna/densevid/",
  licence="see the page; videos belong to their owners",
  layout=f"""
train.json
val_1.json    the split "valid"
val_2.json    the split "test"
{video.LAYOUT.replace("{name}", "v_bXdq2zI1Ms0")}
""",
  datasets=(
    dataset.Dataset(
      name="activitynet_captions_mr",
      version="1.0.0",
      features=features,
      sizes={"train": 30545, "valid": 14338, "test": 13982},  # of videos the reference could load
      records=records,
      lenient=("train", "valid", "test"),
    ),
  ),
)
