import sys
import types

import pytest

from paligemma_jax.metrics import radiology


class _F1RadGraph:
  """The library's interface: reward lists (simple, partial, complete), here of shared words."""

  def __init__(self, reward_level, model_type):
    assert reward_level == "all"

  def __call__(self, hyps, refs):
    shared = [len(set(h.split()) & set(r.split())) / 4 for h, r in zip(hyps, refs, strict=True)]
    return None, (shared, [v / 2 for v in shared], [v / 4 for v in shared]), None, None


def test_each_report_has_three_levels(monkeypatch):
  library = types.SimpleNamespace(F1RadGraph=_F1RadGraph)
  monkeypatch.setitem(sys.modules, "radgraph", library)
  rows = [{"prediction": "a b", "suffix": "a c"}, {"prediction": "a b", "suffix": ["a b"]}]
  rows += [{"prediction": "x", "suffix": None}]  # no truth: not counted
  want = {"radgraph_f1": 0.1875, "radgraph_f1/simple": 0.375, "radgraph_f1/complete": 0.09375}
  assert radiology.radgraph(rows) == pytest.approx(want)
  own = radiology.radgraph.per_row(rows)
  assert own == [{"radgraph_f1": 0.125}, {"radgraph_f1": 0.25}, {}]
