"""VATEX: clips of human activities, ten English captions each."""

from paligemma_jax.datasets import dataset, msrvtt, raw, video

_FILES = {
  "train": "vatex_training_v1.0.json",
  "valid": "vatex_validation_v1.0.json",
  "test": "vatex_public_test_english_v1.1.json",
}


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each clip, with all its English captions."""
  for row in folder.rows(_FILES[split]):
    yield (
      row["videoID"],
      {
        "frames": video.clip(folder, row["videoID"]),
        "example/video_id": row["videoID"],
        "caption/string": row["enCap"],
      },
    )


TASK = dataset.Task(
  source="https://eric-xw.github.io/vatex-website/download.html",
  licence="CC BY 4.0; videos belong to their owners",
  layout=f"""
vatex_training_v1.0.json
vatex_validation_v1.0.json
vatex_public_test_english_v1.1.json
{video.LAYOUT.replace("{name}", "Ptf_2VRj-V0_000122_000132")}
""",
  datasets=(
    dataset.Dataset(
      name="vatex",
      version="1.0.0",
      features=msrvtt.features,
      sizes={"train": 22315, "valid": 2584, "test": 5135},  # videos that the reference could load
      records=records,
      lenient=("train", "valid", "test"),
    ),
  ),
)
