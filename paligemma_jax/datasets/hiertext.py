"""HierText: all words in photos of Open Images, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  name = f"{split}.jsonl"  # one JSON object, despite its name
  for row in folder.rows(name, "annotations"):
    words = [w for p in row["paragraphs"] for line in p["lines"] for w in line["words"]]
    found = [(w["text"] if w["legible"] else "", *zip(*w["vertices"])) for w in words]
    yield text_spotting.record(folder, row["image_id"], [split], found, unread="")


TASK = dataset.Task(
  source="https://github.com/google-research-datasets/hiertext",
  licence="CC BY-SA 4.0",
  layout="""
{train,validation}.jsonl
{train,validation}/0006289e4f292bcd.jpg
""",
  datasets=(
    dataset.Dataset(
      "hiertext", "1.0.0", text_spotting.features, {"train": 8281, "validation": 1724}, records
    ),
  ),
)
