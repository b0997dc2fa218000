"""ICDAR 2015: words that happen to be in photos, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  labels, photos = {
    "train": ("ch4_training_localization_transcription_gt", "ch4_training_images"),
    "test": ("Challenge4_Test_Task4_GT", "ch4_test_images"),
  }[split]
  yield from text_spotting.of_corners(folder, labels, "gt_*.txt", [photos], 8)


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=4&com=downloads (tasks 4.1 and 4.4, after registration)",
  licence="see the page",
  layout="""
ch4_training_localization_transcription_gt/gt_img_1.txt
Challenge4_Test_Task4_GT/gt_img_1.txt
{ch4_training_images,ch4_test_images}/img_1.jpg
""",
  datasets=(
    dataset.Dataset(
      "icdar15", "1.0.0", text_spotting.features, {"train": 1000, "test": 500}, records
    ),
  ),
)
