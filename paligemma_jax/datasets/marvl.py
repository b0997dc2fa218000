"""MaRVL: NLVR2's question in five languages, about photos of things of their cultures."""

from paligemma_jax.datasets import dataset, nlvr2, raw

LANGUAGES = {"id": 1128, "sw": 1108, "ta": 1242, "tr": 1180, "zh": 1012}  # sentences in each


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each sentence of a language."""
  language = split.removeprefix("test_")
  for row in folder.lines(f"marvl-annotations/marvl-{language}.jsonl"):
    place = f"marvl-images/{language}/images/{row['concept']}"
    yield (
      row["id"],
      {
        "example_id": row["id"],
        "image_left": folder.picture(f"{place}/{row['left_img']}"),
        "image_right": folder.picture(f"{place}/{row['right_img']}"),
        "sentence": row["caption"],
        "label": str(row["label"]),
      },
    )


TASK = dataset.Task(
  source="https://marvl-challenge.github.io",
  licence="texts CC BY 4.0; photos for research only",
  layout="""
marvl-annotations/marvl-{id,sw,ta,tr,zh}.jsonl
marvl-images/{id,sw,ta,tr,zh}/images/35-Ndizi/35-1.jpg    concept and file as the rows name them
""",
  datasets=(
    dataset.Dataset(
      name="marvl",
      version="1.0.0",
      features=nlvr2.features,
      sizes={f"test_{language}": count for language, count in LANGUAGES.items()},
      records=records,
    ),
  ),
)
