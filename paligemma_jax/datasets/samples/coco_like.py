"""Miniatures of the sets with boxes, masks and captions on COCO photos."""

import json
import pathlib
import pickle

from paligemma_jax.datasets import coco
from paligemma_jax.datasets.samples import scenes
from paligemma_jax.processing import masks

_WIDTH, _HEIGHT = 96, 48
# The shapes as categories of COCO, since the builders know no others.
_LIKE = {"circle": (37, "sports ball", "sports"), "square": (73, "laptop", "electronic")}
_LIKE["triangle"] = (38, "kite", "sports")


def refcoco_seg(folder: pathlib.Path) -> None:
  """Phrases about shapes, in all five partitions; masks as polygons and as run lengths.

  Of the photos that RefCOCO trains on, RefCOCOg tests on one. One box is annotated backwards.
  """
  instances(folder, "train2017", range(1, 13), "{:012d}.jpg")
  partitions = {  # file -> split of photo 1, 2, …
    "refcoco/refs(unc).p": "train train train train val testA testB train".split(),
    "refcoco/refs(google).p": "train train val test".split(),
    "refcoco+/refs(unc).p": "train val testA testB train train".split(),
    "refcocog/refs(google).p": "train val train".split(),
    "refcocog/refs(umd).p": "train train test val train train train train test val".split(),
  }
  for n, (name, splits) in enumerate(partitions.items()):
    refs = []
    for image_id, split in enumerate(splits, 1):
      for k, shape in enumerate(scenes.scene(image_id - 1).shapes[:2]):
        words = [shape.name, f"the {shape.kind} on the {shape.place}"]
        sentences = [
          {"raw": s.title(), "sent": s, "sent_id": 10000 * n + 100 * image_id + 10 * k + j, "tokens": s.split()}
          for j, s in enumerate(words[: 1 + (image_id + k) % 2])
        ]  # fmt: skip
        refs.append({
          "ref_id": 1000 * n + 10 * image_id + k, "ann_id": 100 * image_id + k,
          "category_id": _LIKE[shape.kind][0], "image_id": image_id, "split": split,
          "file_name": f"COCO_train2014_{image_id:012d}_{k}.jpg",
          "sent_ids": [s["sent_id"] for s in sentences], "sentences": sentences,
        })  # fmt: skip
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(refs, protocol=2))
    whole = (folder / "annotations/instances_train2017.json").read_text()
    (folder / name).with_name("instances.json").write_text(whole)


def instances(folder: pathlib.Path, year: str, ids, file_name: str) -> None:
  """An instances file and its photos; a picture without objects, a crowd, an empty box at the end."""
  images, annotations = [], []
  for i, image_id in enumerate(ids):
    name = file_name.format(image_id)
    scenes.save(folder / year / name, scenes.scene(i).picture(), orientation=8 if i == 1 else 1)
    images.append({
      "license": 1 + i % 8, "file_name": name, "coco_url": f"http://images.cocodataset.org/{year}/{name}",
      "height": _HEIGHT, "width": _WIDTH, "date_captured": "2013-11-14 11:18:45",
      "flickr_url": f"http://farm9.staticflickr.com/{image_id}.jpg", "id": image_id,
    })  # fmt: skip
    for k, shape in enumerate(scenes.scene(i).shapes):
      annotations.append(_annotation(shape, image_id, k, as_rle=k == 2))
  x, y, w, h = annotations[0]["bbox"]
  annotations[0]["bbox"] = [x + w, y + h, -w, -h]  # the other way round
  categories = [
    {"supercategory": above, "id": number, "name": name} for number, name, above in _LIKE.values()
  ]
  whole = {
    "info": {"year": 2017}, "licenses": [{"id": i + 1, "name": n, "url": ""} for i, n in enumerate(coco.LICENCES)],
    "images": images, "annotations": annotations, "categories": categories,
  }  # fmt: skip
  scenes.save_json(folder / f"annotations/instances_{year}.json", whole)


def _annotation(shape, image_id, k, as_rle) -> dict:
  x0, y0, x1, y1 = shape.box
  mask = masks.fill([shape.polygon], _HEIGHT, _WIDTH)
  segmentation = masks.encode_rle(mask) if as_rle else [shape.polygon]
  return {
    "segmentation": segmentation, "area": float(mask.sum()), "iscrowd": 0, "image_id": image_id,
    "bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": _LIKE[shape.kind][0],
    "id": 100 * image_id + k,
  }  # fmt: skip


def coco_detection(folder: pathlib.Path) -> None:
  """Photos with one to three boxes; a crowd, boxes that stick out, that are empty or outside."""
  for year, first in (("train2017", 1), ("val2017", 101)):
    instances(folder, year, range(first, first + 8), "{:012d}.jpg")
    path = folder / f"annotations/instances_{year}.json"
    whole = json.loads(path.read_text())
    odd = [[80, 30, 40, 40], [10, 10, 0, 5], [200, 10, 5, 5], [0, 0, 96, 20]]
    for k, box in enumerate(odd):
      whole["annotations"].append({
        "segmentation": {"size": [_HEIGHT, _WIDTH], "counts": [0, _HEIGHT * _WIDTH]}, "area": 1.0,
        "iscrowd": int(k == 3), "image_id": first, "bbox": box, "category_id": 37, "id": 90 + k + first * 1000,
      })  # fmt: skip
    empty = whole["images"][-1]["id"]
    whole["annotations"] = [a for a in whole["annotations"] if a["image_id"] != empty]
    scenes.save_json(path, whole)
  names = [f"{i:012d}.jpg" for i in range(201, 209)]
  scenes.save_scenes(folder / "test2017", names)
  images = [{"id": 201 + i, "file_name": n, "height": 48, "width": 96} for i, n in enumerate(names)]
  scenes.save_json(folder / "annotations/image_info_test-dev2017.json", {"images": images})


def cococap(folder: pathlib.Path) -> None:
  """Five captions for each of eight photos a split; objects of both years."""
  instances(folder, "train2014", range(9, 17), "COCO_train2014_{:012d}.jpg")
  instances(folder, "val2014", range(42, 66), "COCO_val2014_{:012d}.jpg")
  scenes.save_json(folder / "dataset_coco.json", karpathy(), ascii_only=False)


def karpathy() -> dict:
  """The splits and captions of photos 9 to 16 of 2014's train part and 42 to 65 of its val part."""
  images, sentid = [], 0
  for k, image_id in enumerate([*range(9, 17), *range(42, 66)]):
    year = "train2014" if image_id < 42 else "val2014"
    split = "train" if image_id < 42 else ("restval", "val", "test")[(image_id - 42) // 8]
    scene = scenes.scene(image_id - 9 if image_id < 42 else image_id - 42)
    said = (
      f"{scene.caption} ", f"There is {scene.caption}.", f"A drawing of {scene.caption}",
      f"{len(scene.shapes)} shapes à la Mondrian: {scene.caption}", f"{scene.caption} on white.",
    )  # fmt: skip
    sentences = [
      {"raw": s, "tokens": s.lower().strip(" .").split(), "sentid": sentid + j, "imgid": k}
      for j, s in enumerate(said)
    ]
    sentid += len(said)
    images.append({
      "filepath": year, "filename": coco.file_2014(year, image_id), "cocoid": image_id, "imgid": k,
      "sentids": [s["sentid"] for s in sentences], "split": split, "sentences": sentences,
    })  # fmt: skip
  return {"images": images, "dataset": "coco"}
