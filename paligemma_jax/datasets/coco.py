"""What the tasks on COCO photos share: file names, categories, and reading its instances."""

from paligemma_jax import errors
from paligemma_jax.datasets import raw

SOURCE = "https://cocodataset.org/#download"
LICENCE = "photos under the Creative Commons terms of their owners on Flickr"


def file_2014(folder: str, image_id: int) -> str:
  """The name of a picture of 2014 or 2015: "COCO_val2014_000000000042.jpg"."""
  return f"COCO_{folder}_{image_id:012d}.jpg"


def check_same_image(folder: raw.Folder, question: dict, annotation: dict) -> None:
  """Raises a UserError when the two files do not speak of the same picture."""
  if question["image_id"] != annotation["image_id"]:
    raise errors.UserError(
      f"{folder.place}: question {question['question_id']} is about picture"
      f" {question['image_id']}, its annotation about {annotation['image_id']};"
      " the two files do not belong together"
    )
