#!/usr/bin/env bash
# datumaro 1.13.12 writes the mask of a single object to COCO as run lengths with "iscrowd": 1, though nothing said that
# it is a crowd. In COCO's own files iscrowd 1 means "a group, not to be told apart"; pycocotools leaves such
# regions out of what is to be found, and most converters and data loaders drop them: all objects are gone.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q datumaro==1.13.12 pycocotools==2.0.11 2>/dev/null
cd "$tmp"
venv/bin/python - 2>/dev/null <<'PY'
import json
import pathlib

import numpy as np
from datumaro.components.annotation import Mask, Polygon
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

one, other = np.zeros((48, 64), bool), np.zeros((48, 64), bool)
one[5:20, 5:20] = other[25:40, 30:50] = True
item = DatasetItem(
  id="a",
  subset="train",
  media=Image.from_numpy(data=np.zeros((48, 64, 3), np.uint8)),
  annotations=[
    Mask(one, label=0, id=1, group=1),
    Mask(other, label=0, id=2, group=2),
    Polygon([50, 5, 60, 5, 60, 15], label=0, id=3, group=3),
  ],
)
Dataset.from_iterable([item], categories=["cat"]).export("out", "coco_instances", save_media=True)
(path,) = pathlib.Path("out").rglob("instances_*.json")
found = json.loads(path.read_text())["annotations"]
for a in found:
  print(a["id"], type(a["segmentation"]).__name__, "iscrowd", a["iscrowd"], "area", a["area"])
assert sorted((type(a["segmentation"]).__name__, a["iscrowd"]) for a in found) == [
  ("dict", 1), ("dict", 1), ("list", 0)
]

from pycocotools.coco import COCO

single = COCO(str(path)).getAnnIds(iscrowd=0)
print("objects that pycocotools takes for single ones:", len(single), "of", len(found))
assert len(single) == 1
PY
