"""TextOCR: words in the photos of TextVQA, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  whole = folder.json(f"TextOCR_0.1_{'val' if split == 'validation' else split}.json")
  place = folder.place
  for image_id, numbers in whole["imgToAnns"].items():
    folder.place = f"{place}: image {image_id}"
    rows = [whole["anns"][str(n)] for n in numbers]
    found = [(r["utf8_string"], r["points"][::2], r["points"][1::2]) for r in rows]
    yield text_spotting.record(folder, image_id, ["train_images"], found, unread=".")


TASK = dataset.Task(
  source="https://textvqa.org/textocr",
  licence="CC BY 4.0",
  layout="""
TextOCR_0.1_{train,val}.json
train_images/0006289e4f292bcd.jpg
""",
  datasets=(
    dataset.Dataset(
      "textocr", "1.0.0", text_spotting.features, {"train": 21778, "validation": 3124}, records
    ),
  ),
)
