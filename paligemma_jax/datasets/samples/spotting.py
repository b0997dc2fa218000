"""Miniatures of the sets of words in photos, of music, molecules, X-rays and things in views."""

import gzip
import json
import pathlib

from PIL import Image, ImageDraw

from paligemma_jax.datasets.samples import documents, scenes

_CORNERS = "10,15,110,15,110,45,10,45"  # of the word on a sign, pixels
_POINTS = [[10, 15], [110, 15], [110, 45], [10, 45]]


def icdar15(folder: pathlib.Path) -> None:
  """Signs with a word, commas in it, and an illegible one."""
  for labels, photos in (
    ("ch4_training_localization_transcription_gt", "ch4_training_images"),
    ("Challenge4_Test_Task4_GT", "ch4_test_images"),
  ):
    for i, word in enumerate(documents.WORDS):
      scenes.save(folder / f"{photos}/img_{i}.jpg", documents.sign(i))
      text = f"\ufeff{_CORNERS},{word}, ok\r\n1,1,9,1,9,9,1,9,###\r\n"
      _write(folder / f"{labels}/gt_img_{i}.txt", text)


def total_text(folder: pathlib.Path) -> None:
  """Signs with a word in a polygon, its numbers wrapped, and an illegible one."""
  for kind in ("Train", "Test"):
    for i, word in enumerate(documents.WORDS):
      scenes.save(folder / f"Images/{kind}/img{i}.jpg", documents.sign(i))
      lines = [
        "x: [[ 10  60 110 110\n   10]], y: [[15 15 15 45 45]], ornt: [u'c'],"
        f" transcriptions: [u'{word}']",
        "x: [[1 9 9 1]], y: [[1 1 9 9]], ornt: [u'#'], transcriptions: [u'#']",
      ]
      name = f"Groundtruth/Polygon/{kind}/poly_gt_img{i}.txt"
      _write(folder / name, "\n".join(lines) + "\n")


def mlt17(folder: pathlib.Path) -> None:
  """Signs in several folders, with a word and an illegible one."""
  for i, word in enumerate(documents.WORDS):
    for kind, part in (("training", f"_{1 + i % 2}"), ("validation", "")):
      scenes.save(folder / f"ch8_{kind}_images{part}/img_{i}.jpg", documents.sign(i))
      name = f"ch8_{kind}_localization_transcription_gt_v2/gt_img_{i}.txt"
      _write(folder / name, f"{_CORNERS},Latin,{word}\n1,1,9,1,9,9,1,9,None,###\n")


def mlt19(folder: pathlib.Path) -> None:
  """Signs in two folders, with a word and an illegible one."""
  for i, word in enumerate(documents.WORDS):
    scenes.save(folder / f"ImagesPart{1 + i % 2}/tr_img_{i:05d}.jpg", documents.sign(i))
    text = f"{_CORNERS},Latin,{word}\n1,1,9,1,9,9,1,9,None,###\n"
    _write(folder / f"train_gt_t13/tr_img_{i:05d}.txt", text)


def hiertext(folder: pathlib.Path) -> None:
  """Signs as paragraphs of one line, with a word and an illegible one."""
  for split in ("train", "validation"):
    rows = []
    for i, word in enumerate(documents.WORDS):
      name = f"{split}{i:04d}"
      scenes.save(folder / split / f"{name}.jpg", documents.sign(i))
      words = [
        {"text": word, "vertices": _POINTS, "legible": True, "handwritten": False},
        {"text": "", "vertices": [[1, 1], [9, 9]], "legible": False, "handwritten": False},
      ]
      lines = [{"text": word, "vertices": _POINTS, "words": words}]
      paragraphs = [{"vertices": _POINTS, "legible": True, "lines": lines}]
      rows.append({"image_id": name, "paragraphs": paragraphs})
    _write(folder / f"{split}.jsonl", json.dumps({"info": {}, "annotations": rows}))


def textocr(folder: pathlib.Path) -> None:
  """Signs with a word and an illegible one."""
  for split in ("train", "val"):
    images, anns, both = {}, {}, {}
    for i, word in enumerate(documents.WORDS):
      name = f"{split}{i:04d}"
      scenes.save(folder / f"train_images/{name}.jpg", documents.sign(i))
      images[name] = {"id": name, "width": 120, "height": 60, "file_name": f"train/{name}.jpg"}
      both[name] = [f"{name}_1", f"{name}_2"]
      points = [v for p in _POINTS for v in p]
      for number, said in zip(both[name], (word, ".")):
        row = {"id": number, "image_id": name, "bbox": [10, 15, 100, 30], "utf8_string": said}
        anns[number] = {**row, "points": points}
    whole = {"info": {}, "imgs": images, "anns": anns, "imgToAnns": both, "set": split}
    scenes.save_json(folder / f"TextOCR_0.1_{split}.json", whole)


