"""The state that a run begins with: shapes, dtypes and places, and then the numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import load as loading
from paligemma_jax.models import paligemma, tree, weights
from paligemma_jax.train import adapters, recipes, saved, setup, step
from paligemma_jax.train import optimizer as optimizers


def init_state(
  c: ml_collections.ConfigDict, parts: setup.Parts, optimizer: optimizers.Optimizer
) -> step.TrainState:
  """The state before the first step, every leaf where it belongs."""
  abstract, shardings = abstract_state(c, parts, optimizer)
  params = init_params(c, parts, optimizer, abstract.params, shardings.params)
  make = jax.jit(
    lambda params: step.init_state(params, optimizer, c.seed),
    out_shardings=shardings,
    donate_argnums=0,
  )
  return make(params)


def abstract_state(
  c: ml_collections.ConfigDict, parts: setup.Parts, optimizer: optimizers.Optimizer
) -> tuple[step.TrainState, step.TrainState]:
  """(shapes and dtypes, shardings) of the training state; nothing is computed."""
  dtypes = param_dtypes(c, parts, optimizer)
  leaves = parts.leaves
  params = {name: jax.ShapeDtypeStruct(leaf.shape, dtypes[name]) for name, leaf in leaves.items()}
  abstract = jax.eval_shape(
    lambda params: step.init_state(params, optimizer, c.seed), sharding.unflatten(params)
  )
  return abstract, saved.state_shardings(abstract, leaves, parts.mesh, parts.rules)


def param_dtypes(
  c: ml_collections.ConfigDict, parts: setup.Parts, optimizer: optimizers.Optimizer
) -> dict[str, Any]:
  """Flat name -> dtype in memory: float32 for what trains, the rest as `recipes.frozen_dtype`, of
  weights in few bits their own.
  """
  platform = parts.mesh.devices.flat[0].platform
  frozen = recipes.frozen_dtype(c.train.recipe, parts.model.dtype, platform)
  stored = parts.source.dtypes if parts.source is not None else {}
  trainable = set(optimizer.trainable)

  def of(name, leaf):
    if name in trainable:
      return "float32"
    return leaf.dtype or frozen or stored.get(name, "float32")

  return {name: jnp.dtype(of(name, leaf)) for name, leaf in parts.leaves.items()}


def init_params(
  c: ml_collections.ConfigDict,
  parts: setup.Parts,
  optimizer: optimizers.Optimizer,
  abstract: dict,
  shardings: dict,
) -> dict:
  """Parameters from the checkpoint, slice by slice, or random; of a partial one, both."""
  dtypes = param_dtypes(c, parts, optimizer)
  params: dict[str, jax.Array] = {}
  if parts.source is None or parts.source.config is None:
    params = sharding.flatten(random_params(c.seed, parts.model, abstract, shardings))
  if parts.source is not None:
    # A tower alone gives only its own parameters; a bare Gemma lacks the loc and seg tokens.
    loaded = loading.load_params(
      parts.source,
      parts.model.config,
      lambda name: dtypes[name],
      mesh=parts.mesh,
      rules=parts.rules,
      extend_vocab=parts.source.config is None,
      quant=parts.quant,
    )
    params |= sharding.flatten(loaded)
  if parts.layout is not None and not any(".lora/" in name for name in params):
    params |= _fresh_adapters(c.seed, parts, params, sharding.flatten(shardings))
  return sharding.unflatten({name: params[name] for name in parts.leaves})


def _fresh_adapters(
  seed: int, parts: setup.Parts, params: dict, shardings: dict
) -> dict[str, jax.Array]:
  """Adapters that change nothing, each shard made where it stays."""
  leaves = tree.plain(parts.config)
  names = parts.layout.adapters(parts.config)

  def make(params):
    made = adapters.fresh(parts.layout, parts.config, seed)
    for name in names if parts.layout.dora else ():
      made[f"{name}.lora/m"] = weights.magnitudes(weights.take(params, name), leaves[name])
    return made

  of = {n: s for n, s in shardings.items() if ".lora/" in n}
  used = {n: x for n, x in params.items() if parts.layout.dora and n.startswith(tuple(names))}
  return jax.jit(make, out_shardings=of)(used)


def random_params(seed: int, model: paligemma.PaliGemma, abstract: dict, shardings: dict) -> dict:
  """Fresh parameters, each shard made where it stays."""
  if tree.form_of({n: x.shape for n, x in sharding.flatten(abstract).items()}) != tree.Form():
    raise errors.UserError(
      "adapters and weights in few bits need a checkpoint to start from; name it with model.init, or"
      " choose train.recipe full"
    )
  res = model.config.img.res
  image = jnp.zeros((1, res, res, 3), jnp.uint8)
  text = jnp.zeros((1, 2), jnp.int32)

  def init(key):
    params = model.init(key, image, text, text)["params"]
    return jax.tree.map(lambda x, like: x.astype(like.dtype), params, abstract)

  return jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
