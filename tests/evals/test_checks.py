"""What makes an evaluation impossible is told before a model is loaded, with its place."""

import json
import pathlib
import types

import numpy as np
import pytest

from paligemma_jax import errors, metrics
from paligemma_jax.evals import checks, runner
from paligemma_jax.transfers import common

ROBOFLOW = pathlib.Path(__file__).parents[1] / "data/reports/roboflow_paligemma/dataset"
CAT = {"label": "cat", "box": [0, 0, 4, 4]}
MASK = {"size": [4, 4], "counts": [0, 16]}


@pytest.fixture
def evaluation(tmp_path):
  """Makes the evaluation of a file with these records, each of which also has picture and prefix."""

  def make(records, metric, task="text", **options):
    path = tmp_path / "val.jsonl"
    lines = [{"image": "0.png", "prefix": "detect cat"} | record for record in records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"val": common.evaluate(common.jsonl(str(path), task=task), metric, **options)}

  return make


@pytest.mark.parametrize("metric", ["boxes", "detection", "text_spotting"])
def test_boxes_cannot_be_scored_where_no_record_has_objects(evaluation, metric):
  evals = evaluation([{"suffix": "yes"}] * 3, metric)
  (line,) = checks.findings(evals, None)
  assert line.startswith("evals.val: no objects to compare with in 3 examples; ")


@pytest.mark.parametrize("metric", ["boxes", "detection", "text_spotting"])
def test_boxes_that_the_answers_name_are_something_to_compare_with(metric):
  data = common.jsonl(str(ROBOFLOW / "_annotations.valid.jsonl"))
  assert checks.findings({"val": common.evaluate(data, metric)}, None) == []


def test_pictures_without_objects_are_right_beside_others(evaluation):
  records = [{"suffix": "", "objects": []}, {"suffix": "", "objects": [CAT]}]
  checks.check(evaluation(records, "detection"), None)
  with pytest.raises(errors.UserError, match="no objects to compare with in 1 example;"):
    checks.check(evaluation(records, "detection", limit=1), None)


def test_masks_need_masks_and_a_codec(evaluation):
  boxed = evaluation([{"objects": [CAT]}], "masks", task="detect")
  with pytest.raises(errors.UserError, match="evals.val: masks are scored, but there is no mask"):
    checks.check(boxed, None)
  with pytest.raises(errors.UserError, match="evals.val: no masks to compare with in 1 example;"):
    checks.check(boxed, {})
  checks.check(evaluation([{"objects": [CAT | {"mask": MASK}]}], "masks", task="detect"), {})
  codes = "<loc0000>" * 2 + "<loc1023>" * 2 + "<seg000>" * 16 + " cat"
  checks.check(evaluation([{"suffix": codes}], "masks"), {})


@pytest.mark.parametrize("suffix", [[], "", [""], " "])
@pytest.mark.parametrize("metric", ["exact_match", "vqa", "cider", "perplexity"])
def test_texts_cannot_be_scored_where_no_record_has_an_answer(evaluation, metric, suffix):
  evals = evaluation([{"suffix": suffix}] * 2, metric)
  with pytest.raises(
    errors.UserError, match='no answers to compare with in 2 examples; .*metric=""'
  ):
    checks.check(evals, None)
  checks.check(evaluation([{"suffix": suffix}] * 2, ""), None)


@pytest.mark.parametrize(
  "metric, suffix, message",
  [
    ("pope", "maybe", 'truth of a row is \'maybe\', wanted "yes" or "no"'),
    ("tallyqa", "many", "wanted 0 to 15"),
    ("vqa_v2", ["a", "b"], "needs 10 answers, found 2"),
    ("science_qa", ["a", "b"], "2 answers"),
    ("teds", "a table", "no <table>"),
  ],
)
def test_a_truth_that_the_metric_cannot_use_is_told_with_its_line(
  evaluation, metric, suffix, message
):
  good = {"pope": "yes", "tallyqa": "3", "vqa_v2": ["a"] * 10, "science_qa": "The answer is A."}
  good |= {"teds": "<table><tr><td>a</td></tr></table>"}
  evals = evaluation([{"suffix": good[metric]}, {"suffix": suffix}], metric)
  with pytest.raises(errors.UserError, match=rf"^evals.val: \S+val.jsonl:2: .*{message}"):
    checks.check(evals, None)


def test_answers_to_choose_from_must_be_in_every_record(evaluation):
  records = [{"suffix": "a", "choices": ["a", "b"]}, {"suffix": "a"}]
  evals = evaluation(records, "exact_match", answers=("{choices}",))
  with pytest.raises(errors.UserError, match=r'val.jsonl:2: answers: no key "choices"'):
    checks.check(evals, None)


def test_every_evaluation_that_cannot_be_has_a_line(evaluation):
  one = evaluation([{"suffix": "yes"}], "boxes")["val"]
  with pytest.raises(errors.UserError) as e:
    checks.check({"a": one, "b": one}, None)
  assert [line.split(":")[0] for line in str(e.value).splitlines()] == ["evals.a", "evals.b"]


def test_malformed_records_are_left_to_the_check_of_data(evaluation):
  assert checks.findings(evaluation([{"objects": ["cat"]}], "boxes", task="detect"), None) == []


VLM = types.SimpleNamespace(codec=None)
PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize("name", metrics.METRICS)
@pytest.mark.parametrize("truth", [{}, {"suffix": [], "objects": []}, {"suffix": ""}])
def test_rows_in_memory_and_a_file_are_refused_alike_before_the_model_is_used(
  evaluation, name, truth
):
  (one,) = evaluation([truth], name).values()
  for rows in ([{"image": PICTURE, "prefix": "detect cat", **truth}], one.data.path):
    with pytest.raises(errors.UserError, match='^no .* to compare with in 1|"objects" is empty'):
      runner.evaluate(VLM, rows, name, codec={})


@pytest.mark.parametrize("metric", ["boxes", "exact_match"])
def test_what_is_no_truth_is_told_with_its_row(metric):
  row = {"image": PICTURE, "prefix": "detect cat", "suffix": 5, "objects": [{"label": "cat"}]}
  with pytest.raises(errors.UserError, match=r"^rows\[0\]: .*; wanted"):
    runner.evaluate(VLM, [row], metric)
