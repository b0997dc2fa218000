"""Who attends to whom, and attention with grouped heads. PaliGemma, arXiv:2407.07726, section 3.

Letters: B batch, T query position, S key position, N query heads, K kv heads, G = N / K, H head width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LARGEST = 2**22  # scores of a head up to which all exist at once (chosen: 448 px fit, 896 do not)
BLOCK = 512  # queries at a time beyond that (chosen)
MASKED = -2.3819763e38  # the reference's "minus infinity": near float32's lowest, yet finite


def block_mask(mask_input: Bool[Array, "B S"], mask_ar: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
  """Who may look at whom, from the two masks that every batch carries.

  A 1 in `mask_ar` opens a new block; a token sees its own block and all earlier ones. Image and
  prefix are one block of zeros, each suffix token opens its own: prefix-LM (arXiv:2407.07726).

      mask_ar    0 0 0 1 1
      row 0..2   x x x . .      image + prefix see each other, nothing after
      row 3      x x x x .      suffix token 1
      row 4      x x x x x      suffix token 2
  """
  block = jnp.cumsum(mask_ar, axis=1)
  earlier = block[:, None, :] <= block[:, :, None]
  real = mask_input[:, None, :] & mask_input[:, :, None]
  return earlier & real


def window_mask(
  mask: Bool[Array, "B S S"],
  mask_ar: Int[Array, "B S"],
  position: Int[Array, "B S"],
  window: int,
) -> Bool[Array, "B S S"]:
  """`mask` without the keys that lie `window` or more tokens back, in blocks other than one's own.

  Inside its own block a token keeps seeing everything, so the image and the prefix are not cut.
  Source: transformers 5.23, the sliding-window mask of Gemma 2 with the prefix put on top.
  """
  block = jnp.cumsum(mask_ar, axis=1)
  near = position[:, :, None] - position[:, None, :] < window
  return mask & (near | (block[:, :, None] == block[:, None, :]))


def positions(mask_input: Bool[Array, "B S"]) -> Int[Array, "B S"]:
  """0-based position of every token, counted over real tokens; padding repeats the last one."""
  return jnp.cumsum(mask_input.astype(jnp.int32), axis=1) - 1


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K H"],
  mask: Bool[Array, "B T S"] | None = None,
  softcap: float = 0.0,
) -> Float[Array, "B T N H"]:
  """Softmax attention; query head n uses kv head n // G. Logits and softmax are float32.

  A row without any visible key gets the mean of `v`, not NaN. `q` comes already scaled. Where T * S
  is large (from 896 px on), only the scores of `BLOCK` queries exist at a time, in the backward
  pass too.

  Args:
    q: queries.
    k: keys.
    v: values.
    mask: True where a query may see a key; None for everywhere.
    softcap: c > 0 bends the logits to c * tanh(logits / c), before the mask.
  """
  whole = q.shape[1] * k.shape[1] <= LARGEST
  return (attend_whole if whole else attend_blocks)(q, k, v, mask, softcap)


def attend_whole(q, k, v, mask=None, softcap=0.0):
  """`attend` with all scores [B, N, T, S] at once: the reference for the others."""
  B, T, N, H = q.shape
  K = k.shape[2]
  q = q.reshape(B, T, K, N // K, H)
  logits = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32)
  if softcap:
    logits = softcap * jnp.tanh(logits / softcap)
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, MASKED)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("BKGTS,BSKH->BTKGH", probs, v).reshape(B, T, N, H)


def attend_blocks(q, k, v, mask=None, softcap=0.0, block=BLOCK):
  """`attend` as a scan over blocks of queries, each of which sees all keys."""
  B, T = q.shape[:2]

  def split(x):  # [B, T, …] -> [blocks, B, block, …], filled up at the end
    x = jnp.pad(x, ((0, 0), (0, -T % block), *[(0, 0)] * (x.ndim - 2)))
    return jnp.moveaxis(x.reshape(B, -1, block, *x.shape[2:]), 1, 0)

  @jax.checkpoint
  def one(xs):
    q, *mask = xs
    return attend_whole(q, k, v, *mask, softcap=softcap)

  out = jax.lax.map(one, (split(q),) if mask is None else (split(q), split(mask)))
  return jnp.moveaxis(out, 0, 1).reshape(B, -1, *q.shape[2:])[:, :T]
