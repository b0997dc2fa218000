"""MLT 2017: words in photos in nine languages, with their boxes."""

from paligemma_jax.datasets import dataset, raw, text_spotting


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo."""
  labels, parts = {
    "train": ("ch8_training_localization_transcription_gt_v2", range(1, 9)),
    "validation": ("ch8_validation_localization_transcription_gt_v2", [""]),
  }[split]
  kind = "training" if split == "train" else "validation"
  photos = [f"ch8_{kind}_images{f'_{n}' if n else ''}" for n in parts]
  yield from text_spotting.of_corners(folder, labels, "gt_*.txt", photos, 9)


TASK = dataset.Task(
  source="https://rrc.cvc.uab.es/?ch=8&com=downloads (after registration)",
  licence="see the page",
  layout="""
ch8_{training,validation}_localization_transcription_gt_v2/gt_img_1.txt
{ch8_training_images_1,…,ch8_training_images_8,ch8_validation_images}/img_1.jpg
""",
  datasets=(
    dataset.Dataset(
      "mlt17", "1.0.0", text_spotting.features, {"train": 7200, "validation": 1800}, records
    ),
  ),
)