def intelocr(folder: pathlib.Path) -> None:
  """Signs with a word and an illegible one."""
  for split, part in (("train", "train_1"), ("validation", "validation")):
    images, annotations = [], []
    for i, word in enumerate(documents.WORDS):
      name = f"{split}/{split}{i:04d}.jpg"
      scenes.save(folder / name, documents.sign(i))
      images.append({"id": i, "file_name": name})
      for k in range(2):
        about = {"transcription": word, "legible": k == 0, "language": "english"}
        row = {"image_id": i, "bbox": [10, 15, 100, 30], "category_id": 1, "id": 2 * i + k}
        annotations.append({**row, "attributes": about})
    whole = {"images": images, "annotations": annotations}
    scenes.save_json(folder / f"text_spotting_openimages_v5_{part}.json", whole)


def music_score(folder: pathlib.Path) -> None:
  """Staves with one to three notes and their **kern; the distorted ones are turned a little."""
  for split in ("train", "val", "test"):
    paths = []
    for i in range(8):
      image = Image.new("RGB", (120, 60), "white")
      pen = ImageDraw.Draw(image)
      for k in range(5):
        pen.line((5, 18 + 6 * k, 115, 18 + 6 * k), fill="black")
      notes = [(i + 2 * k) % 7 for k in range(1 + i % 3)]
      for k, note in enumerate(notes):
        pen.ellipse((30 + 25 * k, 39 - 3 * note, 37 + 25 * k, 45 - 3 * note), fill="black")
      staff = f"grandstaff/mozart/{split}/maj2_m-{i}-{i + 5}"
      scenes.save(folder / f"{staff}.jpg", image)
      scenes.save(folder / f"{staff}_distorted.jpg", image.rotate(3, fillcolor="white"))
      kern = ["**kern", "*clefG2", *[f"4{'efgabcd'[n]}" for n in notes], "*-"]
      _write(folder / f"{staff}.krn", "\n".join(kern) + "\n")
      paths.append(f"{staff}.krn\n")
    _write(folder / f"partitions_grandstaff/{split}.txt", "".join(paths))


def molecule(folder: pathlib.Path) -> None:
  """Zigzags for chains of carbon."""
  for split in ("train", "test"):
    rows = [("image_id", "file_path", "SMILES")]
    for i in range(8):
      image = Image.new("RGB", (120, 60), "white")
      points = [(10 + 12 * k, 20 + 15 * (k % 2)) for k in range(2 + i)]
      ImageDraw.Draw(image).line(points, fill="black", width=2)
      scenes.save(folder / f"{split}/{i}.png", image)
      rows.append((i, f"{split}/{i}.png", "C" * (2 + i)))
    (folder / f"{split}.csv").write_text(scenes.csv_text(rows))


def mimic_cxr(folder: pathlib.Path) -> None:
  """Discs for hearts; two X-rays of one study, reports without findings, with both in one, with neither."""
  rows = [("dicom_id", "study_id", "subject_id", "split")]
  for n, split in enumerate(("train", "validate", "test")):
    for i in range(8):
      subject, study = 10000032 + 8 * n + i, 50414267 + 8 * n + i
      place = folder / f"files/p10/p{subject}/s{study}"
      for view in range(1 + (i == 1)):
        name = f"02aa{n}{i}{view}"
        image = Image.new("L", (60, 60), "black")
        ImageDraw.Draw(image).ellipse((10, 10, 30 + 3 * i, 30 + 3 * i), fill="white")
        scenes.save(place / f"{name}.jpg", image)
        rows.append((name, study, subject, split))
      findings = f" FINDINGS:  The heart is {20 + 3 * i} wide.\n  No pneumothorax.\n\n"
      impression = " IMPRESSION:  No acute process.\n"
      both = " FINDINGS AND IMPRESSION:  Clear lungs.\n"
      kept = {3: impression, 4: both, 5: ""}.get(i, findings + impression)
      _write(place.with_suffix(".txt"), f" EXAM:  CHEST\n\n INDICATION:  ___F with cough\n\n{kept}")
  (folder / "mimic-cxr-2.0.0-split.csv").write_text(scenes.csv_text(rows))


def objaverse(folder: pathlib.Path) -> None:
  """Shapes seen from eight sides, that is at eight places."""
  things = {}
  for i in range(40):
    shape, uid = scenes.scene(i).shapes[0], f"{i:032x}"
    if i != 3:  # could not be rendered
      for view in range(8):
        image = Image.new("RGB", (64, 64), "white")
        points = [v - 2 * view for v in shape.polygon]
        ImageDraw.Draw(image).polygon(list(zip(points[::2], points[1::2])), fill=shape.color)
        scenes.save(folder / f"renders/{uid}/{view}.png", image)
    things.setdefault(f"{shape.color}_{shape.kind}", []).append(uid)
  packed = gzip.compress(json.dumps(things).encode(), mtime=0)
  (folder / "lvis-annotations.json.gz").write_bytes(packed)


def _write(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding="utf-8", newline="")
