import numpy as np
import pytest
from PIL import Image

from paligemma_jax.metrics import masks
from tests.metrics import golden


def _object(label, x0, y0, x1, y1):
  mask = np.zeros((10, 10), bool)
  mask[y0:y1, x0:x1] = True
  return {"label": label, "box": [x0, y0, x1, y1], "mask": mask}


FULL, HALF, OTHER = _object("a", 0, 0, 10, 10), _object("a", 0, 0, 10, 5), _object("b", 0, 0, 4, 4)
INVALID = {"label": "a", "box": [3, 3, 3, 3], "mask": None}


@pytest.mark.parametrize(
  "truths, found, iou, invalid",
  [
    ([FULL], [FULL], 1, 0),
    ([FULL], [HALF], 0.5, 0),
    ([FULL], [{**HALF, "label": ""}], 0.5, 0),  # the answer need not repeat the name
    ([FULL], [HALF, FULL], 0.5, 0),  # one truth: the first object counts
    ([FULL, OTHER], [OTHER, HALF], 0.75, 0),
    ([FULL], [], 0, 1),
    ([FULL], [INVALID], 0, 1),
    ([FULL, OTHER], [INVALID, OTHER], 0.5, 0),
  ],
)
def test_one_row(truths, found, iou, invalid):
  got = masks.score([{"objects": truths, "pred_objects": found}])
  assert got["mask_iou"] == pytest.approx(iou)
  assert got["invalid"] == invalid


def test_rows_without_objects_do_not_count():
  empty = {"objects": [], "pred_objects": [FULL]}
  assert masks.score([empty, {"objects": [FULL], "pred_objects": [FULL]}])["mask_iou"] == 1


def _ellipse(cy, cx, ry, rx, height, width, dtype):
  y, x = np.mgrid[:height, :width].astype(dtype)
  return dtype(1) - ((y - dtype(cy)) / dtype(ry)) ** 2 - ((x - dtype(cx)) / dtype(rx)) ** 2


def _golden_row(case, data):
  """The row that a runner would make of the case, by the rules of the golden data's README."""
  h, w = case["height"], case["width"]
  y0, x0, y1, x1 = case["gt_bbox_yxyx"]
  truth = _ellipse(*case["gt_ellipse"], h, w, np.float64) >= 0
  assert truth.sum() == case["gt_area"]
  tokens = np.array(case["tokens"])
  loc, seg = tokens[:4] - data["loc0"], tokens[4:20] - data["seg0"]
  valid = len(tokens) >= 20 and (loc >= 0).all() and (loc < 1024).all()
  valid = valid and (seg >= 0).all() and (seg < 128).all() and loc[2] > loc[0] and loc[3] > loc[1]
  row = {"objects": [{"label": "", "box": [x0 * w, y0 * h, x1 * w, y1 * h], "mask": truth}]}
  if not valid:
    return {**row, "pred_objects": []}
  top, left, bottom, right = loc / 1023 * (h, w, h, w)
  decoded = _ellipse(*data["decoder_ellipses"][case["decoder_id"]], 64, 64, np.float32)
  mask = _paste(decoded.clip(-1, 1), int(top), int(left), int(bottom), int(right), h, w)
  return {**row, "pred_objects": [{"label": "", "box": [left, top, right, bottom], "mask": mask}]}


def _paste(decoded, top, left, bottom, right, h, w):
  if bottom <= top or right <= left:
    return None
  size = (right - left, bottom - top)
  mask = np.zeros((h, w), bool)
  picture = Image.fromarray(decoded).resize(size, Image.Resampling.BILINEAR)
  mask[top:bottom, left:right] = np.asarray(picture) > 0
  return mask


def test_golden_cases_one_by_one():
  data = golden.load("segmentation_miou")
  for case in data["cases"]:
    got = masks.score([_golden_row(case, data)])
    assert got["mask_iou"] == pytest.approx(case["iou"], abs=1e-6)
    assert got["box_at_0.5"] == case["box_at_0.5"]
    assert got["box_at_0.75"] == case["box_at_0.75"]
    assert got["invalid"] == case["invalid"]


def test_golden_aggregate():
  data = golden.load("segmentation_miou")
  got = masks.score([_golden_row(case, data) for case in data["cases"]])
  want = data["aggregate"]
  assert got["mask_iou"] == pytest.approx(want["miou"], abs=1e-6)
  assert got["box_at_0.5"] == pytest.approx(want["boxacc/0.5"])
  assert got["box_at_0.75"] == pytest.approx(want["boxacc/0.75"])
  assert got["invalid"] == pytest.approx(want["invalid"] / want["total"])
