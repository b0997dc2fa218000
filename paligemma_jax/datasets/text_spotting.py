"""Words in photos with their boxes: ICDAR 2015, Total-Text, MLT 2017 and 2019, HierText, TextOCR, Intel OCR.

A box is the tightest one around a word's polygon. Words marked as illegible are left out.
"""

import ast
import re

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, raw

_ILLEGIBLE = ("", "###", "#", ".")
_TOTAL_TEXT = re.compile(r"x: \[\[(.*?)\]\], y: \[\[(.*?)\]\], .*?transcriptions: \[(.*?)\]\s*$")


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "words": f.Sequence({"bbox": f.BBoxFeature(), "text": f.Text()}),
  }


def icdar15(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of ICDAR 2015, challenge 4."""
  labels, photos = {
    "train": ("ch4_training_localization_transcription_gt", "ch4_training_images"),
    "test": ("Challenge4_Test_Task4_GT", "ch4_test_images"),
  }[split]
  yield from _corners(folder, f"icdar15/{labels}", "gt_*.txt", [f"icdar15/{photos}"], 8)


def mlt17(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of MLT 2017; lines name the script before the word."""
  labels, parts = {
    "train": ("ch8_training_localization_transcription_gt_v2", range(1, 9)),
    "validation": ("ch8_validation_localization_transcription_gt_v2", [""]),
  }[split]
  kind = "training" if split == "train" else "validation"
  photos = [f"mlt17/ch8_{kind}_images{f'_{n}' if n else ''}" for n in parts]
  yield from _corners(folder, f"mlt17/{labels}", "gt_*.txt", photos, 9)


def mlt19(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of MLT 2019; lines name the script before the word."""
  photos = ["mlt19/ImagesPart1", "mlt19/ImagesPart2"]
  yield from _corners(folder, "mlt19/train_gt_t13", "tr_*.txt", photos, 9)


def total_text(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of Total-Text, whose words are polygons."""
  kind = split.title()
  for name in _listed(folder, f"total_text/Groundtruth/Polygon/{kind}", "poly_gt_*.txt"):
    found = []
    for i, line in enumerate(folder.text(name), 1):
      folder.place = f"{folder.root / name}:{i}"
      match = _TOTAL_TEXT.match(line)
      if match is None:
        raise errors.UserError(f"{folder.place}: wanted x: [[…]], y: [[…]], …, transcriptions: […]")
      x, y = ([int(v) for v in numbers.split()] for numbers in match.groups()[:2])
      said = ast.literal_eval(match[3].lstrip("u")) if match[3] else ""
      found.append((said, x, y))
    stem = name.rpartition("poly_gt_")[2].removesuffix(".txt")
    yield _record(folder, stem, [f"total_text/Images/{kind}"], found)


def hiertext(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of HierText."""
  name = f"hiertext/{split}.jsonl"  # one JSON object, despite its name
  for row in folder.rows(name, "annotations"):
    words = [w for p in row["paragraphs"] for line in p["lines"] for w in line["words"]]
    found = [(w["text"], *zip(*w["vertices"])) for w in words if w.get("legible", True)]
    yield _record(folder, row["image_id"], [f"hiertext/{split}"], found)


def textocr(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of TextOCR."""
  whole = folder.json(f"textocr/TextOCR_0.1_{'val' if split == 'validation' else split}.json")
  place = folder.place
  for image_id, numbers in whole["imgToAnns"].items():
    folder.place = f"{place}: image {image_id}"
    rows = [whole["anns"][str(n)] for n in numbers]
    found = [(r["utf8_string"], r["points"][::2], r["points"][1::2]) for r in rows]
    yield _record(folder, image_id, ["textocr/train_images"], found)


def intelocr(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo of Intel's annotations of Open Images v5."""
  pattern = "text_spotting_openimages_v5_" + ("validation" if split == "validation" else "train_*")
  for name in _listed(folder, "intelocr", f"{pattern}.json"):
    annotations = folder.groups(name, "annotations", "image_id")
    for row in folder.rows(name, "images"):
      found = []
      for word in annotations[row["id"]]:
        x, y, w, h = word["bbox"]
        about = word["attributes"]
        if about.get("legible", True):
          found.append((about["transcription"], (x, x + w), (y, y + h)))
      photo, _, file = row["file_name"].rpartition("/")
      yield _record(folder, file.rpartition(".")[0], [f"intelocr/{photo}".rstrip("/")], found)


def _listed(folder, place, pattern) -> list[str]:
  found = sorted(p.name for p in (folder.root / place).glob(pattern))
  if not found:
    raise raw.MissingFile(f"{folder.root / place}/{pattern}: no such file")
  return [f"{place}/{name}" for name in found]


def _corners(folder, place, pattern, photos, count) -> dataset.Records:
  """Files of lines "x1,y1,…,x4,y4,word" (count 8) or "…,script,word" (9), one for each photo."""
  for name in _listed(folder, place, pattern):
    found = []
    for i, line in enumerate(folder.text(name), 1):
      if not line.strip():
        continue
      folder.place = f"{folder.root / name}:{i}"
      *parts, word = line.split(",", count)
      numbers = [float(v) for v in parts[:8]]
      found.append((word, numbers[::2], numbers[1::2]))
    folder.place = str(folder.root / name)
    stem = name.rpartition("/")[2].removesuffix(".txt").removeprefix("gt_")
    yield _record(folder, stem, photos, found)


def _record(folder, stem, photos, words):
  """A photo, found by its name without ending in one of the folders, with its words."""
  names = [f"{p}/{stem}{e}" for p in photos for e in (".jpg", ".JPG", ".png", ".jpeg", ".gif")]
  name = next((n for n in names if (folder.root / n).is_file()), names[0])
  picture = folder.picture(name)
  picture.probe()
  with Image.open(picture.path) as found:
    width, height = found.size
  kept = []
  for said, x, y in words:
    box = np.array((min(y) / height, min(x) / width, max(y) / height, max(x) / width), np.float32)
    box = np.clip(box, 0, 1)
    if said.strip() not in _ILLEGIBLE and box[0] < box[2] and box[1] < box[3]:
      kept.append({"bbox": box, "text": said.strip()})
  return stem, {"image/id": stem, "image": picture, "words": kept}


_SETS = (
  ("icdar15", {"train": 1000, "test": 500}, icdar15),
  ("total_text", {"train": 1255, "test": 300}, total_text),
  ("mlt17", {"train": 7200, "validation": 1800}, mlt17),
  ("mlt19", {"train": 10000}, mlt19),
  ("hiertext", {"train": 8281, "validation": 1724}, hiertext),
  ("textocr", {"train": 21778, "validation": 3124}, textocr),
  ("intelocr", {"train": 191059, "validation": 16731}, intelocr),
)
TASK = dataset.Task(
  source="https://rrc.cvc.uab.es (ICDAR 2015 and MLT, after registration),"
  " https://github.com/cs-chan/Total-Text-Dataset, https://github.com/google-research-datasets/"
  "hiertext, https://textvqa.org/textocr, https://storage.openvinotoolkit.org/repositories/"
  "openvino_training_extensions/datasets/open_images_v5_text/",
  licence="HierText CC BY-SA 4.0; TextOCR CC BY 4.0; for the others see their pages",
  layout="""
icdar15/{ch4_training_localization_transcription_gt,Challenge4_Test_Task4_GT}/gt_img_1.txt
icdar15/{ch4_training_images,ch4_test_images}/img_1.jpg
total_text/Groundtruth/Polygon/{Train,Test}/poly_gt_img1.txt
total_text/Images/{Train,Test}/img1.jpg
mlt17/ch8_{training,validation}_localization_transcription_gt_v2/gt_img_1.txt
mlt17/{ch8_training_images_1,…,ch8_training_images_8,ch8_validation_images}/img_1.jpg
mlt19/train_gt_t13/tr_img_00001.txt
mlt19/{ImagesPart1,ImagesPart2}/tr_img_00001.jpg
hiertext/{train,validation}.jsonl
hiertext/{train,validation}/0006289e4f292bcd.jpg
textocr/TextOCR_0.1_{train,val}.json
textocr/train_images/0006289e4f292bcd.jpg
intelocr/text_spotting_openimages_v5_{train_1,…,validation}.json
intelocr/…/0006289e4f292bcd.jpg    as the files name them
""",
  datasets=tuple(
    dataset.Dataset(name, "1.0.0", features, sizes, records, is_partial=True)
    for name, sizes, records in _SETS
  ),
)
