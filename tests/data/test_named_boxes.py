"""Answers that name boxes in <loc> tokens, as Roboflow exports for PaliGemma, are objects too."""

import json
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import checks, examples, pipeline, sources, survey, tasks
from paligemma_jax.evals import memory, runner
from paligemma_jax.metrics import boxes

FOLDER = pathlib.Path(__file__).parent / "reports" / "roboflow_paligemma" / "dataset"
TRAIN = str(FOLDER / "_annotations.train.jsonl")
NUM_BOXES = [1, 1, 3, 1, 3, 2]


@pytest.fixture
def config():
  return {"path": TRAIN, "task": "text"}


def test_rows_of_an_evaluation_have_the_boxes_of_the_answer(config, processor):
  batches = pipeline.eval_batches(config, processor, batch_size=2, text_len=64)
  rows = [row for _, rows in batches for row in rows]
  assert [len(row["objects"]) for row in rows] == NUM_BOXES
  first = rows[0]
  assert first["prefix"] == "detect circle ; square ; triangle"
  y0, x0, y1, x1 = np.array([592, 368, 808, 584]) / 1023
  width, height = first["width"], first["height"]
  assert first["objects"][0]["label"] == "triangle"
  assert first["objects"][0]["box"] == pytest.approx(
    [x0 * width, y0 * height, x1 * width, y1 * height]
  )


def test_a_perfect_answer_scores_one_and_none_scores_zero(config, processor):
  batches = pipeline.eval_batches(config, processor, batch_size=6, text_len=64)
  ((_, rows),) = batches
  evaluator = runner.Evaluator(None, None, processor)
  perfect = evaluator._read([{**row, "prediction": row["suffix"]} for row in rows])
  nothing = evaluator._read([{**row, "prediction": ""} for row in rows])
  assert boxes.score(perfect) == {"box_iou": 1, "recall_at_0.5": 1, "precision_at_0.5": 1}
  assert boxes.score(nothing)["box_iou"] == 0


def test_the_file_the_rows_in_memory_and_the_pipeline_agree(config, processor):
  lines = [json.loads(line) for line in pathlib.Path(TRAIN).read_text().splitlines()]
  rows = [{**line, "image": Image.open(FOLDER / line["image"])} for line in lines]
  ((_, want),) = pipeline.eval_batches(config, processor, batch_size=6, text_len=64)
  for given in (TRAIN, rows):
    got = [row for _, row in memory.examples(given, "detect")]
    assert [r["objects"] for r in got] == [r["objects"] for r in want]
    assert [r["prefix"] for r in got] == [r["prefix"] for r in want]


def test_data_check_counts_them_and_finds_nothing(config):
  (found,) = survey.run({"train": config}, {})
  assert found.num_objects == sum(NUM_BOXES) and not found.lines()


@pytest.mark.parametrize(
  "answer",
  [
    "<loc0700><loc0200><loc0100><loc0900> cat",  # the lower corner first
    "<loc0100><loc0200><loc0700> cat",
    "<loc0100><loc0200><loc0700><loc0900> cat ; <loc0100><loc0200><loc0100><loc0900> dog",
  ],
)
def test_location_tokens_that_make_no_box_are_worth_a_look(tmp_path, answer):
  Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
  record = {"image": "a.png", "prefix": "detect cat", "suffix": answer}
  (tmp_path / "a.jsonl").write_text(json.dumps(record))
  (found,) = survey.run({"train": {"path": str(tmp_path / "a.jsonl")}}, {})
  assert not found.lines()
  assert "tokens that make no box: wanted y0 x0 y1 x1" in found.lines(notes=True)[0][2]


def test_the_task_detect_asks_for_them(config):
  config = {**config, "task": "detect"}
  assert checks.findings(config) == []
  source, rules = sources.open_source(config), tasks.Rules("detect")
  made = examples.make(source, 2, rules)
  assert made.prefix == "detect circle ; triangle"
  assert made.suffix == source[2]["suffix"]  # to the token


def test_mask_codes_stay_with_their_box_and_objects_of_the_record_come_first():
  codes = "".join(f"<seg{k:03d}>" for k in range(16))
  text = f"<loc0000><loc0000><loc1023><loc1023>{codes} cat"
  made = tasks.with_objects({"suffix": [text, "other"]}, tasks.Rules(), (30, 40))
  assert made["objects"] == [{"label": "cat", "box": [0, 0, 40, 30], "codes": tuple(range(16))}]
  for record in ({"suffix": text, "objects": []}, {"suffix": "a cat"}, {"suffix": None}, {}):
    assert tasks.with_objects(record, tasks.Rules()) is record


def test_true_masks_are_decoded_from_their_codes(monkeypatch):
  monkeypatch.setattr(
    runner.objects, "decode", lambda codec, codes: np.ones((len(codes), 64, 64), np.float32)
  )
  codes = "".join(f"<seg{k:03d}>" for k in range(16))
  text = f"<loc0000><loc0000><loc0512><loc1023>{codes} cat"
  row = {"suffix": text, "height": 30, "width": 40, "prediction": text}
  row = tasks.with_objects(row, tasks.Rules(), (30, 40))
  evaluator = runner.Evaluator(None, None, types.SimpleNamespace(), codec={})
  (read,) = evaluator._read([row])
  assert read["objects"][0]["mask"].sum() == 15 * 40
  np.testing.assert_array_equal(read["objects"][0]["mask"], read["pred_objects"][0]["mask"])
