import json
import pathlib

import numpy as np
import pytest

from paligemma_jax.evals import predictions

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True
ROW = {
  "objects": [{"label": "cat", "box": [2.0, 1.0, 5.0, 3.0], "mask": MASK}],
  "pred_objects": [{"label": "cat", "box": [2.0, 1.0, 5.0, 3.0], "mask": None, "codes": (1, 2)}],
  "question_id": 7,
  "suffix": ["a", "b"],
  "prefix": "segment cat",
  "image": pathlib.Path("a/cat.png"),
  "id": 3,
  "prediction": "ä <loc0000>",
  "scores": {"mask_iou": np.float32(0.5)},
  "height": 4,
  "width": 6,
}


def test_what_is_written_is_what_is_read(tmp_path):
  predictions.write(tmp_path, "val", [ROW, ROW])
  ((name, rows),) = predictions.read_all(tmp_path).items()
  assert name == "val" and len(rows) == 2
  row = rows[0]
  assert row["image"] == "a/cat.png"
  assert row["prediction"] == "ä <loc0000>"
  assert row["scores"] == {"mask_iou": 0.5}
  assert row["question_id"] == 7
  assert (row["objects"][0]["mask"] == MASK).all()
  assert row["pred_objects"][0]["mask"] is None


def test_a_line_begins_with_what_people_look_for(tmp_path):
  path = predictions.write(tmp_path, "val", [ROW])
  keys = list(json.loads(path.read_text()))
  assert keys[:6] == ["id", "image", "prefix", "prediction", "suffix", "scores"]


def test_pictures_in_memory_are_left_out(tmp_path):
  row = {"image": np.zeros((2, 2, 3), np.uint8), "prediction": ""}
  assert json.loads(predictions.write(tmp_path, "val", [row]).read_text())["image"] is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = predictions.write(tmp_path, "val", [ROW])
  before = path.read_text()

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError):
    predictions.write(tmp_path, "val", [])
  assert path.read_text() == before
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
  "answers, truths, is_told",
  [
    ("aaaa", "abca", True),
    ("aaab", "abca", False),
    ("aaaa", "aaaa", False),
    ("aaaa", [["a", "b"], ["b", "c"], ["c"], ["d"]], True),
    ("aaaa", [["a", "b"], ["a"], "a", ["a", "c"]], False),
    (["", "", "", ""], "abcd", True),
    ("aaaa", [None, None, None, None], False),
    ([None] * 4, "abcd", False),
    ("aaa", "abc", False),
  ],
)
def test_equal_answers_to_different_truths_are_told(answers, truths, is_told):
  rows = [{"prediction": a, "suffix": t} for a, t in zip(answers, truths)]
  said = predictions.monotony(rows)
  want = f'all 4 answers are "{answers[0]}", though the true ones differ' if is_told else ""
  assert said == want
