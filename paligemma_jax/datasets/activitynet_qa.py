"""ActivityNet-QA: questions about videos of everyday activities."""

import numpy as np

from paligemma_jax.datasets import dataset, msrvtt_qa, raw, video


def features(f):
  """Those of a record, of the module tfds.features."""
  return video.features(f, question=f.Text(), answer=f.Text(), id=f.Text(), type=np.int32)


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question."""
  asked, given = (f"{msrvtt_qa.SPLITS[split]}_{kind}.json" for kind in ("q", "a"))
  answers = folder.table(given, "", "question_id")
  for row in folder.rows(asked):
    found, name = answers[row["question_id"]], f"v_{row['video_name']}"
    yield (
      row["question_id"],
      {
        "frames": video.clip(folder, name),
        "example/video_id": name,
        "question": row["question"],
        "answer": str(found["answer"]),
        "id": row["question_id"],
        "type": found["type"],
      },
    )
  answers.check_all_used(asked)


TASK = dataset.Task(
  source="https://github.com/MILVLG/activitynet-qa",
  licence="Apache-2.0; videos belong to their owners",
  layout=f"""
{{train,val,test}}_{{q,a}}.json
{video.LAYOUT.replace("{name}", "v_bXdq2zI1Ms0")}
""",
  datasets=(
    dataset.Dataset(
      name="activitynet_qa",
      version="1.0.0",
      features=features,
      sizes={"train": 27610, "valid": 15760, "test": 6900},  # of videos the reference could load
      records=records,
      lenient=("train", "valid", "test"),
    ),
  ),
)
