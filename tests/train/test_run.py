"""When evaluations run, and the table at the end."""

import json

import numpy as np

from paligemma_jax.data import pipeline
from paligemma_jax.train import log as logs
from paligemma_jax.train import run


def test_evaluations_run_at_their_fractions_and_at_the_end():
  evals = {"often": {"every": 0.3}, "last": {"every": 1.0}}
  found = {done: run.due(evals, done, 10) for done in range(11)}
  assert {done: names for done, names in found.items() if names} == {
    3: ["often"],
    6: ["often"],
    9: ["often"],
    10: ["often", "last"],
  }


def test_an_evaluation_that_was_cut_off_is_due_again(tmp_path):
  lines = [{"step": 5, "eval/a/accuracy": 0.5}, {"step": 10, "eval/b/accuracy": 0.7}]
  (tmp_path / logs.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert run.unscored(tmp_path, ["a", "b"], 5) == ["b"]
  assert run.unscored(tmp_path, ["a", "b"], 10) == ["a"]
  assert run.last_scores(tmp_path) == {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.7}}


def test_the_table_has_ceilings_beside_their_metrics():
  scores = {"segment": {"mask_iou": 0.5, "mask_iou_ceiling": 0.9}, "count": {"accuracy": 1.0}}
  assert run.table(scores) == [
    "evaluation  metric     value  ceiling",
    "segment     mask_iou  0.5000   0.9000",
    "count       accuracy  1.0000",
  ]


def test_every_source_of_a_mixture_has_its_loss_since_the_last_line():
  sources = {"a": {"weight": 1.0}, "off": {"weight": 0.0}, "b": {"weight": 3.0}}
  by_source = run._BySource(sources, batch_size=8)
  numbers = [pipeline.train_sources(sources, 8, step) for step in (0, 1)]
  for step, number in enumerate(numbers):
    by_source.add(step, nll=np.where(number == 0, 6.0, 1.0), tokens=np.full(8, 2.0))
  assert sum((number == 0).sum() for number in numbers) == 4
  assert by_source.take() == {"loss/a": 3.0, "loss/b": 0.5}
  assert by_source.take() == {}


def test_a_single_source_has_no_loss_of_its_own():
  by_source = run._BySource({"a": {"weight": 1.0}}, batch_size=2)
  by_source.add(0, np.ones(2), np.ones(2))
  assert by_source.take() == {}
