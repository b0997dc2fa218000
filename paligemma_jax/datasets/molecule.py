"""Pictures of molecules and their SMILES: a million drawn ones to train on, MolScribe's to test.

The drawings of PaliGemma 2 (a million molecules of PubChem, drawn by Indigo) are not published: make
your own, and list them in train.csv.
"""

from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "smiles": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each row of a table with the columns file_path and SMILES."""
  for row in folder.csv(f"{split}.csv"):
    yield (
      row["file_path"],
      {
        "filename": row["file_path"],
        "image": folder.picture(row["file_path"]),
        "smiles": row["SMILES"],
      },
    )


TASK = dataset.Task(
  source="https://github.com/thomas0809/MolScribe (its evaluation data: chemdraw.csv as test.csv) and"
  " https://pubchem.ncbi.nlm.nih.gov",
  licence="MolScribe MIT; PubChem is in the public domain",
  layout="""
{train,test}.csv    columns file_path and SMILES
…/1.png             as the tables name them
""",
  datasets=(
    dataset.Dataset(
      "molecule", "1.0.0", features, {"train": None, "test": 5719}, records, is_partial=True
    ),
  ),
)
