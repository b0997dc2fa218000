"""Contenders in processes of their own, and the report they make."""

import math

import pytest

from paligemma_jax.bench import contest, sizes, tasks
from paligemma_jax.train import adapters
from paligemma_jax.transfers import common


def test_a_contender_that_cannot_says_why():
  with pytest.raises(contest.Failed, match="no attribute 'nonsense'"):
    contest.Contender("ours", "nonsense")


def test_others_go_on_without_it(tmp_path):
  sizes.write(sizes.TINY, tmp_path / "model.npz")
  args = [str(tmp_path / "model.npz")]
  with contest.opened({"ours": args, "machine": args}, "load") as (ready, failed):
    assert list(ready) == ["ours"] and list(failed) == ["machine"]
    taken = contest.race(ready, ["load", "fly"], rounds=2, seconds=0)
    peak = ready["ours"].peak("load")
  assert len(taken["ours"]["load"]) == 2 and min(taken["ours"]["load"]) > 0
  assert list(taken["ours"]) == ["load"]
  assert peak["bytes"] > peak["own"] > sizes.num_bytes(sizes.TINY)


def test_figures_of_a_case():
  times = {
    "ours": [1.0, 2.0, 4.0], "ours full": [3.0, 3.0, 3.0],
    "eager": [4.0, 4.0, 4.0], "compiled": [9.0, 9.0, 9.0],
  }  # fmt: skip
  report = {
    "limits": {"flops": 100.0, "bytes": 10.0},
    "memory": {who: {"bytes": 3 * 2**20, "own": 2**20} for who in times},
    "cases": [],
  }
  case = tasks._case("step", "step", times, {"flops": 50}, report)
  assert case["contenders"]["ours"] == {
    "median": 2.0, "lowest": 1.0, "highest": 4.0, "of_limit": 0.25, "peak": 3 * 2**20, "own": 2**20
  }  # fmt: skip
  assert case["ratio"] == 2.0  # of the faster peer, round by round: 4, 2 and 1
  assert case["own_ratio"] == 1.5
  report["cases"].append(case)
  head, row = tasks.table(report)
  assert head[:7] == (
    "", "ours", "ours full", "eager", "compiled", "x the faster peer", "x ours full"
  )  # fmt: skip
  assert row[:8] == (
    "step", "2000 ms (1000-4000)", "3000 ms (3000-3000)", "4000 ms (4000-4000)",
    "9000 ms (9000-9000)", "2.00", "1.50", "25%",
  )  # fmt: skip


def test_the_time_of_a_token_leaves_out_the_first():
  taken = {"1": [2.0, 3.0], "32": [33.0, 65.0]}
  assert tasks._each(taken, 32) == [1.0, 2.0]


@pytest.mark.parity
def test_the_peer_adapts_the_same_modules(tmp_path):
  from paligemma_jax.bench import peers

  sizes.write(sizes.TINY, tmp_path / "hub")
  model = peers.adapted(*peers._load(str(tmp_path / "hub")))
  trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
  assert trained == adapters.layout(common.lora(), sizes.TINY).trained(sizes.TINY)


@pytest.mark.parity
def test_the_peer_does_the_same_work(tmp_path):
  sizes.write(sizes.TINY, tmp_path / "hub")
  found = {}
  for task, option in (("train", "full"), ("train", "lora"), ("generate", None)):
    args = [str(tmp_path / "hub"), 2, option]
    with contest.opened(dict.fromkeys(("ours", "eager"), args), task) as (ready, failed):
      assert not failed
      found[option] = ready["ours"].first, ready["eager"].first
  for recipe in ("full", "lora"):
    ours, eager = found[recipe]
    # The Hub's table has 64 rows more, here of zeros: as many tokens of probability exp(0) / Z more.
    extra = eager["train"] - ours["train"]
    assert 0 < extra < math.log(1 + 64 / sizes.TINY.llm.vocab_size)
  ours, eager = found[None]
  assert ours == eager  # 1, 32 and 128 greedy tokens
