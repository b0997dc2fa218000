"""xGQA: GQA's balanced test questions in eight languages, answered in English."""

from paligemma_jax.datasets import dataset, raw

LANGUAGES = ("bn", "de", "en", "id", "ko", "pt", "ru", "zh")
_SHOTS = (1, 5, 10, 20, 25, 48)  # photos to train on
_SIZES = {f"test_zs_{lang}": 12578 for lang in LANGUAGES}
for _lang in LANGUAGES:
  _SIZES |= dict.fromkeys([f"test_fs_{_lang}", f"dev_fs_{_lang}"])
  _SIZES |= dict.fromkeys(f"train_fs{n}_{_lang}" for n in _SHOTS)


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "example_id": f.Text(),
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "question": f.Text(),
    "answer": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each question. (The reference reads the test file for dev_fs, by mistake.)"""
  part, kind, language = split.split("_")
  if kind == "zs":
    name = f"zero_shot/testdev_balanced_questions_{language}.json"
  else:
    part = f"{part}_{kind[2:]}" if part == "train" else part
    name = f"few_shot/{language}/{part}.json"
  for question_id, row in folder.items(name):
    key = f"{question_id}_{language}"
    yield (
      key,
      {
        "example_id": key,
        "image/id": row["imageId"],
        "image": folder.picture(f"images/{row['imageId']}.jpg"),
        "question": row["question"],
        "answer": row["answer"],
      },
    )


TASK = dataset.Task(
  source="https://github.com/e-bug/iglue (datasets/xGQA/annotations) and"
  " https://cs.stanford.edu/people/dorarad/gqa/download.html (images)",
  licence="CC BY 4.0; photos of Visual Genome CC BY 4.0",
  layout="""
zero_shot/testdev_balanced_questions_{bn,de,en,id,ko,pt,ru,zh}.json    those that are there
few_shot/{bn,…}/{test,dev,train_1,train_5,train_10,train_20,train_25,train_48}.json
images/2354786.jpg
""",
  datasets=(dataset.Dataset("xgqa", "1.0.0", features, _SIZES, records, is_partial=True),),
)
