"""MSRVTT-QA: questions made from the captions of MSR-VTT, answered in a word."""

from paligemma_jax.datasets import dataset, raw, video

SPLITS = {"train": "train", "valid": "val", "test": "test"}


def features(f):
  """Those of a record, of the module tfds.features."""
  return video.features(f, question=f.Text(), answer=f.Text(), id=f.Text())


def records(folder: raw.Folder, split: str, prefix: str = "video") -> dataset.Records:
  """One for each question; `prefix` stands before the number of a video in the name of its file."""
  for row in folder.rows(f"{SPLITS[split]}_qa.json"):
    name = f"{prefix}{row['video_id']}"
    yield (
      row["id"],
      {
        "frames": video.clip(folder, name),
        "example/video_id": name,
        "question": row["question"],
        "answer": row["answer"],
        "id": str(row["id"]),
      },
    )


TASK = dataset.Task(
  source="https://github.com/xudejing/video-question-answering",
  licence="see the page; videos belong to their owners",
  layout=f"""
{{train,val,test}}_qa.json
{video.LAYOUT.replace("{name}", "video0")}
""",
  datasets=(
    dataset.Dataset(
      name="msrvtt_qa",
      version="1.0.0",
      features=features,
      sizes={"train": 114080, "valid": 7936, "test": 51680},  # of videos the reference could load
      records=records,
      lenient=("train", "valid", "test"),
    ),
  ),
)
