"""Plans on simulated CPU devices: what is known from shapes, what the compiler says, what fits."""

import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from paligemma_jax import errors
from paligemma_jax.models import flops, tree, variants
from paligemma_jax.train import chips, plan, search, targets
from tests import toy
from tests.train import toy_run

CHIP = chips.Chip("toy", flops=1e12, memory=2**30, bandwidth=1e9, links=1e8, kind="toy")
NOWHERE = pathlib.Path("no/such/folder")  # neither data nor tokenizer are needed


MODEL = variants.ModelConfig(
  dataclasses.replace(toy.config().img, depth=1), dataclasses.replace(toy.config().llm, depth=1)
)


@pytest.fixture(autouse=True, scope="module")
def toy_preset():
  """A preset that compiles in a second or two."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(variants.PRESETS, "toy", (MODEL.img, MODEL.llm))
    yield


def config(**changes):
  """8 examples of 16 tokens, one evaluation of 4 new tokens."""
  own = {"model.preset": "toy", "model.res": 28, "model.dropout": 0.0}
  return toy_run.config(NOWHERE, **(own | changes))


def make(devices: int = 1, **changes) -> plan.Plan:
  return plan.make(config(**changes), targets.cpu(devices))


def with_chip(devices: int = 1, memory: float = CHIP.memory) -> targets.Target:
  """Simulated devices that are taken for chips with known limits."""
  return dataclasses.replace(targets.cpu(devices), chip=CHIP, memory=memory)


def test_the_state_is_what_the_shapes_say():
  size = 4 * sum(math.prod(shape) for shape in tree.param_shapes(MODEL).values())
  known = plan.state_bytes(make())
  assert known["params"] == known["gradients"] == size
  assert 2 * size < known["optimizer"] < 2 * size + 100  # two moments, counters
  split = plan.state_bytes(make(4, mesh="fsdp"))
  assert split["params"] == size - 4 * 1500 * 48 * 3 / 4  # the table is split, the rest too small
  whole = plan.state_bytes(make(4, mesh="data"))
  assert whole["params"] == size


def test_what_is_frozen_has_neither_gradient_nor_moments():
  known = plan.state_bytes(make(**{"train.recipe": "head_only"}))
  head = 4 * (24 * 48 + 48)
  assert known["gradients"] == head and known["optimizer"] < 2 * head + 100


def test_a_frozen_base_in_few_bits_has_its_own_bytes_and_only_adapters_have_moments():
  made = make(**{"train.recipe": "qlora", "model.quant": "int8:llm/layers/mlp/linear"})
  known, plain = plan.state_bytes(made), tree.param_shapes(MODEL)
  F, D = plain["llm/layers/mlp/linear"][1:]
  adapters = sum(math.prod(made.parts.leaves[name].shape) for name in made.optimizer.trainable)
  scales = sum(math.prod(x.shape) for n, x in made.parts.leaves.items() if n.endswith("lora/scale"))
  floats = sum(math.prod(shape) for shape in plain.values()) - D * F  # float32 on a CPU
  assert known["gradients"] == 4 * adapters
  assert (
    known["params"] == 4 * (floats + adapters + scales) + D * F + 4 * D
  )  # a byte, a scale a row
  assert 2 * known["gradients"] < known["optimizer"] < 2 * known["gradients"] + 100
  assert {n.rpartition("/")[2] for n in made.optimizer.trainable} == {"a", "b"}


def test_the_roofline_reads_weights_in_few_bits_as_they_are_stored():
  made = make(**{"train.recipe": "lora", "model.quant": "int8:llm/layers/mlp/linear"})
  D = MODEL.llm.width
  rows = MODEL.llm.mlp_dim
  assert plan.layout(made.parts)["stored"] == {"llm/layers/mlp/linear": 1 + 4 / rows}
  chip = dataclasses.replace(CHIP, flops=1e30)  # memory alone
  linear = [flops.Product("llm/layers/mlp/linear", 1, 1, rows, D, 1)]
  time = lambda stored: (
    chips.roofline(
      chip, [(linear[0], 1)], batch_size=1, devices=1, itemsize=4, stored=stored
    ).products
  )
  assert time(None) == pytest.approx(4 * (rows + D + rows * D) / 1e9)
  assert time({"llm/layers/mlp/linear": 1.5}) == pytest.approx(
    (4 * (rows + D) + 1.5 * rows * D) / 1e9
  )


def test_the_work_of_a_step_has_the_adapters_products():
  names = [p.name for p, _ in plan.train_work(make(**{"train.recipe": "lora"}))]
  assert "img/head/kernel.lora/a" in names and "llm/layers/mlp/linear.lora/b" in names
  assert not any(".lora/" in p.name for p, _ in plan.train_work(make()))


@pytest.fixture(scope="module")
def step():
  """The step over two devices."""
  return plan.train_step(make(2))


@pytest.fixture(scope="module")
def alone():
  """The step on one."""
  return plan.train_step(make(1))


def test_memory_by_kind_adds_up_to_what_the_compiler_says(step):
  m, text = step.memory, 17
  row = 28 * 28 * 3 + 1 + text * (4 + 4 + 1 + 4) + 1
  assert m.batch == 4 * row  # of this device
  assert m.peak == m.params + m.optimizer + m.batch + m.program + m.temporaries
  assert m.temporaries > m.gradients
  assert m.fits and not m.is_refused


def test_flops_are_those_of_the_configuration(step):
  want = flops.train_step(MODEL, batch_size=8, text_len=16, remat="none")
  assert (step.model_flops, step.hardware_flops) == (want.model, want.hardware)


def test_devices_that_share_the_parameters_send_them(step, alone):
  assert {c.kind for c in step.collectives} >= {"all-gather", "all-reduce"}
  assert alone.collectives == ()


def test_pieces_of_a_batch_need_the_memory_of_one(alone):
  pieces = plan.train_step(make(**{"train.batch_size": 32, "train.accumulate": 4})).memory
  assert pieces.batch == 4 * alone.memory.batch
  assert pieces.temporaries < 2 * alone.memory.temporaries


def test_a_simulated_device_has_no_roofline_and_a_chip_has(step):
  assert step.roofline is None
  made = plan.make(config(), with_chip(2))
  r = plan.train_step(made).roofline
  known = plan.state_bytes(made)
  assert r.update == (4 * known["gradients"] + 2 * known["optimizer"]) / CHIP.bandwidth
  assert r.links == pytest.approx(sum(c.num_bytes for c in step.collectives) / CHIP.links)
  assert r.products >= step.hardware_flops / 2 / CHIP.flops
  assert r.seconds == max(r.products + r.update, r.links)
  assert r.exposed == r.products + r.update + r.links


def test_evaluations_that_run_the_same_program_are_one_and_the_optimizer_waits():
  c = config()
  c.evals.again = c.evals.val
  c.evals.likely = c.evals.val.copy_and_resolve_references()
  c.evals.likely.metric = "perplexity"
  made = plan.make(c, targets.cpu())
  answers, likely = plan.evaluations(made)
  assert (answers.name, likely.name) == ("evals.again, val", "evals.likely")
  assert answers.memory.optimizer == plan.state_bytes(made)["optimizer"]
  assert answers.memory.peak > answers.memory.params + answers.memory.optimizer
  options = dict(batch_size=8, text_len=16)
  want = flops.prefill(MODEL, **options) + flops.decode(MODEL, new_tokens=4, **options)
  assert answers.model_flops == want
  assert likely.model_flops == 8 * sum(p.flops for p in flops.forward(MODEL, 16))


def test_a_beam_reads_the_weights_once_for_all_its_sequences():
  def answers(sampler):
    c = config()
    c.evals.val.sampler = sampler
    return plan.evaluations(plan.make(c, with_chip()))[0]

  one, four = answers("greedy"), answers("best_of:4:1.0")
  prefill = flops.prefill(MODEL, batch_size=8, text_len=16)
  assert four.model_flops - prefill == 4 * (one.model_flops - prefill)
  assert four.roofline.products < 4 * one.roofline.products


def test_what_the_compiler_refuses_is_an_answer(monkeypatch):
  words = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO"
    " temporaries (36.00G) exceeds available HBM (15.75G)."
  )

  def refuse(*args, **kwargs):
    raise jax.errors.JaxRuntimeError(words)

  monkeypatch.setattr(plan.setup, "jit_step", refuse)
  m = plan.train_step(make()).memory
  assert m.is_refused and not m.fits
  assert (m.peak, m.limit) == (36 * 2**30, 15.75 * 2**30)
  words = "INTERNAL: a bug"
  with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
    plan.train_step(make())


def test_the_model_must_be_known():
  with pytest.raises(errors.UserError, match=r"model.init pt.npz is not here.*model.preset"):
    make(**{"model.preset": "", "model.init": "pt.npz"})
  assert make(**{"model.init": "gs://there/pt.npz"}).parts.model.config == MODEL


def test_more_devices_than_this_process_can_simulate():
  with pytest.raises(errors.UserError, match="can simulate 1 to 8"):
    targets.cpu(9)


@pytest.mark.parametrize(
  "name, words",
  [
    ("v5f:4x4", 'did you mean "v5'),
    ("v5e", "no NAME:AxB"),
    ("v5e:0x4", "no NAME:AxB"),
    ("v5e:32x8", "at most 16x16"),
    ("v6e:4x4x4", "at most 16x16"),
    ("v4:16x16x32", "at most 4096 chips"),
  ],
)
def test_slices_that_do_not_exist(name, words):
  with pytest.raises(errors.UserError, match=words):
    targets.tpu(name)


def test_without_libtpu_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match=r"pip install 'paligemma_jax\[tpu\]'"):
    targets.tpu("v5e:2x2")


def test_every_topology_has_a_chip():
  kinds = {"TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x"}  # as libtpu calls them
  assert {chips.of(kind).name for kind in kinds} == set(targets.TOPOLOGIES)
  assert chips.of("NVIDIA H200").name == "h200" and chips.of("cpu") is None


@pytest.fixture
def no_compiler(monkeypatch):
  """Peaks of 100 bytes an example, in place of what a compiler would say; returns the batches."""
  batches = []

  def train_step(p):
    size = p.config.train.batch_size
    batches.append(size)
    used = plan.Memory(0, 0, 0, 0, program=0, peak=100 * size, limit=p.target.memory)
    time = chips.Roofline(size / search.bound(p), 0.0, 0.0)
    return plan.Program("training step", size, used, 0, 0, (), time, 0.0)

  monkeypatch.setattr(plan, "train_step", train_step)
  monkeypatch.setattr(search, "least_bytes", lambda p: 0)
  monkeypatch.setattr(search, "BATCHES", (1, 2, 4))
  monkeypatch.setattr(search, "REMAT", ("none",))
  monkeypatch.setattr(search, "MESHES", ("single",))
  return batches


def test_search_stops_when_nothing_left_can_be_faster(no_compiler):
  found = search.run(config(mesh="single"), with_chip())
  # Four times the batch reads the weights as often, so it has the best bound and goes first.
  assert no_compiler == [32]
  assert search.flags(found[0].overrides).startswith("--config.train.batch_size=32")


def test_search_goes_on_to_the_fastest_that_fits(no_compiler):
  found = search.run(config(mesh="single"), with_chip(memory=2500))
  assert set(no_compiler[:-1]) == {32} and no_compiler[-1] == 16
  assert found[0].overrides["train.batch_size"] == 16
  assert [bool(t.rate) for t in found] == [True] + [False] * (len(found) - 1)


def test_search_prunes_by_bytes_before_anything_is_compiled(no_compiler, monkeypatch):
  monkeypatch.setattr(search, "least_bytes", lambda p: 3 * p.config.train.batch_size)
  said = []
  assert search.run(config(mesh="single"), with_chip(memory=20), said.append) == []
  assert no_compiler == [] and said[0].startswith("0 of ")


def test_least_bytes_grows_with_what_is_kept(alone):
  least = lambda remat: search.least_bytes(make(**{"model.remat": remat}))
  policies = ("nothing_saveable", "dots_with_no_batch_dims_saveable", "none")
  sizes = [least(remat) for remat in policies]
  assert sizes == sorted(set(sizes))
  assert sizes[-1] < alone.memory.peak


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
def test_a_tpu_slice_is_compiled_for_and_refuses_what_is_too_large():
  code = (
    "import pathlib; from paligemma_jax.train import plan, targets; from tests.train import toy_run\n"
    "for size in (32, 2**20):\n"
    "  config = toy_run.config(pathlib.Path('x'), **{'train.batch_size': size})\n"
    "  p = plan.train_step(plan.make(config, targets.tpu('v5e:2x2')))\n"
    "  print(p.memory.fits, p.memory.is_refused, p.memory.limit / 2**30, len(p.collectives) > 0)\n"
  )
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert run.stdout.split("\n")[:2] == ["True False 15.75 True", "False True 15.75 False"]


@functools.cache
def measured(recipe) -> dict[str, int]:
  """What a process comes to use for steps of `mid`, and what the plan says of it."""
  argv = [sys.executable, "-m", "tests.train.measured_run", "mid", "8", "1"]
  argv += ["nothing_saveable", recipe]
  environ = os.environ | {"XLA_FLAGS": ""}  # one device: eight have memory of their own
  run = subprocess.run(argv, capture_output=True, text=True, check=True, env=environ)
  return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("recipe, share", [("full", 1), ("lora", 0.6), ("qlora", 0.5)])
def test_the_plan_is_what_a_process_comes_to_use(recipe, share):
  found = measured(recipe)
  assert found["risen"] == pytest.approx(found["planned"], rel=0.1)
  assert found["risen"] <= share * measured("full")["risen"]
