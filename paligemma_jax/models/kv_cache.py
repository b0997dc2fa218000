"""The KV cache of the decoder: keys and values of the tokens so far, as their products read them.

Letters: B batch, T new tokens, S columns, K kv heads, H head width. Why this layout: docs/decode.md.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Cache(NamedTuple):
  """Keys and values of the tokens so far. A plain value: pass it in, get the next one back.

  Prompts stay where they were (left-aligned); columns of padding are never seen because their
  position is -1. A new token of every row goes into the same column, so rows of different
  lengths decode together.
  """

  keys: tuple[jax.Array, ...]  # per layer [B * K, H, S], RoPE applied
  values: tuple[jax.Array, ...]  # per layer [B * K, S, H]
  position: jax.Array  # int32[B, S]; -1: no token in this column
  length: jax.Array  # int32[B]: tokens so far, hence the position of the next
  column: jax.Array  # int32[]: the next free column


def take_rows(cache: Cache, rows: Int[Array, " R"]) -> Cache:
  """The cache of the given rows, in that order; rows may repeat (beams, best of n)."""
  take = lambda x: jnp.take(x, rows, axis=0)
  B = len(cache.length)

  def take_heads(x):
    return take(x.reshape(B, -1, *x.shape[1:])).reshape(-1, *x.shape[1:])

  return Cache(
    jax.tree.map(take_heads, cache.keys),
    jax.tree.map(take_heads, cache.values),
    take(cache.position),
    take(cache.length),
    cache.column,
  )


def cached(
  k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], dtype: jax.typing.DTypeLike
) -> tuple[Float[Array, "B*K H T"], Float[Array, "B*K T H"]]:
  """Keys and values in the layout and dtype of the cache."""
  B, T, K, H = k.shape
  k, v = (x.astype(dtype) for x in (k, v))
  return k.transpose(0, 2, 3, 1).reshape(B * K, H, T), v.swapaxes(1, 2).reshape(B * K, T, H)
