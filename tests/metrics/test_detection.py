import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_jax import metrics
from paligemma_jax.metrics import detection
from tests.metrics import golden

NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()


def _object(box, label="a", **more):
  x, y, width, height = box
  return {"label": label, "box": [x, y, x + width, y + height], **more}


def _rows(data):
  """Rows of a file in COCO's format."""
  rows = {image["id"]: {"objects": [], "pred_objects": []} for image in data["images"]}
  for a in data["annotations"]:
    more = {"iscrowd": a["iscrowd"], "area": a.get("area")}
    rows[a["image_id"]]["objects"].append(_object(a["bbox"], a["category_id"], **more))
  for d in data["detections"]:
    thing = _object(d["bbox"], d["category_id"], score=d["score"])
    rows[d["image_id"]]["pred_objects"].append(thing)
  return list(rows.values())


def test_golden():
  data = golden.load("detection_map")
  got = detection.detection(_rows(data))
  want = {name: value for name, value in data["stats"].items() if value != -1}
  assert got == pytest.approx(want, abs=1e-6)


def test_worked_example():
  truths = [_object([0, 0, 100, 100]), _object([200, 200, 100, 100])]
  found = [
    _object([0, 0, 80, 100], score=0.9),
    _object([400, 0, 50, 50], score=0.8),
    _object([200, 200, 100, 100], score=0.7),
  ]
  rows = [{"objects": truths, "pred_objects": found}]
  got = detection.detection(rows)
  want = {"AP": 0.634983, "AP50": 0.834983, "AP75": 0.834983, "AR1": 0.35, "AR10": 0.85}
  assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-6)
  assert "APs" not in got  # nothing small was there
  in_order = [{"objects": truths, "pred_objects": [{**f, "score": None} for f in found]}]
  assert detection.detection(in_order) == got  # without scores the first is the surest


def _pycocotools(rows):
  coco, evaluation = (
    pytest.importorskip("pycocotools.coco"),
    pytest.importorskip("pycocotools.cocoeval"),
  )
  labels = sorted({o["label"] for row in rows for o in row["objects"] + row["pred_objects"]})

  def boxes(key):
    for i, row in enumerate(rows):
      for o in row[key]:
        x0, y0, x1, y1 = o["box"]
        box = [x0, y0, x1 - x0, y1 - y0]
        yield o, {"image_id": i, "category_id": labels.index(o["label"]), "bbox": box}

  truth = coco.COCO()
  truth.dataset = {
    "images": [{"id": i} for i in range(len(rows))],
    "categories": [{"id": i} for i in range(len(labels))],
    "annotations": [
      {**a, "id": n, "iscrowd": o["iscrowd"], "area": a["bbox"][2] * a["bbox"][3]}
      for n, (o, a) in enumerate(boxes("objects"), 1)
    ],
  }
  with contextlib.redirect_stdout(io.StringIO()):
    truth.createIndex()
    found = truth.loadRes([{**a, "score": o["score"]} for o, a in boxes("pred_objects")])
    run = evaluation.COCOeval(truth, found, "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
  return {name: value for name, value in zip(NAMES, run.stats) if value != -1}


sides = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 120), st.integers(1, 120))
truths = st.builds(
  lambda box, label, crowd: _object(box, label, iscrowd=crowd),
  sides, st.sampled_from("ab"), st.sampled_from([0, 0, 0, 1]),
)  # fmt: skip
found = st.builds(
  lambda box, label, score: _object(box, label, score=score),
  sides, st.sampled_from("ab"), st.integers(1, 9).map(lambda n: n / 10),
)  # fmt: skip
pictures = st.fixed_dictionaries(
  {"objects": st.lists(truths, max_size=5), "pred_objects": st.lists(found, max_size=6)}
)


def _has_truth(rows):
  return any(not o["iscrowd"] for row in rows for o in row["objects"])


@settings(max_examples=60, deadline=None)
@given(
  st.lists(pictures, min_size=1, max_size=4).filter(
    lambda rows: any(r["pred_objects"] for r in rows) and _has_truth(rows)
  )
)
def test_random_boxes_score_as_in_pycocotools(rows):
  assert detection.detection(rows) == pytest.approx(_pycocotools(rows), abs=1e-9)


@given(st.lists(pictures, min_size=1, max_size=4).filter(_has_truth))
def test_perfect_boxes_score_one_and_none_scores_zero(rows):
  plain = [[o for o in row["objects"] if not o["iscrowd"]] for row in rows]
  distinct = [{(o["label"], *o["box"]): o for o in objects} for objects in plain]
  right = [{"objects": list(d.values()), "pred_objects": list(d.values())} for d in distinct]
  got = detection.detection(right)
  assert all(got[name] == pytest.approx(1) for name in got if name not in ("AR1", "AR10"))
  nothing = detection.detection([{**row, "pred_objects": []} for row in right])
  assert set(nothing.values()) <= {0.0}


def test_weights_are_repeated_pictures():
  rows = _rows(golden.load("detection_map"))
  units, weigh = detection.detection.weighted(rows)
  weights = np.random.default_rng(0).integers(0, 3, size=(4, units)).astype(float)
  weights[:, 0] = 1  # something is drawn
  got = weigh(weights)
  for s, w in enumerate(weights):
    want = detection.detection([row for row, n in zip(rows, w) for _ in range(int(n))])
    assert {k: v[s] for k, v in got.items() if not np.isnan(v[s])} == pytest.approx(want)


def test_a_pictures_own_score():
  thing = _object([0, 0, 50, 50])
  rows = [{"objects": [thing], "pred_objects": [thing]}, {"objects": [thing], "pred_objects": []}]
  rows += [{"objects": [], "pred_objects": [thing]}]
  scored = metrics.with_scores(detection.detection, rows)
  assert [row["scores"] for row in scored] == [{"AP": pytest.approx(1)}, {"AP": 0}, {}]
