"""Training of adapters: what trains, what is saved, what a run is good for afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

import paligemma_jax as pg
from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import formats, lora, peft_save, steps
from paligemma_jax.cli import main
from paligemma_jax.models import tree, variants
from paligemma_jax.train import adapters, loop, recipes
from paligemma_jax.train import run as runs
from paligemma_jax.transfers import common
from tests import toy
from tests.train import toy_run

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A folder with data, tokenizer and pt.npz, a base of random weights."""
  data = toy_run.write_data(tmp_path_factory.mktemp("base") / "data")
  toy_run.write_base(data)
  return data


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
  """(workdir, losses) of a qlora run."""
  workdir, losses = tmp_path_factory.mktemp("run") / "workdir", []
  loop.train(
    toy_run.adapters_config(base),
    workdir,
    callbacks=[lambda step, values: losses.append(values["loss"])],
  )
  return workdir, losses


def load(path, **options):
  """On one device: what is summed over several is not always summed in the same order."""
  mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
  return pg.load(path, mesh=mesh, **options)


def logprobs(model):
  batch = model.processor(images=[toy.pictures()[0]], prompts=["answer en 1"])
  return pg.generate(model, batch, max_new_tokens=4).logprobs


def test_a_run_that_is_stopped_and_started_again_ends_with_the_same_bits(base, run, tmp_path):
  workdir, losses = run
  again = tmp_path / "again"
  shutil.copytree(workdir, again)
  shutil.rmtree(again / "checkpoints/4")
  (again / "report.html").unlink()
  seen = []
  loop.train(
    toy_run.adapters_config(base),
    again,
    callbacks=[lambda step, values: seen.append(values["loss"])],
  )
  assert seen == losses[2:]
  a, b = (sharding.flatten(load(folder).params) for folder in (workdir, again))
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_checkpoint_holds_what_trains_and_names_its_base(base, run):
  workdir, _ = run
  step = formats.open(workdir)
  assert step.base_path == str(base / "pt.npz") and step.quant == "nf4-dq"
  names = list(steps.open_arrays(epath.Path(workdir) / "checkpoints/4/state"))
  assert {n.split("/")[0] for n in names if ".lora/" not in n} <= {"step", "rng", "opt_state"}
  adapted = step.adapter.lora.adapters(step.config)
  assert sum(n.startswith("params/") for n in names) == 2 * len(adapted)  # A and B


def test_the_model_of_a_run_is_that_of_its_base_with_its_adapter(base, run, tmp_path):
  workdir, _ = run
  want = logprobs(load(workdir))  # in the form that it was trained in
  shared = load(base / "pt.npz", quant="nf4-dq")
  np.testing.assert_allclose(logprobs(pg.with_adapter(shared, workdir)), want, atol=2e-6)
  assert main.main(["convert", str(workdir), str(tmp_path / "peft"), "--to", "peft"]) == 0
  beside = load(base / "pt.npz", adapter=tmp_path / "peft", quant="nf4-dq")
  np.testing.assert_allclose(logprobs(beside), want, atol=2e-6)


def test_merged_is_unmerged(run, tmp_path):
  workdir, _ = run
  unmerged = load(workdir, quant="float")
  assert main.main(["convert", str(workdir), str(tmp_path / "merged.npz")]) == 0
  pg.save(unmerged, tmp_path / "saved.npz")
  for path in ("merged.npz", "saved.npz"):
    np.testing.assert_allclose(logprobs(load(tmp_path / path)), logprobs(unmerged), atol=1e-5)


def test_an_evaluation_of_the_run_gives_the_scores_of_its_end(run, tmp_path):
  workdir, _ = run
  assert main.main(["eval", "--ckpt", str(workdir), "--workdir", str(tmp_path)]) == 0
  again = json.loads((tmp_path / "metrics.json").read_text())["nll"]
  before = runs.last_scores(workdir)["nll"]
  for metric, value in before.items():
    np.testing.assert_allclose(again[metric], value, rtol=1e-6, err_msg=metric)


def test_another_base_is_refused(base, run, tmp_path):
  workdir, _ = run
  config = toy.config(vocab_size=1500, res=28)
  other = toy.flat_params(config, seed=1)
  read = lambda name, layer=None: other[name] if layer is None else other[name][layer]
  formats.save(tmp_path / "other.npz", read, config, {})
  with pytest.raises(errors.UserError, match="was trained on .*pt.npz as it was then; .*other.npz"):
    load(tmp_path / "other.npz", adapter=workdir)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(base, tmp_path):
  def train(name, *kill):
    command = [sys.executable, "-m", "tests.train.toy_run", str(tmp_path / name), str(base)]
    return subprocess.run([*command, *kill], env=os.environ | {"XLA_FLAGS": ""}).returncode

  assert train("killed", "3", "SIGKILL", "single") == -signal.SIGKILL
  assert train("killed") == train("undisturbed") == 0
  a, b = (sharding.flatten(load(tmp_path / n).params) for n in ("killed", "undisturbed"))
  for name in b:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.slow
def test_a_base_that_moved_is_named_with_the_adapter(base, tmp_path):
  moved = tmp_path / "moved"
  shutil.copytree(base, moved)
  loop.train(toy_run.adapters_config(moved, "lora", steps=2), tmp_path / "run")
  (moved / "pt.npz").rename(tmp_path / "new.npz")
  with pytest.raises(errors.UserError, match="--ckpt BASE --adapter .*run"):
    load(tmp_path / "run")
  there = load(tmp_path / "new.npz", adapter=tmp_path / "run", tokenizer=base)
  assert logprobs(there).shape == (1, 4)


