"""Cross entropy of the suffix from hidden states and the embedding table. big_vision trainers/proj/paligemma/train.py.

The logits [N, V] of a batch never exist: the vocabulary is walked through in pieces, forwards for
the normaliser and backwards for the gradients, so that every piece of the table is read once each
way whatever the number of tokens. (Pieces of tokens instead would read the whole table for each.)

Letters: B batch, T text tokens, W supervised ones at most, N tokens, D width, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from paligemma_jax.models import attention

Array = jax.Array | np.ndarray

PIECE = 2**23  # logits that exist at a time on a device, 32 MB in float32 (chosen)


def supervised(weights: Float[Array, "B T"], window: int | None = None) -> Int[Array, "B W"]:
  """Positions whose next token is supervised, and others where a row has fewer than W.

  Args:
    weights: mask_loss[:, 1:].
    window: W, when no row has supervised tokens further apart: the W that begin with its first.
      None: all, W = T.
  """
  B, T = weights.shape
  W = T if window is None else min(window, T)
  first = jnp.argmax(weights > 0, axis=1)
  return jnp.minimum(first, T - W)[:, None] + jnp.arange(W)[None]


def token_nll(
  hidden: Float[Array, "B T D"],
  table: Float[Array, "V D"],
  targets: Int[Array, "B T"],
  label_smoothing: float = 0.0,
  final_logits_softcap: float = 0.0,
  dtype: str = "float32",
  shards: tuple[int, int] = (1, 1),
  pieces: int | None = None,
) -> Float[Array, "B T"]:
  """Negative log-likelihood of every target, nats, float32.

  The loss of the reference is the mean over the batch of every example's weighted mean over these.

  Args:
    hidden: states after the final norm, at the positions that predict `targets`.
    table: embedding table, in any dtype.
    targets: token ids.
    label_smoothing: share of the target spread evenly over the other V - 1 tokens.
    final_logits_softcap: of the model; 0.0 is off.
    dtype: of the product with the table; its sums, and all else, are float32.
    shards: (devices that share the batch, devices that share the rows of the table).
    pieces: in which the V / shards[1] rows of a device are walked through; None chooses it so that
      a device holds `PIECE` logits at most.
  """
  (B, T, D), V = hidden.shape, table.shape[0]
  batch_shards, rows_shards = shards
  pieces = pieces or _pieces(V // rows_shards, B * T * V // (batch_shards * PIECE))
  # [s, r]: a piece takes a part of what every device has, so that none has to wait for another's.
  split = table.astype(dtype).reshape(rows_shards, V // rows_shards, D)
  nll = _nll(hidden.reshape(B * T, D), split, targets.reshape(-1), -(-split.shape[1] // pieces),
             label_smoothing, final_logits_softcap, dtype)  # fmt: skip
  return nll.reshape(B, T)


def _pieces(rows: int, least: int) -> int:
  """More than `least`: a divisor of `rows` if there is one that is not much more."""
  few = range(min(least + 1, rows), min(2 * least + 2, rows + 1))
  return next((n for n in few if rows % n == 0), few[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _nll(hidden, table, targets, size, smoothing, softcap, dtype):
  """float32[N] from hidden [N, D], table [s, r, D] in `dtype` and targets [N]; `size` of r at a time."""
  return _forward(hidden, table, targets, size, smoothing, softcap, dtype)[0]


def _logits(hidden, table, targets, p, size, softcap, dtype):
  """Of piece p: (logits float32[N, s, v], rows of the table [s, v, D], bool[N, s, v] the target,
  bool[1, 1, v]: no earlier piece had it, None: none had, number of its first row)."""
  shards, count, _ = table.shape
  if count % size:
    first = jnp.minimum(p * size, count - size)  # the last one begins earlier than its turn
    rows = jax.lax.dynamic_slice_in_dim(table, first, size, axis=1)
  else:  # so that the compiler sees whole blocks
    first, blocks = p * size, table.reshape(shards, -1, size, table.shape[2])
    rows = jax.lax.dynamic_index_in_dim(blocks, p, axis=1, keepdims=False)
  z = jnp.einsum("ND,svD->Nsv", hidden.astype(dtype), rows, preferred_element_type=jnp.float32)
  number = first + jnp.arange(size)
  is_new = (number >= p * size)[None, None] if count % size else None
  ids = jnp.arange(shards)[:, None] * count + number[None]
  hit = _where(is_new, targets[:, None, None] == ids[None], False)
  return attention.soft_capped(z, softcap), rows, hit, is_new, first


def _where(is_new, x, other):
  return x if is_new is None else jnp.where(is_new, x, other)


def _turns(table, size):
  return jnp.arange(-(-table.shape[1] // size))


def _target(smoothing, vocab):
  """(a, b) of the target distribution a * one-hot + b."""
  b = smoothing / (vocab - 1)
  return 1 - smoothing - b, b


def _forward(hidden, table, targets, size, smoothing, softcap, dtype):
  a, b = _target(smoothing, np.prod(table.shape[:2]))

  def piece(carry, p):
    most, total, right, everything = carry
    z, _, hit, is_new, _ = _logits(hidden, table, targets, p, size, softcap, dtype)
    right = right + jnp.sum(jnp.where(hit, z, 0.0), axis=(1, 2))
    if smoothing:
      everything = everything + jnp.sum(_where(is_new, z, 0.0), axis=(1, 2))
    z = _where(is_new, z, -jnp.inf)
    top = jnp.maximum(most, jnp.max(z, axis=(1, 2)))
    total = total * jnp.exp(most - top) + jnp.sum(jnp.exp(z - top[:, None, None]), axis=(1, 2))
    return (top, total, right, everything), None

  zeros = jnp.zeros(targets.shape, jnp.float32)
  start = (jnp.full_like(zeros, -jnp.inf), zeros, zeros, zeros)
  (most, total, right, everything), _ = jax.lax.scan(piece, start, _turns(table, size))
  log_norm = most + jnp.log(total)
  nll = log_norm - a * right - b * everything
  return nll, (hidden, table, targets, log_norm)


def _backward(size, smoothing, softcap, dtype, saved, grad):
  hidden, table, targets, log_norm = saved
  a, b = _target(smoothing, np.prod(table.shape[:2]))
  narrow = hidden.astype(dtype)

  def piece(carry, p):
    d_hidden, d_table = carry
    z, rows, hit, is_new, first = _logits(hidden, table, targets, p, size, softcap, dtype)
    dz = jnp.exp(z - log_norm[:, None, None]) - jnp.where(hit, a, 0.0) - b
    dz = dz * grad[:, None, None]
    if softcap:
      dz = dz * (1 - jnp.square(z / softcap))
    dz = _where(is_new, dz, 0.0).astype(dtype)
    d_hidden += jnp.einsum("Nsv,svD->ND", dz, rows, preferred_element_type=jnp.float32)
    d_rows = jnp.einsum("Nsv,ND->svD", dz, narrow)
    if is_new is None:
      blocks = d_table.reshape(len(table), -1, size, table.shape[2])
      blocks = jax.lax.dynamic_update_index_in_dim(blocks, d_rows, p, axis=1)
      return (d_hidden, blocks.reshape(table.shape)), None
    d_rows += jax.lax.dynamic_slice_in_dim(d_table, first, size, axis=1)
    return (d_hidden, jax.lax.dynamic_update_slice_in_dim(d_table, d_rows, first, axis=1)), None

  start = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros_like(table))
  (d_hidden, d_table), _ = jax.lax.scan(piece, start, _turns(table, size))
  return d_hidden.astype(hidden.dtype), d_table, None


_nll.defvjp(_forward, _backward)
