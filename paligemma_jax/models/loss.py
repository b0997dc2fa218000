"""Suffix loss from hidden states and the embedding table. big_vision trainers/proj/paligemma/train.py.

Letters: B batch, T text tokens, D width, V vocabulary, C tokens in a chunk.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from paligemma_jax.models import gemma

Array = jax.Array | np.ndarray

CHUNK_ELEMENTS = 2**26  # logits that exist at a time, 256 MB in float32 (chosen)


def suffix_loss(
  hidden: Float[Array, "B T D"],
  table: Float[Array, "V D"],
  targets: Int[Array, "B T"],
  weights: Float[Array, "B T"],
  label_smoothing: float = 0.0,
  final_logits_softcap: float = 0.0,
  dtype: str = "float32",
  chunk: int | None = None,
) -> Float[Array, " B"]:
  """Cross entropy in nats per example: the weighted mean over its supervised tokens.

  An example without any counts 0. The batch loss of the reference is the plain mean of these. The
  logits exist for `chunk` tokens of every example at a time, in the backward pass too.

  Args:
    hidden: states after the final norm, at the positions that predict `targets`.
    table: embedding table, in any dtype.
    targets: token ids, text[:, 1:].
    weights: mask_loss[:, 1:].
    label_smoothing: share of the target spread evenly over the other V - 1 tokens.
    final_logits_softcap: of the model; 0.0 is off.
    dtype: of the product with the table; its sums, and all else, are float32.
    chunk: C; None chooses it so that the logits stay within `CHUNK_ELEMENTS`.
  """
  nll = token_nll(hidden, table, targets, label_smoothing, final_logits_softcap, dtype, chunk)
  return jnp.sum(nll * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)


def token_nll(
  hidden: Float[Array, "B T D"],
  table: Float[Array, "V D"],
  targets: Int[Array, "B T"],
  label_smoothing: float = 0.0,
  final_logits_softcap: float = 0.0,
  dtype: str = "float32",
  chunk: int | None = None,
) -> Float[Array, "B T"]:
  """Negative log-likelihood of every target, nats, float32. Arguments as `suffix_loss`."""
  (B, T, _), V = hidden.shape, table.shape[0]
  C = min(T, chunk or max(1, CHUNK_ELEMENTS // (B * V)))
  table = table.astype(dtype)

  def nll(h, y):
    z = jnp.einsum("BCD,VD->BCV", h.astype(dtype), table, preferred_element_type=jnp.float32)
    z = gemma.softcap(z, final_logits_softcap)
    log_norm = jax.nn.logsumexp(z, axis=-1)
    logp = jnp.take_along_axis(z, y[..., None], axis=-1)[..., 0] - log_norm
    if not label_smoothing:
      return -logp
    others = jnp.sum(z, axis=-1) - V * log_norm - logp
    return -((1 - label_smoothing) * logp + label_smoothing / (V - 1) * others)

  if C == T:
    return nll(hidden, targets)
  pad = -T % C
  hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0)))
  targets = jnp.pad(targets, ((0, 0), (0, pad)))
  split = lambda x: jnp.moveaxis(x.reshape(B, -1, C, *x.shape[2:]), 1, 0)
  step = lambda _, xs: (None, jax.checkpoint(nll)(*xs))
  _, out = jax.lax.scan(step, None, (split(hidden), split(targets)))
  return jnp.moveaxis(out, 0, 1).reshape(B, T + pad)[:, :T]
