"""When evaluations run and with what, which checkpoints stay, and the table at the end."""

import json
import math
import types

import numpy as np

from paligemma_jax.data import pipeline
from paligemma_jax.evals import runner
from paligemma_jax.train import log as logs
from paligemma_jax.train import run, settings, setup, step
from paligemma_jax.transfers import common


def toy(workdir, **changes):
  """A run whose model and steps nobody asks for."""
  c = common.base(res=0)
  c.model.update(preset="tiny", init="")
  c.train.data.mine = common.jsonl("train.jsonl")
  c.evals.val = common.evaluate(common.jsonl("val.jsonl"), "exact_match")
  c.update_from_flattened_dict(changes)
  log = logs.Log(None, 10, 8, stream=None)
  mesh, rules = setup.make_mesh("single", 256)
  model = types.SimpleNamespace(config=None)
  parts = setup.Parts(None, None, None, None, mesh=mesh, rules=rules, model=model)
  return run.Run(settings.check(c), workdir, parts, 10, log, None, (), None, None)


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


def test_what_is_evaluated_is_the_moving_average(tmp_path, monkeypatch):
  params, average = {"a": np.zeros(2), "b": np.ones(2)}, {"a": np.full(2, 7.0)}
  seen = []
  monkeypatch.setattr(runner, "run_config", lambda c, model, params, *_, **__: seen.append(params))
  one = toy(tmp_path)
  one.done = 10
  state = step.TrainState(10, params, None, None, average)
  one._evaluate(state, lambda: False)
  assert [{k: list(v) for k, v in seen[0].items()}] == [{"a": [7, 7], "b": [1, 1]}]


def test_no_checkpoint_stays_for_a_score_that_is_not_finite(tmp_path):
  one = toy(tmp_path, **{"checkpoint.best": "-val/perplexity", "train.patience": 1})
  for one.done, score in ((3, math.nan), (6, 2.0), (9, -math.inf)):
    one._judge("val", {"perplexity": score})
    assert not one._stalled()
  assert one._kept() == {6}


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
  numbers = [pipeline.train_sources(sources, 8, done) for done in (0, 1)]
  for done, number in enumerate(numbers):
    by_source.add(done, nll=np.where(number == 0, 6.0, 1.0), tokens=np.full(8, 2.0))
  assert sum((number == 0).sum() for number in numbers) == 4
  assert by_source.take() == {"loss/a": 3.0, "loss/b": 0.5}
  assert by_source.take() == {}


def test_a_single_source_has_no_loss_of_its_own():
  by_source = run._BySource({"a": {"weight": 1.0}}, batch_size=2)
  by_source.add(0, np.ones(2), np.ones(2))
  assert by_source.take() == {}
