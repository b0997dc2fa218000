"""Miniatures of the tasks that PaliGemma 2 added, on photos, pages and tables."""

import pathlib

from PIL import Image, ImageDraw

from paligemma_jax.datasets.samples import documents, scenes

_ROW = ("<tr>", "<td>", "</td>", "<td>", "</td>", "</tr>")
_PARTS = ("Text", "Picture", "Title")


def docci(folder: pathlib.Path) -> None:
  """Descriptions of several sentences."""
  rows = []
  for split in ("train", "test", "qual_dev", "qual_test"):
    for i in range(8):
      name = f"{split}_{i:05d}"
      scenes.save(folder / f"images/{name}.jpg", scenes.scene(i).picture())
      said = " ".join(f"A {s.name} is on the {s.place}." for s in scenes.scene(i).shapes)
      rows.append({
        "split": split, "image_file": f"{name}.jpg", "example_id": name,
        "description": f"A drawing on white paper. {said} It’s flat.",
      })  # fmt: skip
  (folder / "docci_descriptions.jsonlines").write_text(scenes.json_lines(rows), encoding="utf-8")


def vsr(folder: pathlib.Path) -> None:
  """Statements about two shapes, on photos of both parts of COCO."""
  for kind in ("zeroshot", "random"):
    for split in ("train", "dev", "test"):
      rows = []
      for i in range(8):
        name, year = f"{40 + i:012d}.jpg", ("train2017", "val2017")[i % 2]
        scene = scenes.scene(3 * i + 1)  # two shapes
        scenes.save(folder / year / name, scene.picture())
        left, right = scene.shapes[:: -1 if i % 3 == 0 else 1]
        rows.append({
          "image": name, "image_link": f"http://images.cocodataset.org/{year}/{name}",
          "caption": f"The {left.name} is left of the {right.name}.", "label": int(i % 3 != 0),
          "relation": "left of", "annotator_id": 31, "vote_true_validator_id": [2, 6],
          "vote_false_validator_id": [],
        })  # fmt: skip
      path = folder / f"splits/{kind}/{split}.jsonl"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(scenes.json_lines(rows))


def doclaynet(folder: pathlib.Path) -> None:
  """Pages with a title, text and a picture; a box that sticks out, a page without any."""
  for n, split in enumerate(("train", "val", "test")):
    images, annotations = [], []
    for i in range(8):
      name = f"{split}{i:060d}.png"
      page = documents.page(["Title", "some text", "more text"])
      page.paste("red", (90, 20, 150, 60))
      scenes.save(folder / "PNG" / name, page)
      images.append({
        "id": 10 * n + i, "width": page.width, "height": page.height, "file_name": name,
        "collection": "ann_reports_00_04_fancy", "doc_name": "x.pdf", "page_no": i, "precedence": 0,
      })  # fmt: skip
      boxes = [[10, 26, 60, 32], [90, 20, 100, 40], [10, 10, 40, 12]][: 3 if i < 7 else 0]
      annotations += [
        {
          "id": 100 * (10 * n + i) + k, "image_id": 10 * n + i, "category_id": 10 - k, "bbox": box,
          "segmentation": [], "area": box[2] * box[3], "iscrowd": 0, "precedence": 0,
        }
        for k, box in enumerate(boxes)
      ]  # fmt: skip
    categories = [
      {"supercategory": name, "id": 10 - k, "name": name} for k, name in enumerate(_PARTS)
    ]
    whole = {"categories": categories, "images": images, "annotations": annotations}
    scenes.save_json(folder / f"COCO/{split}.json", whole)


def pubtabnet(folder: pathlib.Path) -> None:
  """Tables with an empty cell and one in bold."""
  rows = []
  for split in ("train", "val"):
    for i in range(8):
      image, cells = _table(i)
      scenes.save(folder / split / f"PMC{i}_{split}.png", image)
      rows.append({
        "filename": f"PMC{i}_{split}.png", "split": split, "imgid": len(rows),
        "html": _html(cells, ["<thead>", *_ROW, "</thead>", "<tbody>", *_ROW, "</tbody>"]),
      })  # fmt: skip
  (folder / "PubTabNet_2.0.0.jsonl").write_text(scenes.json_lines(rows), encoding="utf-8")


def fintabnet(folder: pathlib.Path) -> None:
  """The same tables on pages, whose points count from below."""
  for split in ("train", "val", "test"):
    rows = []
    for i in range(8):
      page = Image.new("RGB", (240, 200), "white")  # of 120 x 100 points
      image, cells = _table(i)
      page.paste(image, (20, 40))
      scenes.save(folder / f"png/AAL/{split}/page_{i}.png", page)
      flipped = [
        (text, box and [(20 + box[0]) / 2, 100 - (40 + box[3]) / 2, (20 + box[2]) / 2, 100 - (40 + box[1]) / 2])
        for text, box in cells
      ]  # fmt: skip
      rows.append({
        "filename": f"AAL/{split}/page_{i}.pdf", "split": split, "table_id": 100 + i,
        "bbox": [10, 100 - (40 + image.height) / 2, (20 + image.width) / 2, 80],
        "html": _html(flipped, ["<table>", *_ROW, *_ROW, "</table>"]),
      })  # fmt: skip
    path = folder / f"FinTabNet_1.0.0_cell_{split}.jsonl"
    path.write_text(scenes.json_lines(rows), encoding="utf-8")


def _table(i):
  """A picture of 120 x 60 pixels and its cells: (tokens, x0 y0 x1 y1 or None)."""
  image = Image.new("RGB", (120, 60), "white")
  pen = ImageDraw.Draw(image)
  cells = [
    ("année", [4, 4, 60, 16]),
    ("", None),
    ("n<total", [4, 24, 40, 36]),
    (str(10 * i), [64, 24, 90, 36]),
  ]
  for text, box in cells:
    if box:
      pen.text(box[:2], text, fill="black")
  return image, cells


def _html(cells, structure) -> dict:
  found = [
    {"tokens": ["<b>", *text, "</b>"] if k == 0 else [*text], **({"bbox": box} if box else {})}
    for k, (text, box) in enumerate(cells)
  ]
  return {"structure": {"tokens": structure}, "cells": found}
