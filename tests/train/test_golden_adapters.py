"""Adapters as peft has them: logits, losses, gradients and steps of the reference, unmerged and merged."""

import functools

import jax
import numpy as np
import pytest

from paligemma_jax import sharding
from paligemma_jax.checkpoint import adapted, formats, load, lora, peft_save
from paligemma_jax.models import paligemma, tree
from paligemma_jax.structs import Batch
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.train import recipes, step
from tests import golden_adapters as golden

# The others take ten seconds each to compile.
FAST = [next(iter(golden.ADAPTERS)), next(iter(golden.QLORA))]
TRAINED = [
  pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
  for name in (*golden.ADAPTERS, *golden.QLORA)
]


def entry(name):
  return golden.ADAPTERS.get(name) or golden.QLORA[name]


def expected(name):
  return golden.arrays(f"{'adapters' if name in golden.ADAPTERS else 'quant'}/{name}")


@functools.cache
def source(base):
  return formats.open(golden.DIR / base)


def opened(name, folder=None):
  """The base with an adapter beside it; one that was not trained yet too."""
  e = entry(name)
  folder = golden.folder(e, folder or e.get("folders", [name])[0])
  return adapted.with_adapter(source(e["base"]), folder, fresh=name in golden.QLORA)


def load_params(src):
  return load.load_params(src, src.config, quant={n: x.quant for n, x in src.quantised.items()})


def batch(name) -> Batch:
  io = golden.inputs(entry(name))
  B = len(io["text"])
  return Batch(
    io["image"], np.ones((B, 1), bool), io["text"], io["mask_ar"], io["mask_input"].astype(bool),
    io["mask_loss"].astype(np.float32), np.ones(B, bool),
  )  # fmt: skip


def logits(src, name):
  """Where there are tokens: at padding the two conventions of masks differ."""
  model, b = paligemma.PaliGemma(src.config), batch(name)
  args = b.image, b.text[:, :-1], b.mask_ar[:, :-1]
  return model.apply({"params": load_params(src)}, *args)[0][b.mask_input[:, :-1]]


def assert_near(got, want, what, about=""):
  np.testing.assert_allclose(got, want, atol=golden.TOLERANCE[what], rtol=0, err_msg=about)


@pytest.mark.parametrize("name, folder", golden.SPELLINGS)
def test_logits_beside_the_base(name, folder):
  want = expected(name)["logits"][batch(name).mask_input[:, :-1]]
  got = logits(opened(name, folder), name)
  assert_near(got, want, "logits")


@pytest.mark.parametrize("name", [n for n in golden.ADAPTERS if "logits_merged" in expected(n)])
def test_logits_of_merged_weights(name):
  want = expected(name)["logits_merged"][batch(name).mask_input[:, :-1]]
  got = logits(adapted.merged(opened(name), np.dtype("float32")), name)
  assert_near(got, want, "logits")


@functools.cache
def trained(name):
  """(losses before each of four steps, gradients before the first, parameters after the last)."""
  src, hyper = opened(name), entry(name)["hyper"]
  params = sharding.flatten(load_params(src))
  trains = [n for n in params if recipes.is_adapter(n) or n in src.adapter.replaced]
  made = optimizers.make(
    params,
    100,
    lr=hyper["lr"],
    b1=hyper["b1"],
    b2=hyper["b2"],
    schedules=[*((n, {"decay_type": "stair"}) for n in trains), (".*", None)],
    weight_decay=hyper["lr"] * hyper["weight_decay"],  # ours is not multiplied by lr
    wd_mults=((".*", 1.0),),
    grad_clip_norm=0,
  )
  model = paligemma.PaliGemma(src.config)
  train_step = jax.jit(step.make_train_step(model, made))
  state = step.init_state(sharding.unflatten(params), made, seed=0)
  losses, b = [], batch(name)
  for _ in range(4):
    state, scalars = train_step(state, b)
    losses.append(float(scalars["loss"]))
    if len(losses) == 1:
      # Adam's mean after one step is 0.1 of the gradient.
      mean = state.opt_state[0].mu
      grads = {n: g / (1 - hyper["b1"]) for n, g in sharding.flatten(mean).items()}
  return np.array(losses), grads, sharding.flatten(state.params)


def as_peft(tmp_path, name, arrays):
  """Arrays in our layout -> tensors by the names of the reference."""
  src = opened(name)
  zeros = {n: np.zeros(x.shape, np.float32) for n, x in tree.plain(src.config).items()}
  whole = {n: np.asarray(x) for n, x in {**zeros, **arrays}.items()}
  peft_save.save(tmp_path / "out", src.adapter.lora, src.config, whole, rows=src.adapter.rows)
  return golden.adapter_tensors(tmp_path / "out")


@pytest.mark.parametrize("name", TRAINED)
def test_losses_of_four_steps(name):
  losses, want = trained(name)[0], expected(name)
  assert_near(losses[0], want["loss"], "loss")
  assert_near(losses, want["train/loss"], "train/loss")


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_of_every_tensor(tmp_path, name):
  want = golden.below(expected(name), "grad/")
  got = as_peft(tmp_path, name, trained(name)[1])
  for tensor, g in want.items():
    ours = got[golden.in_memory(tensor)]
    assert np.linalg.norm(ours - g) <= golden.TOLERANCE["grad"] * np.linalg.norm(g), tensor
  if name in golden.QLORA:
    zero = [t for t in want if "lora_A" in t and not got[golden.in_memory(t)].any()]
    assert len(zero) == entry(name)["zero_grads_of_A"]


@pytest.mark.parametrize("name", TRAINED)
def test_tensors_after_four_steps(tmp_path, name):
  want = golden.below(expected(name), "train/final/")
  got = as_peft(tmp_path, name, trained(name)[2])
  for tensor, x in want.items():
    ours = got[golden.in_memory(tensor)]
    if tensor.endswith("lora_embedding_A"):  # of padded rows there is nothing here
      vocab = opened(name).config.llm.vocab_size
      x, ours = x[:, :vocab], ours[:, :vocab]
    assert_near(ours, x, "train/final", tensor)


@pytest.mark.parametrize("name", golden.ADAPTERS)
def test_as_many_numbers_as_the_reference_trains(name):
  assert opened(name).adapter.trained == entry(name)["trainable"]


@pytest.mark.parametrize("name", TRAINED)
def test_what_fills_up_smaller_ranks_stays_zero(name):
  src, (_, _, after) = opened(name), trained(name)
  used = {}
  for path, size in src.adapter.lora.modules.items():
    slot = lora.modules(src.config)[path]
    used.setdefault(slot.ours, {})[slot.index] = size.rank
  for ours, ranks in used.items():
    a = np.asarray(after[f"{ours}.lora/a"])
    for place in np.ndindex(tree.plain(src.config)[ours].stacked):
      assert not a[place][..., ranks.get(place, 0) :].any()
