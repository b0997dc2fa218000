"""What the tasks on COCO photos share: file names, categories, and reading its instances."""

from collections.abc import Sequence

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import pictures, raw

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


class Instances:
  """A file of instances: pictures, categories and what was annotated; little of it in memory.

  Attributes:
    images: picture id -> its row.
    categories: category id -> its row.
    annotations: picture id -> rows, in the order of the file.
  """

  def __init__(self, folder: raw.Folder, name: str):
    self._path = folder.root / name
    self.images = folder.table(name, "images", "id")
    categories = folder.table(name, "categories", "id")
    self.categories = {number: categories[number] for number in categories}
    self.annotations = folder.groups(name, "annotations", "image_id")

  def category(self, annotation: dict) -> dict:
    """The row of its category; raises a UserError if the file has none."""
    found = self.categories.get(annotation["category_id"])
    if found is None:
      raise errors.UserError(
        f"{self._path}: annotation {annotation['id']} is of category {annotation['category_id']},"
        " which is none of the file's"
      )
    return found


def unit_box(box: Sequence[float], photo: dict) -> np.ndarray | None:
  """COCO's x, y, width, height in pixels as `pictures.unit_box`; `photo` is its picture's row.

  A negative width or height is taken as the box that runs the other way. None: nothing of it lies
  in the picture.
  """
  x, y, w, h = box
  (x0, x1), (y0, y1) = sorted((x, x + w)), sorted((y, y + h))
  found = pictures.unit_box(x0, y0, x1, y1, photo["width"], photo["height"])
  return found if found[0] < found[2] and found[1] < found[3] else None


def objects(instances: Instances, photo: dict) -> list[dict]:
  """The annotated objects of a picture, those left out of which nothing lies in it.

  Each is {"id", "area" (pixels²), "bbox" as `unit_box`, "label", "is_crowd"}.
  """
  found = []
  for row in instances.annotations[photo["id"]]:
    box = unit_box(row["bbox"], photo)
    if box is not None:
      found.append({
        "id": row["id"], "area": row["area"], "bbox": box,
        "label": instances.category(row)["name"], "is_crowd": bool(row["iscrowd"]),
      })  # fmt: skip
  return found


CATEGORIES = (
  "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
  "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
  "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
  "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
  "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
  "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
  "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
  "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
  "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
  "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
SUPERCATEGORIES = (
  "accessory", "animal", "appliance", "electronic", "food", "furniture", "indoor", "kitchen",
  "outdoor", "person", "sports", "vehicle",
)  # fmt: skip
LICENCES = (  # of the photos, number 1 first
  "Attribution-NonCommercial-ShareAlike License", "Attribution-NonCommercial License",
  "Attribution-NonCommercial-NoDerivs License", "Attribution License",
  "Attribution-ShareAlike License", "Attribution-NoDerivs License",
  "No known copyright restrictions", "United States Government Work",
)  # fmt: skip
