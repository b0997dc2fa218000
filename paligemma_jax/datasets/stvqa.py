"""ST-VQA: questions about writing in photos of seven collections.

There is no official validation split, and the reference's list of its photos is not public: here a
photo is in it when a hash of its path says so, one in ten. Photos of COCO-Text are taken from COCO
itself, where they are larger.
"""

from paligemma_jax.datasets import coco, dataset, infovqa, raw


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question; without answers in the test split."""
  part, pictures = ("test", "test_task3_images") if split == "test" else ("train", "train_images")
  for row in folder.rows(f"{part}_task_3.json", "data"):
    path = row["file_path"]
    if split != "test" and raw.is_held_out(path) != (split == "val"):
      continue
    file = f"{pictures}/{path}"
    if path.startswith("coco-text/"):
      file = f"train2014/{path.removeprefix('coco-text/')}"
    yield (
      row["question_id"],
      {
        "question_id": row["question_id"],
        "filename": path,
        "image": folder.picture(file),
        "question": row["question"],
        "answers": [] if split == "test" else row["answers"],
      },
    )


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=11&com=downloads (task 3, after registration) and "
  + coco.SOURCE,
  licence="see the page",
  layout="""
{train,test}_task_3.json
train_images/{iiit-text,…}/…
test_task3_images/{iiit-text,…}/…
train2014/COCO_train2014_000000000009.jpg    those of coco-text
""",
  datasets=(
    dataset.Dataset(
      name="stvqa",
      version="1.2.0",
      features=infovqa.features,
      sizes={"train": None, "val": None, "test": 4070},
      records=records,
      lenient=("test",),
    ),
  ),
)
