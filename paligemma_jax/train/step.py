"""One training step as a pure function of an explicit state."""

from collections.abc import Callable, Iterable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from paligemma_jax import sharding
from paligemma_jax.models import loss, paligemma
from paligemma_jax.structs import Batch
from paligemma_jax.train import optimizer as optimizers


class TrainState(flax.struct.PyTreeNode):
  """Everything that training changes, and the seed of what it draws."""

  step: jax.Array  # int32[], updates done so far
  params: dict  # nested, of the whole model
  opt_state: optax.OptState  # of the trainable parameters only
  rng: jax.Array  # uint32[2], key data; constant, folded with the step


def init_state(params: dict, optimizer: optimizers.Optimizer, seed: int) -> TrainState:
  """The state before the first step. Pure: under jit, the optimizer's state is born sharded."""
  trained, _ = split(params, optimizer.trainable)
  rng = jax.random.key_data(jax.random.key(seed))
  return TrainState(jnp.zeros([], jnp.int32), params, optimizer.tx.init(trained), rng)


def make_train_step(
  model: paligemma.PaliGemma, optimizer: optimizers.Optimizer, label_smoothing: float = 0.0
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns a pure `(state, batch) -> (state, scalars)`; the caller jits, shards and donates it.

  Gradients are computed for the trainable parameters only. The scalars, all float32[]:

      loss         mean over the batch of the per-example means, nats per token
      l2_grads     norm of the gradients before clipping; frozen ones count 0
      l2_params    norm of all parameters after the update
      l2_updates   norm of the updates
      schedule     factor of the learning rate in this update
      suffix_len   mean number of supervised tokens
      suffix_max   largest one

  Args:
    model: its `dropout` is on.
    optimizer: what trains, and how.
    label_smoothing: as `loss.suffix_loss`.
  """

  def loss_fn(trained, frozen, batch, rng):
    params = merge(trained, frozen)
    hidden = model.apply(  # float32[B, T, D] of the text part; logits exist chunk by chunk only
      {"params": params},
      batch.image,
      batch.text[:, :-1],
      batch.mask_ar[:, :-1],
      mask_image=batch.mask_image,
      train=True,
      rngs={"dropout": rng},
      method="hidden",
    )
    table = params["llm"]["embedder"]["input_embedding"]
    weights = batch.mask_loss[:, 1:] * batch.valid[:, None]
    softcap = model.config.llm.final_logits_softcap
    per_example = loss.suffix_loss(
      hidden, table, batch.text[:, 1:], weights, label_smoothing, softcap, model.dtype
    )
    return jnp.mean(per_example), jnp.sum(weights, axis=1)

  def train_step(state, batch):
    trained, frozen = split(state.params, optimizer.trainable)
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    _, dropout = jax.random.split(rng)  # the second half, as the reference
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (value, lengths), grads = grad_fn(trained, frozen, batch, dropout)
    updates, opt_state = optimizer.tx.update(grads, state.opt_state, trained)
    params = merge(optax.apply_updates(trained, updates), frozen)
    scalars = {
      "loss": value,
      "l2_grads": _norm(grads),
      "l2_params": _norm(params),
      "l2_updates": _norm(updates),
      "schedule": optimizer.factor(state.step),
      "suffix_len": jnp.mean(lengths),
      "suffix_max": jnp.max(lengths),
    }
    state = TrainState(state.step + 1, params, opt_state, state.rng)
    return state, {name: x.astype(jnp.float32) for name, x in scalars.items()}

  return train_step


def split(params: dict, trainable: Iterable[str]) -> tuple[dict, dict]:
  """Returns (the named parameters, the others), each a nested dict. `merge` is the inverse."""
  flat, trainable = sharding.flatten(params), set(trainable)
  trained = {name: x for name, x in flat.items() if name in trainable}
  frozen = {name: x for name, x in flat.items() if name not in trainable}
  return sharding.unflatten(trained), sharding.unflatten(frozen)


def merge(trained: dict, frozen: dict) -> dict:
  """Inverse of `split`."""
  return sharding.unflatten({**sharding.flatten(frozen), **sharding.flatten(trained)})


def _norm(tree: Any) -> jax.Array:
  """Global L2 norm, summed in float32 whatever the leaves are stored in."""
  squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)]
  return jnp.sqrt(sum(squares))
