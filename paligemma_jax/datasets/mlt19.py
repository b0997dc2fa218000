"""MLT 2019: words in photos in ten languages, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  photos = ["ImagesPart1", "ImagesPart2"]
  yield from text_spotting.of_corners(folder, "train_gt_t13", "tr_*.txt", photos, 9)


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=15&com=downloads (after registration)",
  licence="see the page",
  layout="""
train_gt_t13/tr_img_00001.txt
{ImagesPart1,ImagesPart2}/tr_img_00001.jpg
""",
  datasets=(dataset.Dataset("mlt19", "1.0.0", text_spotting.features, {"train": 10000}, records),),
)
