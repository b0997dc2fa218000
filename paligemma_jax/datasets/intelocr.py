"""Words in photos of Open Images v5, annotated by Intel, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  pattern = "text_spotting_openimages_v5_" + ("validation" if split == "validation" else "train_*")
  for name in text_spotting.listed(folder, ".", f"{pattern}.json"):
    annotations = folder.groups(name, "annotations", "image_id")
    for row in folder.rows(name, "images"):
      found = []
      for word in annotations[row["id"]]:
        x, y, w, h = word["bbox"]
        about = word["attributes"]
        text = about["transcription"] if about["legible"] else ""
        found.append((text, (x, x + w), (y, y + h)))
      photo, _, file = row["file_name"].rpartition("/")
      stem = file.rpartition(".")[0]
      yield text_spotting.record(folder, stem, [photo or "."], found, unread="")


TASK = dataset.Task(
  source="https://storage.openvinotoolkit.org/repositories/openvino_training_extensions/datasets/open_images_v5_text/",
  licence="CC BY 4.0; photos of Open Images CC BY 2.0",
  layout="""
text_spotting_openimages_v5_{train_1,…,validation}.json
…/0006289e4f292bcd.jpg    as the files name them
""",
  datasets=(
    dataset.Dataset(
      "intelocr", "1.0.0", text_spotting.features, {"train": 191059, "validation": 16731}, records
    ),
  ),
)
