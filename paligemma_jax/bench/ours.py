"""What the benchmarks measure of this library. Every function returns a job: call it to do the work.

A job does its work once, waits until it is done, and returns what shows that it is the same work as
the peer's.
"""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax import sharding, vlm
from paligemma_jax.bench import sizes
from paligemma_jax.checkpoint import formats
from paligemma_jax.decode import generate as decoding
from paligemma_jax.models import paligemma
from paligemma_jax.structs import Batch
from paligemma_jax.train import adapters, memory, recipes, step
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.transfers import common

NAME = "paligemma_jax"


def batch(found: sizes.Tokens, length: int) -> Batch:
  """`found`, padded behind to `length` tokens that nobody sees and nothing is asked of."""
  B, T = found.text.shape
  pad = lambda x, fill: np.pad(x, ((0, 0), (0, length - T)), constant_values=fill)
  return jax.tree.map(
    jnp.asarray,
    Batch(
      image=found.image,
      mask_image=np.ones((B, 1), bool),
      text=pad(found.text, 0),
      mask_ar=pad(found.is_suffix.astype(np.int32), 1),
      mask_input=pad(np.ones((B, T), bool), False),
      mask_loss=pad(found.is_suffix.astype(np.float32), 0),
      valid=np.ones(B, bool),
    ),
  )


def train(folder: str, batch_size: int, recipe: str) -> dict[str, Callable[[], Any]]:
  """{"train": one step of what `recipe` trains}: Adam, gradients clipped to norm 1, no remat."""
  trains = recipes.RECIPES[recipe]
  loaded = vlm.load(folder, param_dtype="float32", quant=trains.quant or None)
  config = loaded.config
  model = paligemma.PaliGemma(config, loaded.model.dtype, remat="none")
  params = sharding.flatten(loaded.params)
  if trains.has_adapters:
    params |= adapters.fresh(adapters.layout(common.lora(), config), config, 0)
  optimizer = optimizers.make(
    [name for name in params if not name.endswith(".lora/scale")], 1000, lr=sizes.RATE,
    schedules=((trains.trains, {"decay_type": "stair"}),),
    otherwise=((".*", None),),
  )  # fmt: skip
  train_step = step.make_train_step(model, optimizer, mean_over="token", window=sizes.SUPERVISED)
  train_step = jax.jit(train_step, donate_argnums=0)
  state = jax.jit(lambda p: step.init_state(p, optimizer, 0), donate_argnums=0)(
    sharding.unflatten(params)
  )
  # One token more than goes in: the last one is only ever a target, here of nothing.
  examples = sizes.tokens(config, batch_size, sizes.TEXT, sizes.SUPERVISED)
  examples = batch(examples, sizes.TEXT + 1)
  train_step = train_step.lower(state, examples).compile()
  del loaded, params
  memory.release()  # as a training does

  def once():
    nonlocal state
    state, scalars = train_step(state, examples)
    return float(scalars["loss"])

  return {"train": once}


def generate(folder: str, batch_size: int, quant: str | None) -> dict[str, Callable[[], Any]]:
  """{"N": N new tokens for every prompt, greedily}: N = 1 is the prefill."""
  loaded = vlm.load(folder, quant=quant)
  prompts = batch(sizes.tokens(loaded.config, batch_size, sizes.PROMPT), sizes.PROMPT)

  def once(n):
    found, _ = decoding.generate(loaded.model, loaded.params, prompts, max_new_tokens=n, eos=-1)
    return np.asarray(found).tolist()

  return {str(n): lambda n=n: once(n) for n in (1, *sizes.NEW_TOKENS)}


def load(path: str) -> dict[str, Callable[[], Any]]:
  """{"load": the model in memory, from a file that the system has read before}."""

  def once():
    loaded = vlm.load(path)
    jax.block_until_ready(loaded.params)

  return {"load": once}


def convert(path: str, to: str, dtype: str | None) -> dict[str, Callable[[], Any]]:
  """{"convert": a checkpoint in another format or dtype, written and deleted again}."""
  target = pathlib.Path(to.format("ours"))

  def once():
    formats.convert(path, target, dtype=dtype, progress=False)
    shutil.rmtree(target) if target.is_dir() else target.unlink()

  return {"convert": once}
