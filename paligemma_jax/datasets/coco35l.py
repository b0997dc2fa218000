"""COCO-35L: COCO's captions translated by machine into 34 languages, a split for each.

Unpack the .bz2 files if there is space: they are read once for each language.
"""

import json
import re

from paligemma_jax import errors
from paligemma_jax.datasets import coco, dataset, raw

LANGUAGES = (
  "ar bn cs da de el en es fa fi fil fr he hi hr hu id it ja ko mi nl no pl pt ro ru sv sw te th tr"
  " uk vi zh"
).split()
_PHOTOS = {"train": 113287, "dev": 5000}
_IMAGE_ID = re.compile(r'"image_id":\s*"(\d+)_')


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "captions": f.Sequence(f.Text()),
    "language": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo, with its captions in the language of the split."""
  part, _, language = split.partition("_")
  # English has no rows of its own: it is the source of every other language, each caption once.
  source = "de" if language == "en" else language
  key = "caption_tokenized" if language == "en" else "translation_tokenized"
  paths = {
    row["cocoid"]: f"{row['filepath']}/{row['filename']}"
    for row in folder.rows("dataset_coco.json", "images")
  }
  name, captions = f"coco_mt_{part}.jsonl", {}
  name = name if (folder.root / name).is_file() else f"{name}.bz2"
  for i, line in enumerate(folder.text(name), 1):
    found = _IMAGE_ID.search(line)
    if found is None:
      raise errors.UserError(f"{folder.root / name}:{i}: no image_id of the form NUMBER_NUMBER")
    said = captions.setdefault(int(found[1]), [])
    if f'"{source}"' in line:
      folder.place = f"{folder.root / name}:{i}"
      row = json.loads(line)
      if row["trg_lang"] == source:
        said.append(row[key])
  for image_id, said in captions.items():
    folder.place = f"{folder.root / name}: image_id {image_id}"
    if image_id not in paths:
      raise errors.UserError(f"{folder.place} is not in {folder.root}/dataset_coco.json")
    yield (
      f"{image_id}_{language}",
      {
        "image/id": f"{image_id}_{language}",
        "image": folder.picture(paths[image_id]),
        "captions": said,
        "language": language,
      },
    )


TASK = dataset.Task(
  source="https://google.github.io/crossmodal-3600/ (COCO-35L), https://cs.stanford.edu/people/"
  "karpathy/deepimagesent/caption_datasets.zip and " + coco.SOURCE,
  licence="CC BY 4.0; " + coco.LICENCE,
  layout="""
coco_mt_{train,dev}.jsonl    or .jsonl.bz2
dataset_coco.json
{train2014,val2014}/COCO_{train2014,val2014}_000000000009.jpg
""",
  datasets=(
    dataset.Dataset(
      name="coco35l",
      version="1.0.0",
      features=features,
      sizes={f"{part}_{lang}": n for part, n in _PHOTOS.items() for lang in LANGUAGES},
      records=records,
    ),
  ),
)
