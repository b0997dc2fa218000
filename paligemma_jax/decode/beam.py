"""Beam search with one best finished sequence per row. big_vision predict_fns.py, `beam_decode`.

Letters: B rows, n live sequences per row, V vocabulary, M new tokens.

No length penalty: a sequence's score is its summed log-probability, so the search stops as soon
as no live sequence can beat the finished one, and short answers win on flat distributions. As
"ending now" is considered at every step, `beam:1` is not greedy: it returns the most likely of
the greedy path's beginnings with EOS after it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Sequences(NamedTuple):
  """Some sequences per row (`*b` is B, or B n) with their summed log-probability."""

  tokens: Int[Array, "*b M"]
  logprobs: Float[Array, "*b M"]
  score: Float[Array, "*b"]


class State(NamedTuple):
  """What the loop carries."""

  step: Int[Array, ""]  # tokens so far
  live: Sequences  # [B, n, M]
  done: Sequences  # [B, M]; score -inf: none yet
  cache: Any  # of B * n rows, without the last token


def search(
  extend: Callable,
  take_rows: Callable,
  logits: Float[Array, "B V"],
  cache: Any,
  valid: Bool[Array, " B"],
  *,
  n: int,
  max_new_tokens: int,
  eos: Int[Array, ""] | int,
  forbidden: Callable,
) -> tuple[Int[Array, "B M"], Float[Array, "B M"]]:
  """The most likely sequence that ends with EOS, among those the beam saw.

  Args:
    extend: (token int32[B * n], cache) -> (logits float32[B * n, V], cache).
    take_rows: (cache, rows int32[R]) -> cache of these rows.
    logits: of the first new token.
    cache: of B rows, after the prompt.
    valid: False for rows that do not matter: they stay blank and never hold the loop.
    n: width of the beam, below V.
    max_new_tokens: M, EOS included.
    eos: token that ends a sequence.
    forbidden: cache -> bool[R or 1, V], tokens that may not come next; log-probabilities stay those
      of all tokens.

  Returns:
    (tokens, log-probabilities), zero after EOS. Where EOS is impossible: the best live sequence.
  """
  B = len(valid)
  empty = lambda *shape: Sequences(
    jnp.zeros((*shape, max_new_tokens), jnp.int32),
    jnp.zeros((*shape, max_new_tokens)),
    jnp.full(shape, -jnp.inf),
  )
  live = empty(B, n)
  live = live._replace(score=live.score.at[:, 0].set(0.0))  # n times the same prompt: one counts
  rows = jnp.repeat(jnp.arange(B), n)
  state = State(jnp.int32(0), live, empty(B), take_rows(cache, rows))
  state = _advance(state, take_rows, logits[rows], eos, forbidden)

  def is_open(state):
    better = jnp.max(state.live.score, axis=1) >= state.done.score
    return (state.step < max_new_tokens) & jnp.any(valid & better)

  def step(state):
    last = jax.lax.dynamic_index_in_dim(state.live.tokens, state.step - 1, 2, keepdims=False)
    logits, cache = extend(last.reshape(-1), state.cache)
    return _advance(state._replace(cache=cache), take_rows, logits, eos, forbidden)

  state = jax.lax.while_loop(is_open, step, state)
  ended = (state.done.score > -jnp.inf)[:, None]
  tokens = jnp.where(ended, state.done.tokens, state.live.tokens[:, 0])
  logprobs = jnp.where(ended, state.done.logprobs, state.live.logprobs[:, 0])
  return jnp.where(valid[:, None], tokens, 0), jnp.where(valid[:, None], logprobs, 0.0)


def _advance(state: State, take_rows, logits, eos, forbidden) -> State:
  """Ends every live sequence for the finished one's sake, then makes each one token longer."""
  B, n, _ = state.live.tokens.shape
  logp = jax.nn.log_softmax(logits, axis=-1)
  allowed = jnp.where(forbidden(state.cache), -jnp.inf, logp)
  is_eos = (jnp.arange(logp.shape[-1]) == eos)[None, :]
  end = jnp.max(jnp.where(is_eos, allowed, -jnp.inf), axis=1).reshape(B, n)
  done = _better(state.done, _ended(state.live, state.step, end, eos))

  # More than n tokens of one sequence cannot be among the n best continuations of all.
  logp, token = jax.lax.top_k(jnp.where(is_eos, -jnp.inf, allowed), n)
  logp, token = logp.reshape(B, n * n), token.reshape(B, n * n)
  score, best = jax.lax.top_k(jnp.repeat(state.live.score, n, axis=1) + logp, n)
  parent = best // n
  live = Sequences(*(_take(x, parent) for x in state.live))
  live = Sequences(
    live.tokens.at[:, :, state.step].set(_take(token, best)),
    live.logprobs.at[:, :, state.step].set(_take(logp, best)),
    score,
  )
  rows = (jnp.arange(B)[:, None] * n + parent).reshape(-1)
  return State(state.step + 1, live, done, take_rows(state.cache, rows))


def _ended(live: Sequences, step, end: Float[Array, "B n"], eos) -> Sequences:
  """The best [B, M] of the live sequences, each with EOS at `step`, log-probability `end`."""
  score = live.score + end
  best = jnp.argmax(score, axis=1)[:, None]
  tokens, logprobs, score, end = (
    _take(x, best)[:, 0] for x in (live.tokens, live.logprobs, score, end)
  )
  return Sequences(tokens.at[:, step].set(eos), logprobs.at[:, step].set(end), score)


def _better(old: Sequences, new: Sequences) -> Sequences:
  """Row by row the one with the higher score; the old one when equal."""
  is_new = new.score > old.score
  pick = lambda a, b: jnp.where(is_new.reshape(-1, *(1,) * (a.ndim - 1)), b, a)
  return jax.tree.map(pick, old, new)


def _take(x: jax.Array, index: Int[Array, "B R"]) -> jax.Array:
  """x[b, index[b]] for every row b."""
  return jax.vmap(lambda x, i: x[i])(x, index)
