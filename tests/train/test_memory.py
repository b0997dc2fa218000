"""What is said when memory runs out."""

import jax
import pytest

from paligemma_jax import errors
from paligemma_jax.models import variants
from paligemma_jax.train import loop, memory, settings
from paligemma_jax.transfers import common
from tests.train import toy_run

MODEL = variants.preset("paligemma-3b", 224)


def config(**changes):
  c = common.base()
  c.model.preset = "paligemma-3b"
  c.train.data.x = common.jsonl("x.jsonl")
  c.train.batch_size = 16
  c.update_from_flattened_dict(changes)
  return settings.check(c)


@pytest.mark.parametrize(
  "words, want",
  [
    (
      "total memory required for HLO temporaries (36.00G) exceeds available HBM (512.00M)",
      (36, 0.5),
    ),
    ("requires 36.00G, exceeds available HBM 15.75G of hbm", (36, 15.75)),
    ("Used 17.25G of 15.75G hbm. Exceeded hbm capacity by 1.5G", (17.25, 15.75)),
  ],
)
def test_the_ways_compilers_say_how_much(words, want):
  found = memory.needed(RuntimeError(f"RESOURCE_EXHAUSTED: {words}"))
  assert tuple(x / 2**30 for x in found) == want


def test_only_exhausted_memory_is_explained():
  def fail(words):
    with memory.explained(config(), MODEL, 4):
      raise jax.errors.JaxRuntimeError(words)

  with pytest.raises(errors.UserError, match="out of memory: a device is full. Smaller is: "):
    fail("RESOURCE_EXHAUSTED: Out of memory")
  with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
    fail("INTERNAL: a bug")


def test_one_line_says_what_was_asked_for_and_what_to_change():
  words = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3221225472 bytes."
  error = memory.explain(RuntimeError(words), config(), MODEL, devices=4)
  said = str(error)
  assert said.startswith(
    "out of memory: a device could not allocate another 3.00 GiB. Smaller is: "
  )
  assert "--config.train.accumulate=2" in said and "\n" not in said
  assert "--config.train.recipe=attention_sgd (the state takes 6." in said  # README: 6.9 GB


def test_what_does_not_change_the_result_comes_first():
  found = memory.smaller(config(**{"model.remat": "none", "mesh": "single"}), MODEL, devices=4)
  keys = [words.split("=")[0].removeprefix("--config.") for words in found]
  assert keys == ["mesh", "model.remat", "train.accumulate", "train.mu_dtype", "train.recipe"]


def test_pieces_divide_over_the_devices_down_to_a_row_for_each():
  say = lambda **changes: memory.smaller(config(**changes), MODEL, devices=4)[0]
  assert say().startswith("--config.train.accumulate=2 ")
  assert say(**{"train.accumulate": 2}).startswith("--config.train.accumulate=4 ")
  assert say(**{"train.accumulate": 4}).startswith("--config.train.mu_dtype")  # a row a device
  least = {"train.accumulate": 4, "train.recipe": "qlora", "train.optimizer": "sgd"}
  assert memory.smaller(config(**least), MODEL, 4) == ["more or larger devices"]


def test_an_evaluation_that_runs_out_shrinks_its_own_batch():
  c = config(**{"train.accumulate": 4})
  c = c.copy_and_resolve_references().unlock()
  c.evals.val = common.evaluate(common.jsonl("x.jsonl"), "exact_match", batch_size=64)
  error = memory.explain(RuntimeError(memory.EXHAUSTED), c, MODEL, 4, evaluating=["val"])
  assert "Smaller is: --config.evals.val.batch_size=32; or " in str(error)


def test_a_run_that_does_not_fit_ends_with_that_line(tmp_path, monkeypatch):
  def too_large(*args, **kwargs):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while allocating 5.0GiB")

  data = toy_run.write_data(tmp_path / "data")
  monkeypatch.setattr(loop.setup, "jit_step", lambda *args, **kwargs: too_large)
  with pytest.raises(
    errors.UserError, match=r"allocate another 5.00 GiB. Smaller is: .*accumulate"
  ):
    loop.train(toy_run.config(data, mesh="single"), tmp_path / "run")


def test_beside_adapters_it_is_the_form_of_the_base_that_shrinks():
  last = lambda **changes: memory.smaller(config(**changes), MODEL, devices=1)[-1]
  wide = last(**{"train.recipe": "lora"})
  assert wide.startswith("--config.model.quant=nf4-dq (the state takes 2.")
  assert last(**{"train.recipe": "lora", "model.quant": "int8:decoder"}) == wide
  for few in ({"train.recipe": "qlora"}, {"train.recipe": "lora", "model.quant": "int4"}):
    assert last(**few).startswith("--config.train.accumulate=")
  large = last(**{"train.recipe": "lora", "train.lora.rank": 256})
  assert float(large.split("takes ")[1].split()[0]) > 6  # its own adapters count


def test_a_rule_over_names_that_an_adapter_does_not_have_is_no_error():
  c = config(**{"train.recipe": "attention_sgd", "train.freeze": ("llm/layers/attn/q_einsum/w",)})
  assert memory.smaller(c, MODEL, devices=1)[-1].startswith("--config.train.recipe=lora ")
