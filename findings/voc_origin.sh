#!/usr/bin/env bash
# Two tools that write Pascal VOC put the same box in different places, and no key of the file tells which.
#
# A box of the first ten pixels of a picture, 0 to 10, end-exclusive:
#   supervision 0.31.2 writes xmin 1, xmax 10 (pixels count from 1, the last one included, as in VOC),
#   datumaro 1.13.12 writes xmin 0.0, xmax 10.0 (corners count from 0, the end is exclusive).
# supervision reads the file of datumaro as -1 to 10: outside of the picture, without a word.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for tool in supervision==0.31.2 datumaro==1.13.12; do
  python3 -m venv "$tmp/${tool%%=*}"
  "$tmp/${tool%%=*}/bin/pip" install -q "$tool"
done
cd "$tmp"
supervision/bin/python -W ignore - <<'PY'
import numpy as np
import supervision as sv
from PIL import Image

Image.new("RGB", (64, 48)).save("a.png")
box = sv.Detections(xyxy=np.array([[0.0, 0.0, 10.0, 10.0]]), class_id=np.array([0]))
sv.DetectionDataset(["cat"], ["a.png"], {"a.png": box}).as_pascal_voc(
  annotations_directory_path="of_supervision"
)
PY
datumaro/bin/python - <<'PY' >log 2>&1 || { cat log; exit 1; }
import numpy as np
from datumaro.components.annotation import Bbox
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

item = DatasetItem(
  id="a",
  subset="train",
  media=Image.from_numpy(data=np.zeros((48, 64, 3), np.uint8)),
  annotations=[Bbox(0, 0, 10, 10, label=0)],
)
Dataset.from_iterable([item], categories=["cat"]).export("of_datumaro", "voc", save_media=True)
PY
supervision/bin/python -W ignore - <<'PY'
import pathlib
import xml.etree.ElementTree as ET

import supervision as sv


def corners(folder):
  (path,) = pathlib.Path(folder).rglob("a.xml")
  box = ET.parse(path).find(".//bndbox")
  return path.parent, [box.find(k).text for k in ("xmin", "ymin", "xmax", "ymax")]


_, ours = corners("of_supervision")
folder, theirs = corners("of_datumaro")
print("supervision writes", *ours)
print("datumaro    writes", *theirs)
(_, _, read), *_ = sv.DetectionDataset.from_pascal_voc(".", str(folder))
print("supervision reads datumaro's file as", *read.xyxy[0].tolist())
assert ours == ["1", "1", "10", "10"] and theirs == ["0.0", "0.0", "10.0", "10.0"]
assert read.xyxy[0].tolist() == [-1, -1, 10, 10]
PY
