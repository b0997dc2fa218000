"""TextCaps: captions of Open Images photos that mention their writing, five each."""

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw, textvqa


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image_filepath": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "texts": f.Sequence(f.Text()),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo, with all its captions; without any in the test split."""
  for image_id, rows in folder.grouped(f"TextCaps_0.1_{split}.json", "data", "image_id"):
    names = {row["image_name"] for row in rows}
    if len(names) > 1:
      raise errors.UserError(f"{folder.place} has several pictures: {', '.join(sorted(names))}")
    file = f"{textvqa.FOLDERS[split]}/{names.pop()}.jpg"  # as they are: not turned as in TextVQA
    captions = [row.get("caption_str") for row in rows]
    yield (
      image_id,
      {
        "image/id": image_id,
        "image_filepath": file,
        "image": folder.picture(file),
        "texts": [caption for caption in captions if caption],
      },
    )


TASK = dataset.Task(
  source="https://textvqa.org/textcaps",
  licence="CC BY 4.0; photos of Open Images CC BY 2.0",
  layout="""
TextCaps_0.1_{train,val,test}.json
{train_images,test_images}/0a0bc91825468c45.jpg    train and val share train_images
""",
  datasets=(
    dataset.Dataset(
      name="text_caps",
      version="1.0.0",
      features=features,
      sizes={"train": 21953, "val": 3166, "test": 3289},
      records=records,
      lenient=("test",),
    ),
  ),
)
