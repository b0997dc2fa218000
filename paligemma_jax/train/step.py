"""One training step as a pure function of an explicit state."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from paligemma_jax import sharding
from paligemma_jax.models import loss, paligemma, tree
from paligemma_jax.structs import Batch
from paligemma_jax.train import optimizer as optimizers

LOSSES = ("example", "token")  # what the mean is over; see `make_train_step`


class TrainState(flax.struct.PyTreeNode):
  """Everything that training changes, and the seed of what it draws."""

  step: jax.Array  # int32[], updates done so far
  params: dict  # nested, of the whole model
  opt_state: optax.OptState  # of the trainable parameters only
  rng: jax.Array  # uint32[2], key data; constant, folded with the step
  ema: dict | None = None  # nested, moving average of the trainable parameters, where one is kept


def init_state(params: dict, optimizer: optimizers.Optimizer, seed: int) -> TrainState:
  """The state before the first step. Pure: under jit, the optimizer's state is born sharded."""
  trained, _ = split(params, optimizer.trainable)
  rng = jax.random.key_data(jax.random.key(seed))
  ema = jax.tree.map(jnp.copy, trained) if optimizer.ema_decay else None
  return TrainState(jnp.zeros([], jnp.int32), params, optimizer.tx.init(trained), rng, ema)


def averaged(state: TrainState) -> dict:
  """The parameters to use: the moving average where one is kept. Nested, of the whole model."""
  if state.ema is None:
    return state.params
  return sharding.unflatten({**sharding.flatten(state.params), **sharding.flatten(state.ema)})


