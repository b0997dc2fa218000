"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that refer to one object of a COCO photo, with its mask.

`refcocox_combined` joins RefCOCOg (umd), RefCOCO and RefCOCO+ (unc) and trains on no photo that any
of them evaluates on. Every split comes as well as SPLIT_flat, one record for each phrase.
"""

import functools

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import coco, dataset, pictures, raw

_INSTANCES = "annotations/instances_train2017.json"
_FILES = {  # data set -> files of references; their splits as in the files, but for validation
  "refcoco_unc": ("refcoco/refs(unc).p",),
  "refcoco_google": ("refcoco/refs(google).p",),
  "refcocoplus_unc": ("refcoco+/refs(unc).p",),
  "refcocog_google": ("refcocog/refs(google).p",),
  "refcocog_umd": ("refcocog/refs(umd).p",),
  "refcocox_combined": ("refcocog/refs(umd).p", "refcoco/refs(unc).p", "refcoco+/refs(unc).p"),
}
_SIZES = {  # split -> photos, phrases
  "refcoco_unc": {
    "train": (16994, 120624), "validation": (1500, 10834), "testA": (750, 5657),
    "testB": (750, 5095),
  },
  "refcoco_google": {"train": (None, None), "validation": (None, None), "test": (None, None)},
  "refcocoplus_unc": {
    "train": (16992, 120191), "validation": (1500, 10758), "testA": (750, 5726),
    "testB": (750, 4889),
  },
  "refcocog_google": {"train": (None, None), "validation": (None, None)},
  "refcocog_umd": {"train": (21899, 80512), "validation": (1300, 4896), "test": (2600, 9602)},
  "refcocox_combined": {"train": (24407, None), "validation": (2738, None), "test": (None, None)},
}  # fmt: skip
_OPTIONAL = ("refcoco_google", "refcocog_google")  # no transfer uses them


def features(f):
  """Those of a record, of the module tfds.features."""
  objects = {
    "id": np.int64,
    "area": np.float32,
    "bbox": f.BBoxFeature(),
    "mask": f.Image(encoding_format="png"),  # of the whole photo
    "category": f.ClassLabel(names=coco.CATEGORIES),
    "supercategory": f.ClassLabel(names=coco.SUPERCATEGORIES),
    "iscrowd": np.bool_,
    "refs": f.Sequence({"id": np.int32, "sentence": f.Text()}),
  }
  return {
    "id": np.int32,
    "image": f.Image(encoding_format="jpeg"),
    "height": np.int32,
    "width": np.int32,
    "license": f.ClassLabel(names=coco.LICENCES),
    "file_name": f.Text(),
    "flickr_url": f.Text(),
    "coco_url": f.Text(),
    "objects": f.Sequence(objects),
  }


def records(name: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each photo with references, or in a flat split for each phrase.

  Args:
    name: of the data set, a key of `_FILES`.
    folder: the official files.
    split: "train", "testA_flat", …
  """
  base = split.removesuffix("_flat")
  images, phrases = _references(name, folder, base)
  instances = coco.Instances(folder, _INSTANCES)
  for image_id in instances.images:
    if image_id not in images:
      continue
    folder.place = f"{images.pop(image_id)}: image_id {image_id}"
    found = instances.images[image_id]
    photo = {
      "id": image_id,
      "image": folder.picture(f"train2017/{found['file_name']}"),
      "height": found["height"],
      "width": found["width"],
      "license": coco.LICENCES[found["license"] - 1],
      "file_name": found["file_name"],
      "flickr_url": found["flickr_url"],
      "coco_url": found["coco_url"],
    }
    objects = []
    for row in instances.annotations[image_id]:
      refs = phrases.pop(row["id"], [])
      if not refs:
        continue
      whole = _object(instances, row, found)
      objects.append({**whole, "refs": refs})
      if split != base:
        for i, ref in enumerate(refs):
          yield f"{image_id}_{row['id']}_{i}", {**photo, "objects": [{**whole, "refs": [ref]}]}
    if split == base:
      yield image_id, {**photo, "objects": objects}
  for missing, what in ((images, "image_id"), (phrases, "ann_id")):
    if missing:
      raise errors.UserError(
        f"{folder.root / _FILES[name][0]}: {what} {min(missing)} is not in"
        f" {folder.root / _INSTANCES}; the two files do not belong together"
      )


def _references(name, folder, split):
  """Photo -> file that refers to it; annotation -> its phrases; of one split."""
  rows = [(folder.root / file, row) for file in _FILES[name] for row in folder.pickled(file)]
  wanted, excluded = {"val" if split == "validation" else split}, set()
  if name == "refcocox_combined":
    if split == "test":
      wanted = {"test", "testA", "testB"}
    elif split == "train":
      excluded = {row["image_id"] for _, row in rows if row["split"] != "train"}
  images, phrases = {}, {}
  for path, row in rows:
    if row["split"] in wanted and row["image_id"] not in excluded:
      images[row["image_id"]] = path
      said = [{"id": s["sent_id"], "sentence": s["sent"]} for s in row["sentences"]]
      phrases.setdefault(row["ann_id"], []).extend(said)
  return images, phrases


def _object(instances, row, photo) -> dict:
  category, box = instances.category(row), coco.unit_box(row["bbox"], photo)
  if box is None:
    raise errors.UserError(f"annotation {row['id']}: the box {row['bbox']} is empty or outside")
  return {
    "id": row["id"],
    "area": row["area"],
    "bbox": box,
    "mask": pictures.Mask((photo["height"], photo["width"]), row["segmentation"]),
    "category": category["name"],
    "supercategory": category["supercategory"],
    "iscrowd": bool(row["iscrowd"]),
  }


def _sizes(name) -> dict[str, int | None]:
  found = {}
  for split, (photos, phrases) in _SIZES[name].items():
    found |= {split: photos, f"{split}_flat": phrases}
  return found


TASK = dataset.Task(
  source="https://github.com/lichengunc/refer and " + coco.SOURCE,
  licence="Apache-2.0; " + coco.LICENCE,
  layout="""
refcoco/refs({unc,google}).p
refcoco+/refs(unc).p
refcocog/refs({umd,google}).p
annotations/instances_train2017.json
train2017/000000000009.jpg
""",
  datasets=tuple(
    dataset.Dataset(
      name=f"ref_coco_bv/{name}",
      version="1.4.0",
      features=features,
      sizes=_sizes(name),
      records=functools.partial(records, name),
      is_optional=name in _OPTIONAL,
    )
    for name in _FILES
  ),
)
