import numpy as np
import pytest

from paligemma_jax.metrics import refseg
from paligemma_jax.processing import boxes, masks
from tests.metrics import golden

CODES = "<seg000>" * 16


def _row(prediction, decoded, truth, box):
  """The row that a runner would make: the mask of the first object, pasted into the picture."""
  height, width = truth.shape
  found = []
  for b in boxes.parse_boxes(prediction, height, width):
    corners = [int(v) for v in (b.x0, b.y0, b.x1, b.y1)]
    empty = b.codes is None or corners[2] <= corners[0] or corners[3] <= corners[1]
    mask = None if empty else masks.paste(decoded, b, height, width)
    found.append({"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1], "mask": mask})
  objects = [{"label": "", "box": box, "mask": truth}]
  return {"prediction": prediction, "objects": objects, "pred_objects": found}


def _ellipse(cy, cx, ry, rx, height, width, dtype):
  y, x = np.mgrid[:height, :width].astype(dtype)
  return dtype(1) - ((y - dtype(cy)) / dtype(ry)) ** 2 - ((x - dtype(cx)) / dtype(rx)) ** 2


def _golden_row(case, data):
  """By the rules of the golden data's README; other tokens become a word."""
  height, width = case["height"], case["width"]
  text = ""
  for token in case["tokens"]:
    loc, seg = token - data["loc0"], token - data["seg0"]
    text += f"<loc{loc:04d}>" if 0 <= loc < 1024 else f"<seg{seg:03d}>" if 0 <= seg < 128 else " x"
  decoded = _ellipse(*data["decoder_ellipses"][case["decoder_id"]], 64, 64, np.float32)
  truth = _ellipse(*case["gt_ellipse"], height, width, np.float64) >= 0
  y0, x0, y1, x1 = case["gt_bbox_yxyx"]
  box = [x0 * width, y0 * height, x1 * width, y1 * height]
  return _row(text, decoded.clip(-1, 1), truth, box)


def test_golden():
  data = golden.load("segmentation_miou")
  rows = [_golden_row(case, data) for case in data["cases"]]
  for case, row in zip(data["cases"], rows, strict=True):
    got = refseg.refseg([row])
    assert got["miou"] == pytest.approx(case["iou"], abs=1e-6)
    assert got["boxacc/0.5"] == case["box_at_0.5"]
    assert got["boxacc/0.75"] == case["box_at_0.75"]
    assert got["invalid"] == case["invalid"]
  assert refseg.refseg(rows) == pytest.approx(data["aggregate"], abs=1e-6)


@pytest.mark.parametrize(
  "prediction, iou",
  [
    ("<loc0256><loc0256><loc0768><loc0768>" + CODES, 1),
    ("<loc0256><loc0256><loc0768><loc0768>" + CODES + " cat ; <loc0000>", 1),  # the rest is ignored
    ("<loc0256><loc0256><loc0767><loc0767>" + CODES, 9 / 16),  # 767 / 1023 * 8 = 5.998
    ("<loc0256><loc0256><loc0256><loc0768>" + CODES, 0),  # no height
    (" <loc0256><loc0256><loc0768><loc0768>" + CODES, 0),  # not at the start
    ("<loc0256><loc0256><loc0768><loc0768>" + CODES[:-8], 0),  # a code is missing
    ("", 0),
  ],
)
def test_worked_example(prediction, iou):
  truth = np.zeros((8, 8), bool)
  truth[2:6, 2:6] = True
  got = refseg.refseg([_row(prediction, np.ones((64, 64), np.float32), truth, [2, 2, 6, 6])])
  assert got["miou"] == pytest.approx(iou)
  assert got["invalid"] == (iou == 0)
  assert got["total"] == 1


def test_rows_without_a_truth_do_not_count_and_those_without_a_mask_for_their_box():
  truth = np.ones((8, 8), bool)
  row = _row("<loc0000><loc0000><loc1023><loc1023>" + CODES, np.ones((64, 64)), truth, [0, 0, 8, 8])
  empty = {"prediction": "", "objects": [], "pred_objects": []}
  boxed = {**row, "objects": [{"box": [0, 0, 8, 8]}], "height": 8, "width": 8}
  want = {"miou": 1, "boxacc/0.5": 1, "boxacc/0.75": 1, "invalid": 0, "total": 2}
  assert refseg.refseg([row, empty, boxed]) == pytest.approx(want)
