"""Answers to a batch of prompts: prefill and the decode loop, compiled as one program.

Letters: B rows, V vocabulary, M new tokens, n sequences per row (beam, best of n). The KV cache
is a value inside the program; the host is not asked between tokens. How fast, and why so:
docs/decode.md.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import errors, structs
from paligemma_jax.decode import beam, grammar, samplers
from paligemma_jax.models import kv_cache, paligemma


class State(NamedTuple):
  """What the loop of all samplers but beam carries."""

  step: Int[Array, ""]  # tokens chosen so far
  token: Int[Array, " B"]  # the newest, 0 in rows that are done
  done: Bool[Array, " B"]  # has had its EOS, or does not matter
  tokens: Int[Array, "B M"]
  logprobs: Float[Array, "B M"]
  cache: Any  # of all tokens but the newest


def generate(
  model: paligemma.PaliGemma,
  params: dict,
  batch: structs.Batch,
  *,
  max_new_tokens: int,
  sampler: str = "greedy",
  seed: int = 0,
  rows: Sequence[int] | np.ndarray | None = None,
  mask_logits: Sequence[int] | np.ndarray | None = None,
  rules: grammar.Grammar | None = None,
  eos: int = 1,
  cache_dtype: str | None = None,
) -> tuple[Int[Array, "B M"], Float[Array, "B M"]]:
  """Continues every row of the batch.

  One program per model, shapes, sampler and max_new_tokens; seed, rows, eos and mask_logits do
  not compile anew. A prompt that holds the beginning of an answer (`mask_ar` 1) goes on from there.

      tokens, logprobs = generate(model, params, batch, max_new_tokens=20, sampler="nucleus:0.9")

  Args:
    model: the module.
    params: its parameters, decoder layers stacked or one by one (`paligemma.unstack_layers`).
    batch: prompts of B rows; `mask_loss` is not read. Rows with `valid` False stay blank.
    max_new_tokens: M.
    sampler: "greedy", "temperature:T", "top_k:K", "nucleus:P", "beam:N" or "best_of:N:T".
    seed: of the random samplers. What is drawn for a row depends on `seed` and on its number in
      `rows`, never on the other rows, on padding or on the batch size.
    rows: int[B], number of each row; None for 0 … B-1. Give positions in the whole data set to
      make samples independent of how it is cut into batches.
    mask_logits: tokens that are never taken: ids, or bool[V] with True for these.
    rules: what the answers may be, of `grammar.build` with the same `max_new_tokens`; None:
      anything. Its values do not compile anew, its sizes do.
    eos: the token that ends an answer; -1 for none.
    cache_dtype: of keys and values; None for the compute dtype. (The reference's is bfloat16.)

  Returns:
    (tokens int32[B, M], log-probabilities float32[B, M]): EOS is included, everything after it is
    0. Log-probabilities are natural, of the model's own distribution: neither masked nor
    tempered, with the final soft-cap when the model has one.

  Raises:
    UserError: an unknown sampler, a mask that names no token or leaves none, a mask and rules.
  """
  _check_count(max_new_tokens)
  vocab_size = model.config.llm.vocab_size
  chosen = samplers.parse(sampler)
  if chosen.name == "beam" and chosen.n >= vocab_size:
    raise errors.UserError(f'sampler "{sampler}": only {vocab_size} tokens; use fewer beams')
  rows = np.arange(len(batch.text)) if rows is None else np.asarray(rows)
  return _generate(
    model,
    decode_params(params),
    inputs(batch),
    batch.valid,
    jax.random.key(seed),
    rows,
    _limits(mask_logits, rules, vocab_size),
    np.int32(eos),
    sampler=chosen,
    max_new_tokens=max_new_tokens,
    cache_dtype=cache_dtype,
  )


def lower(
  model: paligemma.PaliGemma,
  params: dict,
  batch: structs.Batch,
  *,
  max_new_tokens: int,
  sampler: str = "greedy",
  cache_dtype: str | None = None,
) -> jax.stages.Lowered:
  """The program that `generate` runs, of shapes alone: nothing is computed.

  Args:
    model: the module.
    params, batch: `jax.ShapeDtypeStruct`s with the shardings of what they stand for.
    max_new_tokens, sampler, cache_dtype: as `generate`.
  """
  vocab_size = model.config.llm.vocab_size
  return _generate.lower(
    model,
    decode_params(params),
    inputs(batch),
    batch.valid,
    jax.eval_shape(jax.random.key, 0),
    np.arange(len(batch.text)),
    _limits(None, None, vocab_size),
    np.int32(1),
    sampler=samplers.parse(sampler),
    max_new_tokens=max_new_tokens,
    cache_dtype=cache_dtype,
  )


def stream(
  model: paligemma.PaliGemma,
  params: dict,
  batch: structs.Batch,
  *,
  max_new_tokens: int,
  sampler: str = "greedy",
  seed: int = 0,
  mask_logits: Sequence[int] | np.ndarray | None = None,
  rules: grammar.Grammar | None = None,
  eos: int = 1,
  cache_dtype: str | None = None,
) -> Iterator[int]:
  """Yields the tokens of one answer as they come, the same as `generate`'s, EOS included.

  The next token is computed while the caller handles this one. Arguments as `generate`.

  Raises:
    UserError: as `generate`; also for beam and best_of, which know their answer only at the end.
    ValueError: the batch has more than one row.
  """
  _check_count(max_new_tokens)
  chosen = samplers.parse(sampler)
  if chosen.name in ("beam", "best_of"):
    raise errors.UserError(f'sampler "{sampler}" cannot stream; use greedy or a random sampler')
  if len(batch.text) != 1:
    raise ValueError(f"stream answers one row, the batch has {len(batch.text)}")
  common = dict(model=model, sampler=chosen)
  params = decode_params(params)
  limits = _limits(mask_logits, rules, model.config.llm.vocab_size)
  keys = samplers.row_keys(jax.random.key(seed), jnp.arange(1))
  args = (keys, limits, np.int32(eos))
  state, cache = _stream_first(
    params,
    inputs(batch),
    *args,
    **common,
    cache_size=max_new_tokens,
    cache_dtype=cache_dtype,
  )
  for step in range(1, max_new_tokens + 1):
    token, done = state
    if step < max_new_tokens:
      state, cache = _stream_next(params, state, cache, np.int32(step), *args, **common)
    yield int(token[0])
    if done[0]:
      return


def decode_params(params: dict) -> dict:
  """The layout in which the loop reads weights fastest without a second copy of them.

  On a single CPU device stacked layers become views, one per layer; a product there cannot read a
  slice in place and would copy every weight for every token. Elsewhere they stay as they are.
  """
  layers = params["llm"]["layers"]
  if "0" in layers:
    return params
  where = [x.sharding for x in jax.tree.leaves(layers) if hasattr(x, "sharding")]
  devices = set().union(*(s.device_set for s in where))
  is_cpu = len(devices) == 1 and devices.pop().platform == "cpu"
  return paligemma.unstack_layers(params) if is_cpu else params


def run(
  extend: Callable,
  logits: Float[Array, "B V"],
  cache: Any,
  valid: Bool[Array, " B"],
  choose: Callable,
  *,
  max_new_tokens: int,
  eos: Int[Array, ""] | int,
) -> State:
  """The decode loop: until every valid row has had its EOS, at most `max_new_tokens` tokens.

  Args:
    extend: (token int32[B], cache) -> (logits float32[B, V], cache).
    logits: of the first new token.
    cache: after the prompt.
    valid: False for rows that do not matter: they stay blank and never hold the loop.
    choose: (logits, step, cache) -> token int32[B].
    max_new_tokens: M.
    eos: token that ends an answer.
  """

  def record(state, logits, cache):
    token = jnp.where(state.done, 0, choose(logits, state.step, cache))
    logprob = jnp.where(state.done, 0.0, samplers.logprob(logits, token))
    return State(
      state.step + 1,
      token,
      state.done | (token == eos),
      state.tokens.at[:, state.step].set(token),
      state.logprobs.at[:, state.step].set(logprob),
      cache,
    )

  B = len(valid)
  tokens = jnp.zeros((B, max_new_tokens), jnp.int32)
  start = State(jnp.int32(0), tokens[:, 0], ~valid, tokens, jnp.zeros((B, max_new_tokens)), cache)
  return jax.lax.while_loop(
    lambda state: (state.step < max_new_tokens) & ~jnp.all(state.done),
    lambda state: record(state, *extend(state.token, state.cache)),
    record(start, logits, cache),
  )


@functools.partial(jax.jit, static_argnames=("model", "sampler", "max_new_tokens", "cache_dtype"))
def _generate(
  model,
  params,
  prompt,
  valid,
  key,
  rows,
  limits,
  eos,
  *,
  sampler,
  max_new_tokens,
  cache_dtype,
):
  """The whole program. `prompt` are the keyword arguments of the model's `prefill`."""
  extend = functools.partial(_extend, model, params, limits)
  logits, cache = _prefill(model, params, limits, prompt, max_new_tokens, cache_dtype)
  ends = dict(max_new_tokens=max_new_tokens, eos=eos)
  if sampler.name == "beam":
    forbidden = functools.partial(_forbidden, limits)
    return beam.search(
      extend, _take_rows, logits, cache, valid, n=sampler.n, forbidden=forbidden, **ends
    )
  keys = samplers.row_keys(key, rows, sampler.n)
  if sampler.n > 1:
    copies = jnp.repeat(jnp.arange(len(rows)), sampler.n)
    logits, cache, valid = logits[copies], _take_rows(cache, copies), valid[copies]
  choose = functools.partial(_choose, sampler, limits, keys)
  state = run(extend, logits, cache, valid, choose, **ends)
  return samplers.best_of(state.tokens, state.logprobs, sampler.n, eos)


@functools.partial(jax.jit, static_argnames=("model", "sampler", "cache_size", "cache_dtype"))
def _stream_first(params, prompt, keys, limits, eos, *, model, sampler, cache_size, cache_dtype):
  logits, cache = _prefill(model, params, limits, prompt, cache_size, cache_dtype)
  token = _choose(sampler, limits, keys, logits, jnp.int32(0), cache)
  return (token, token == eos), cache


@functools.partial(jax.jit, static_argnames=("model", "sampler"), donate_argnames="cache")
def _stream_next(params, state, cache, step, keys, limits, eos, *, model, sampler):
  token, _ = state
  logits, cache = _extend(model, params, limits, token, cache)
  token = _choose(sampler, limits, keys, logits, step, cache)
  return (token, token == eos), cache


# With a grammar, what the loop carries as its cache is the KV cache and the rows' places in it.


def _prefill(model, params, limits, prompt, cache_size, cache_dtype):
  logits, kv = model.apply(
    {"params": params}, **prompt, cache_size=cache_size, cache_dtype=cache_dtype, method="prefill"
  )
  has_rules = isinstance(limits, grammar.Grammar)
  return logits, (kv, grammar.begin(limits, cache_size) if has_rules else None)


def _extend(model, params, limits, token, cache):
  kv, place = cache
  logits, kv = model.apply({"params": params}, token, kv, method="extend")
  return logits, (kv, None if place is None else grammar.step(limits, place, token))


def _take_rows(cache, rows):
  kv, place = cache
  return kv_cache.take_rows(kv, rows), jax.tree.map(lambda x: x[rows], place)


def _forbidden(limits, cache):
  _, place = cache
  return limits[None] if place is None else ~grammar.allowed(limits, place)


def _choose(sampler, limits, keys, logits, step, cache):
  logits = jnp.where(_forbidden(limits, cache), -jnp.inf, logits)
  return samplers.choose(sampler, logits, keys, step)


def inputs(batch: structs.Batch) -> dict:
  """A batch as the keyword arguments of the model's `prefill`."""
  names = ("image", "text", "mask_ar", "mask_input", "mask_image")
  return {name: getattr(batch, name) for name in names}


def _check_count(max_new_tokens: int):
  if max_new_tokens < 1:
    raise errors.UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")


def _limits(mask_logits, rules, vocab_size: int) -> np.ndarray | grammar.Grammar:
  """The rules, else bool[V] from ids, bool[V] or None: a mask does not compile anew."""
  if rules is not None:
    if mask_logits is not None:
      raise errors.UserError("mask_logits could take away all that the grammar allows; give one")
    return rules
  if mask_logits is None:
    return np.zeros(vocab_size, bool)
  mask = np.asarray(mask_logits)
  if mask.dtype != bool:
    ids, mask = mask.astype(np.int64), np.zeros(vocab_size, bool)
    if ids.size and not (0 <= ids.min() and ids.max() < vocab_size):
      raise errors.UserError(
        f"mask_logits has token {ids.max() if ids.max() >= vocab_size else ids.min()}; "
        f"tokens are 0 to {vocab_size - 1}"
      )
    mask[ids] = True
  if mask.shape != (vocab_size,):
    raise errors.UserError(f"mask_logits has shape {mask.shape}; give ids or bool[{vocab_size}]")
  if mask.all():
    raise errors.UserError("mask_logits forbids every token; leave at least one")
  return mask
