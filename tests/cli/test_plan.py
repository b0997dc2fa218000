"""`paligemma plan` on simulated CPU devices."""

import pytest

from paligemma_jax.models import variants
from tests import toy

CONFIG = "transfers/forkme.py:train=no/such.jsonl,val=no/such.jsonl,init=no_such.npz,text_len=16"


@pytest.fixture
def small(monkeypatch):
  """Arguments for a model of one layer a tower; none of the files they name exists."""
  config = toy.config()
  monkeypatch.setitem(variants.PRESETS, "toy", (config.img, config.llm))
  sizes = ("train.batch_size=8", "evals.val.max_new_tokens=4")
  return ("--config", f"{CONFIG},preset=toy", *(f"--config.{x}" for x in sizes))


def test_a_plan_says_what_fits_without_any_file(small, run):
  said = run("plan", *small, "--devices", "2", "--eval")
  for words in (
    "toy-28, float32",
    "2 CPU devices",
    "parameters split over fsdp 2: ",
    "training step, compiled in",
    "evals.val, compiled in",
    "optimizer (waits)",
    "FLOPs ",
    "all-gather",
  ):
    assert words in said
  assert said.count("\nfits: ") == 2


@pytest.mark.slow
def test_adapters_beside_a_base_in_few_bits_need_no_file_either(small, run):
  options, config = small[2:], small[1] + ",recipe=qlora"
  said = run("plan", "--config", config, *options, "--eval")
  assert "qlora, adam" in said and said.count("\nfits: ") == 2


@pytest.mark.slow
def test_a_checkpoint_that_is_here_says_which_model_it_is(ckpt, run):
  config = CONFIG.replace("no_such.npz", ckpt)
  assert "paligemma-custom-28" in run("plan", "--config", config, "--config.train.batch_size=8")


@pytest.mark.parametrize(
  "argv, words",
  [
    (["--devices", "0"], "--devices 0: at least 1"),
    (["--devices", "2", "--topology", "v5e:2x2"], "not allowed with argument"),
    (["--topology", "v5e"], '--topology "v5e" is no NAME:AxB'),
    (["--search"], "--search compares times on a chip"),
  ],
)
def test_bad_usage(argv, words, small, refuse):
  assert words in refuse("plan", *small, *argv)


def test_without_a_preset_and_a_checkpoint_the_model_is_not_known(refuse):
  said = refuse("plan", "--config", CONFIG)
  assert "model.init no_such.npz is not here" in said and "--config.model.preset=" in said
