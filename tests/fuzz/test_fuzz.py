"""Damaged files and odd command lines end right or with one line; and the harness sees when not."""

import pathlib
import random
import signal
import sys

import pytest

from paligemma_jax import errors
from paligemma_jax.cli import inspect
from tests.fuzz import harness, kinds, mutations

COMPILES = ("jsonl", "runs", "configs", "argv")  # which takes seconds


def faults(results):
  return [f"{r.kind} {r.seed}: {r.words}" for r in results if r.outcome == harness.FAULT]


@pytest.mark.parametrize("kind", [k for k in kinds.KINDS if k not in COMPILES])
def test_a_few_inputs_of_every_kind_end_right_or_with_one_line(kind, tmp_path):
  worker = harness.Worker(kind, kinds.KINDS[kind], tmp_path)
  results = [worker.run(seed) for seed in range(8)]
  assert not faults(results)
  assert {r.outcome for r in results} - {harness.RIGHT} == {harness.REFUSED}


@pytest.fixture
def judge(tmp_path, monkeypatch):
  """judge(what `inspect` does) -> the words of the fault; "" if there is none."""

  def call(does, after=lambda: None):
    monkeypatch.setattr(inspect, "run", lambda args: does())
    kind = kinds.Kind(lambda: pathlib.Path("a").touch(), [], lambda rng: ["inspect a"], after)
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    result = harness.Worker("judged", kind, folder).run(0)
    assert (folder / "judged-0").exists() == (result.outcome == harness.FAULT)
    return result.words if result.outcome == harness.FAULT else ""

  return call


def refuse():
  raise errors.UserError("a: broken; mend it")


def test_right_and_refused_are_no_faults(judge):
  assert judge(lambda: None) == ""
  assert judge(refuse) == ""
  assert judge(lambda: pathlib.Path("out.npz").touch()) == ""


def test_an_exception_is_a_fault(judge):
  assert "ZeroDivisionError" in judge(lambda: 1 / 0)


def test_another_status_or_another_voice_is_a_fault(judge):
  def warn():
    print("a library warns", file=sys.stderr)
    refuse()

  assert "status 3" in judge(lambda: 3)
  assert "a library warns" in judge(warn)


def test_what_is_half_written_is_a_fault(judge):
  def write(name, end):
    pathlib.Path(name).unlink(missing_ok=True)
    pathlib.Path(name).write_text("half")
    end()

  assert "out.npz" in judge(lambda: write("out.npz", refuse))
  assert "changed: a" in judge(lambda: write("a", refuse))
  assert ".out.npz.7" in judge(lambda: write(".out.npz.7", lambda: None))


def test_what_is_accepted_and_then_cannot_be_used_is_a_fault(judge):
  assert "then: UserError" in judge(lambda: None, after=refuse)
  assert judge(refuse, after=refuse) == ""


def test_memory_beyond_the_limit_is_a_fault(judge, monkeypatch):
  monkeypatch.setattr(harness, "MEMORY", 2**24)
  assert "GiB" in judge(lambda: bytearray(2**26).find(1) and None)


@pytest.mark.slow
def test_a_process_that_dies_or_hangs_is_named_and_the_next_input_runs(tmp_path):
  module = "tests.fuzz.broken"
  died = list(harness.run("dies", range(6), tmp_path, module=module))
  hung = list(harness.run("hangs", range(4), tmp_path, timeout=3, module=module))
  assert [r.seed for r in died] == [0, 1, 2, 3, 4, 5]
  assert {r.outcome for r in died} == {r.outcome for r in hung} == {harness.REFUSED, harness.FAULT}
  assert {f"status {-signal.SIGSEGV}" in fault for fault in faults(died)} == {True}
  assert {"no answer" in fault for fault in faults(hung)} == {True}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.jpg"])
def test_a_seed_gives_one_input_and_another_seed_another(name):
  data = b'{"image": "a.png", "boxes": [1, 2, 3], "more": {"label": "cat"}}\n'
  make = lambda seed: mutations.by_name(random.Random(seed), name, data)
  assert [make(i) for i in range(20)] == [make(i) for i in range(20)]
  assert len({make(i) for i in range(20)}) > 10
