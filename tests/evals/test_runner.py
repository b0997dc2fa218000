import types

import numpy as np
import pytest

from paligemma_jax import errors, metrics
from paligemma_jax.evals import checks, runner


def _batch(*valid):
  return types.SimpleNamespace(valid=np.array(valid))


def texts(*found):
  return [{"prediction": text} for text in found]


def test_every_example_is_answered_once_and_padding_is_left_out():
  batches = [
    (_batch(True, True), [{"id": 0, "suffix": "a"}, {"id": 1, "suffix": "b"}]),
    (_batch(True, False), [{"id": 2, "suffix": "c"}]),
  ]
  answers = iter([texts("a", "x"), texts("c")])
  score = metrics.METRICS["exact_match"]
  scores, rows = runner.run(batches, lambda batch, rows: next(answers), score)
  assert scores == {"exact_match": pytest.approx(2 / 3)}
  assert [(r["id"], r["prediction"], r["scores"]["exact_match"]) for r in rows] == [
    (0, "a", 1), (1, "x", 0), (2, "c", 1)
  ]  # fmt: skip


def test_scores_are_those_of_the_rows_of_all_hosts():
  mine, other = {"id": 0, "suffix": "a"}, {"id": 1, "suffix": "b", "prediction": "wrong"}
  scores, rows = runner.run(
    [(_batch(True), [mine])],
    lambda batch, rows: texts("a"),
    metrics.METRICS["exact_match"],
    gather=lambda rows: [*rows, other],
  )
  assert scores == {"exact_match": 0.5} and len(rows) == 2


def test_a_batch_with_more_texts_than_rows_is_a_broken_promise():
  with pytest.raises(ValueError):
    runner.run([(_batch(True), [{}])], lambda batch, rows: texts("a", "b"), lambda rows: {})


def test_a_metric_of_the_users_own():
  scores, _ = runner.run(
    [(_batch(True), [{}])],
    lambda batch, rows: texts("four"),
    lambda rows: {"length": len(rows[0]["prediction"])},
  )
  assert scores == {"length": 4}


def _config(metric, task="text"):
  one = {"metric": metric, "data": {"task": task}}
  return {"evals": {"val": one}, "seed": 0, "input": {"text_len": 8}}


@pytest.mark.parametrize(
  "config, names, message",
  [
    (_config("exact_match"), ["vall"], r'evals.vall is unknown; did you mean "val"'),
    (_config("exct_match"), None, r"evals.val.metric: 'exct_match' is unknown; did you mean"),
    (_config("masks", "segment"), None, r"evals.val: masks .* --config.input.codec=FILE"),
  ],
)
def test_mistakes_in_the_config_are_told_before_anything_runs(config, names, message):
  with pytest.raises(errors.UserError, match=message):
    runner.run_config(config, None, None, None, None, None, None, names=names)


def test_answers_to_choose_from_may_stand_in_the_row():
  row = {"id": 3, "choices": ["a", "b"], "hint": "c"}
  assert checks.choices(("yes", "{choices}", "{hint}"), row) == ["yes", "a", "b", "c"]
  with pytest.raises(errors.UserError, match='no key "choice" in the rows .found: id, choices'):
    checks.choices(("{choice}",), row)
  with pytest.raises(errors.UserError, match="there are none to choose from"):
    checks.choices(("{choices}",), {"id": 4, "choices": []})


def test_evaluate_says_what_a_row_lacks():
  vlm = types.SimpleNamespace(codec=None)
  with pytest.raises(errors.UserError, match=r'rows\[0\]: no key "prefix" \(found: image, prefx\)'):
    runner.evaluate(vlm, [{"image": "a.png", "prefx": "x"}])
  with pytest.raises(errors.UserError, match="no examples"):
    runner.evaluate(vlm, [])
  with pytest.raises(errors.UserError, match="no mask codec"):
    runner.evaluate(vlm, [], metric="masks")