@pytest.mark.parametrize(
  "recipe, options",
  [
    ("lora", {}),
    pytest.param(
      "qlora", dict(dora=True, rslora=True, targets="attention"), marks=pytest.mark.slow
    ),
  ],
)
def test_a_new_adapter_changes_nothing(base, tmp_path, recipe, options):
  c = toy_run.adapters_config(base, recipe, steps=2, **{"train.schedule.warmup_percent": 0.5})
  c.train.lora.update(options)
  c.train.lr = 1e-30  # B stays 0 to float32
  loop.train(c, tmp_path / "run")
  fresh, plain = (
    load(tmp_path / "run"),
    load(base / "pt.npz", quant=recipe == "qlora" and "nf4-dq" or None),
  )
  tolerance = dict(atol=1e-5) if options else dict(atol=2e-6)  # magnitudes are divided by norms
  np.testing.assert_allclose(logprobs(fresh), logprobs(plain), **tolerance)


def trained(variant, **options):
  return adapters.layout(
    common.base().train.lora.to_dict() | options, variants.preset(variant)
  ).trained(variants.preset(variant))


@pytest.mark.parametrize(
  "variant, numbers",
  [
    ("paligemma-3b", 11_298_816),
    ("paligemma2-3b", 11_876_352),
    ("paligemma2-10b", 28_502_016),
    ("paligemma2-28b", 58_583_040),
  ],
)
def test_the_published_targets_train_as_many_numbers_as_the_recipe(variant, numbers):
  assert trained(variant, targets="published", rank=8) == numbers


def test_named_sets_and_patterns():
  assert trained("paligemma-3b", targets="decoder", rank=8) == 9_805_824
  assert trained("paligemma-3b", targets="all-linear", rank=8) == 14_179_072
  assert trained("paligemma-3b") == 14_179_072 + 8 * (3 * 14 * 14 + 1152)
  both = trained("tiny", targets="attention+mlp")
  assert both == trained("tiny", targets="decoder") == trained("tiny", targets="llm/layers/.*")
  values = trained("tiny", targets=r".*\.v_proj", rank=2)
  assert values == 2 * (3 * (128 + 32) + 2 * (128 + 128))
  more = trained("tiny", targets=r".*\.v_proj", rank=2, rank_pattern=((r"vision.*", 4),))
  assert more == values + 2 * 2 * (128 + 128)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(targets="atention"), '"atention" is no named set .*; did you mean "attention"'),
    (dict(targets="("), "no regular expression"),
    (dict(rank=1000), "rank 1000 of .* is more than its matrix has"),
    (dict(rank_pattern=(("llm/nothing", 4),)), "rank_pattern: .* matches no whole name"),
  ],
)
def test_targets_that_cannot_be(options, message):
  with pytest.raises(errors.UserError, match=message):
    trained("tiny", **options)


def test_what_is_in_few_bits_cannot_train(base, tmp_path):
  c = toy_run.adapters_config(base, "attention_sgd")
  c.model.quant = "int8"
  with pytest.raises(
    errors.UserError, match="trains llm/layers/attn/.*, which model.quant has in few"
  ):
    loop.train(c, tmp_path / "run")


def test_adapters_need_a_base(base, tmp_path):
  c = toy_run.adapters_config(base)
  c.model.update(init="", preset="tiny", res=112)
  with pytest.raises(errors.UserError, match="need a checkpoint to start from"):
    loop.train(c, tmp_path / "run")


def test_only_adapters_have_a_state(base):
  form = adapters.layout(common.base().train.lora.to_dict(), toy.config())
  leaves = tree.formed(toy.config(), tree.Form({}, form.adapters(toy.config())))
  trains = [n for n in leaves if recipes.is_adapter(n)]
  assert trains and not any(n.endswith(".lora/scale") for n in trains)


def test_an_adapter_of_whole_modules_trains_on_with_them(base, tmp_path):
  """`modules_to_save` of peft: the projector, whose new values train and are saved."""
  config_ = toy.config(vocab_size=1500, res=28)
  own = lora.Lora(
    {p: lora.Size(2, 4) for p in lora.modules(config_) if p.endswith("q_proj")},
    replaced=("multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias"),
  )
  flat = toy.flat_params(config_)
  rng = np.random.default_rng(0)
  leaves = tree.formed(config_, tree.Form({}, own.adapters(config_)))
  arrays = {
    n: rng.normal(size=x.shape).astype(np.float32) for n, x in leaves.items() if ".lora" in n
  }
  arrays |= {n: flat[n] + 1 for n in ("img/head/kernel", "img/head/bias")}
  peft_save.save(tmp_path / "peft", own, config_, arrays)
  c = toy_run.adapters_config(base, "lora", steps=2)
  c.model.adapter = str(tmp_path / "peft")
  loop.train(c, tmp_path / "run")
  got = sharding.flatten(load(tmp_path / "run").params)
  for name in ("img/head/kernel", "llm/layers/attn/q_einsum/w.lora/a"):
    change = np.abs(np.asarray(got[name]) - arrays[name])
    assert 0 < change.max() < 0.1, name
  assert (
    "img/Transformer/encoder_norm/scale" not in formats.steps.open(str(tmp_path / "run")).arrays
  )
