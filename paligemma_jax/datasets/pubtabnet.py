"""PubTabNet: tables of articles in PubMed Central, their HTML and the boxes of their cells."""

from paligemma_jax.datasets import dataset, pictures, raw, tables


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each table."""
  for row in folder.lines("PubTabNet_2.0.0.jsonl"):
    if row["split"] == split:
      picture = folder.picture(f"{split}/{row['filename']}")
      size = picture.size()
      cells = tables.cells(row["html"], lambda box, s=size: pictures.unit_box(*box, *s))
      yield row["imgid"], tables.record(row, picture, cells)


TASK = dataset.Task(
  source="https://github.com/ibm-aur-nlp/PubTabNet",
  licence="CDLA-Permissive-1.0; pictures under the terms of PMC's open-access subset",
  layout="""
PubTabNet_2.0.0.jsonl
{train,val}/PMC1064074_007_00.png
""",
  datasets=(
    dataset.Dataset("pubtabnet", "1.0.0", tables.features, {"train": 500777, "val": 9115}, records),
  ),
)
