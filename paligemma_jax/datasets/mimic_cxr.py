"""MIMIC-CXR: chest X-rays and the reports of radiologists.

PaliGemma 2 had mentions of earlier X-rays taken out of the reports by a language model, which is not
published: the reports are here as they are.
"""

import re

from paligemma_jax.datasets import dataset, raw

_TOLD = ("FINDING", "IMPRESSION")  # also "FINDINGS AND IMPRESSION"
_SECTION = re.compile(r"^\s*([A-Z][A-Z ,/()-]+):", re.M)


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "dicom_id": f.Text(),
    "study_id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "indication": f.Text(),
    "report": f.Text(),  # findings and impression
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each X-ray whose report has findings or an impression."""
  for row in folder.csv("mimic-cxr-2.0.0-split.csv"):
    if row["split"] != split:
      continue
    subject = f"p{row['subject_id']}"
    study = f"files/{subject[:3]}/{subject}/s{row['study_id']}"
    with folder.partner():
      said = sections("\n".join(folder.text(f"{study}.txt")))
    parts = [f"{name}: {text}" for name, text in said.items() if name.startswith(_TOLD) and text]
    if parts:
      yield (
        row["dicom_id"],
        {
          "dicom_id": row["dicom_id"],
          "study_id": row["study_id"],
          "image": folder.picture(f"{study}/{row['dicom_id']}.jpg"),
          "indication": f"INDICATION: {said.get('INDICATION', '')}".strip(),
          "report": " ".join(parts),
        },
      )


def sections(report: str) -> dict[str, str]:
  """Heading -> text, each on one line: "FINDINGS:  The\\n heart" -> {"FINDINGS": "The heart"}."""
  parts = _SECTION.split(report)
  return {name.strip(): " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2])}


TASK = dataset.Task(
  source="https://physionet.org/content/mimic-cxr-jpg/ and https://physionet.org/content/mimic-cxr/"
  " (mimic-cxr-reports.zip), after training and a signed agreement",
  licence="PhysioNet Credentialed Health Data License 1.5.0",
  layout="""
mimic-cxr-2.0.0-split.csv
files/p10/p10000032/s50414267.txt
files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg
""",
  datasets=(
    dataset.Dataset(
      "mimic_cxr", "1.0.0", features, dict.fromkeys(("train", "validate", "test")), records
    ),
  ),
)