def make_train_step(
  model: paligemma.PaliGemma,
  optimizer: optimizers.Optimizer,
  *,
  mean_over: str = "example",
  label_smoothing: float = 0.0,
  window: int | None = None,
  accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns a pure `(state, batch) -> (state, scalars)`; the caller jits, shards and donates it.

  Gradients are computed for the trainable parameters only. The scalars are float32[]:

      loss         what is minimised, nats per token
      l2_grads     norm of the gradients before clipping; frozen ones count 0
      l2_params    norm of all parameters after the update, but for weights in few bits
      l2_updates   norm of the updates
      schedule     factor of the learning rate in this update
      suffix_len   mean number of supervised tokens
      suffix_max   largest one

  and, of every example of the batch, float32[B]: "example_nll", its sum over the supervised
  tokens, and "example_tokens", their (weighted) number.

  Args:
    model: its `dropout` is on.
    optimizer: what trains, and how.
    mean_over: "example": the mean over the batch of the means over an example's tokens, as
      big_vision has it; "token": one mean over all supervised tokens, as transformers has it.
    label_smoothing: as `loss.token_nll`.
    window: most supervised tokens that an example has; None: not known. Only so many go
      through the last layer and are projected to the vocabulary.
    accumulate: pieces that the batch is cut into, one after the other; gradient and loss are those
      of the whole batch, the activations those of a piece. (Dropout draws anew for each.)
  """
  if mean_over not in LOSSES:
    raise ValueError(f"mean_over {mean_over!r} is not of {LOSSES}")

  def gradient(trained, frozen, batch, rng):
    """((loss, nll [B], tokens [B]), gradients) of the whole batch."""
    tokens = jnp.sum(_weights(batch), axis=1)
    share = _shares(tokens, mean_over)
    loss_fn = functools.partial(_loss, model, label_smoothing, window)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if accumulate == 1:
      (value, nll), grads = grad_fn(trained, frozen, batch, share, rng)
      return (value, nll, tokens), grads

    def piece(carry, xs):
      i, batch, share = xs
      (value, nll), grads = grad_fn(trained, frozen, batch, share, jax.random.fold_in(rng, i))
      return jax.tree.map(jnp.add, carry, (value, grads)), nll

    pieces = jax.tree.map(lambda x: _pieces(x, accumulate, model.rules), (batch, share))
    zero = (jnp.zeros([], jnp.float32), jax.tree.map(jnp.zeros_like, trained))
    (value, grads), nll = jax.lax.scan(piece, zero, (jnp.arange(accumulate), *pieces))
    return (value, nll.T.reshape(-1), tokens), grads

  def train_step(state, batch):
    trained, frozen = split(state.params, optimizer.trainable)
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    _, dropout = jax.random.split(rng)  # the second half, as the reference
    (value, nll, tokens), grads = gradient(trained, frozen, batch, dropout)
    updates, opt_state = optimizer.tx.update(grads, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    params = merge(trained, frozen)
    scalars = {
      "loss": value,
      "l2_grads": _norm(grads),
      "l2_params": _norm(_in_floats(params)),
      "l2_updates": _norm(updates),
      "schedule": optimizer.factor(state.step),
      "suffix_len": jnp.mean(tokens),
      "suffix_max": jnp.max(tokens),
      "example_nll": sharding.constrain(nll, (None,), model.rules),  # every process reads all
      "example_tokens": sharding.constrain(tokens, (None,), model.rules),
    }
    ema = None
    if optimizer.ema_decay:
      ema = optax.incremental_update(trained, state.ema, 1 - optimizer.ema_decay)
    state = TrainState(state.step + 1, params, opt_state, state.rng, ema)
    return state, {name: x.astype(jnp.float32) for name, x in scalars.items()}

  return train_step


def _loss(model, label_smoothing, window, trained, frozen, batch, share, rng):
  """(what these rows add to the loss, float32[B] nll of each); share: float32[B], of a row's nll."""
  params = merge(trained, frozen)
  weights = _weights(batch)
  rows = loss.supervised(weights, window)
  targets, weights = (jnp.take_along_axis(x, rows, axis=1) for x in (batch.text[:, 1:], weights))
  hidden = model.apply(  # float32[B, W, D]
    {"params": params},
    batch.image,
    batch.text[:, :-1],
    batch.mask_ar[:, :-1],
    mask_image=batch.mask_image,
    train=True,
    rows=rows,
    rngs={"dropout": rng},
    method="hidden",
  )
  table = params["llm"]["embedder"]["input_embedding"]
  nll = loss.token_nll(
    hidden,
    table,
    targets,
    label_smoothing,
    model.config.llm.final_logits_softcap,
    model.dtype,
    (sharding.ways("batch", model.rules), _rows_shards(model)),
  )
  nll = jnp.sum(nll * weights, axis=1)
  return jnp.sum(nll * share), nll


def _shares(tokens: jax.Array, mean_over: str) -> jax.Array:
  """float32[B]: the factor of every example's nll in the loss, from its number of tokens [B]."""
  if mean_over == "token":
    return jnp.ones_like(tokens) / jnp.maximum(jnp.sum(tokens), 1)
  return 1 / (jnp.maximum(tokens, 1) * len(tokens))


def _weights(batch: Batch) -> jax.Array:
  """float32[B, T] of the tokens that are predicted; rows that are not valid have none."""
  return batch.mask_loss[:, 1:] * batch.valid[:, None]


def _rows_shards(model: paligemma.PaliGemma) -> int:
  """Over how many devices the rows of the embedding table lie."""
  if not model.rules:
    return 1
  return sharding.param_ways(tree.decoder(model.config.llm)[tree.TABLE], model.rules)[0]


def _pieces(x: jax.Array, n: int, rules: sharding.Rules) -> jax.Array:
  """[B, …] -> [n, B / n, …], every n-th row together: so no row changes its device."""
  x = jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, 0)
  return sharding.constrain(x, (None, "batch", *[None] * (x.ndim - 2)), rules)


def split(params: dict, trainable: Iterable[str]) -> tuple[dict, dict]:
  """Returns (the named parameters, the others), each a nested dict. `merge` is the inverse."""
  flat, trainable = sharding.flatten(params), set(trainable)
  trained = {name: x for name, x in flat.items() if name in trainable}
  frozen = {name: x for name, x in flat.items() if name not in trainable}
  return sharding.unflatten(trained), sharding.unflatten(frozen)


def merge(trained: dict, frozen: dict) -> dict:
  """Inverse of `split`."""
  return sharding.unflatten({**sharding.flatten(frozen), **sharding.flatten(trained)})


def _in_floats(params: dict) -> list[jax.Array]:
  """The parameters whose numbers mean themselves: neither codes nor their scales."""
  flat = sharding.flatten(params)
  few_bits = tree.form_of({name: x.shape for name, x in flat.items()}).quant
  return [x for name, x in flat.items() if name.rpartition("/")[0] not in few_bits]


def _norm(leaves: Any) -> jax.Array:
  """Global L2 norm, summed in float32 whatever the leaves are stored in."""
  squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(leaves)]
  return jnp.sqrt(sum(squares))
