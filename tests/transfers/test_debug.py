"""Every transfer from its miniature to predictions: build, train two steps, evaluate, write."""

import importlib.util
import json

import pytest

from paligemma_jax.datasets import tasks
from paligemma_jax.train import loop
from tests.transfers import references
from tests.transfers.test_configs import NAMES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("PALIGEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_evaluates(name, tmp_path):
  c = references.module(name).get_config("debug")
  missing = [t for t in c.build.removeprefix("sample:").split("+") if t not in tasks.TASKS]
  assert not missing, f"no builder for {', '.join(missing)}"
  if "radgraph" in c.evals and importlib.util.find_spec("radgraph") is None:  # a large extra
    del c.evals["radgraph"]
  scores = loop.train(c, tmp_path)
  assert set(scores) == set(c.evals)
  for evaluation in c.evals:
    written = (tmp_path / f"predictions/{evaluation}.jsonl").read_text().splitlines()
    assert written and "prefix" in json.loads(written[0])
  losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert any(row.get("loss", 0) > 0 for row in losses)
