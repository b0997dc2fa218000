"""How the next token is chosen: samplers by name, and the pure functions behind them.

Letters: B rows, V vocabulary, M new tokens. A row's random numbers come from its own key, folded
with the step, so that they do not depend on what else is in the batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import errors

# Every sampler by the name that users write, with its arguments: NAME:ARGUMENT:…
SAMPLERS = {
  "greedy": (),
  "temperature": ("temperature",),
  "top_k": ("k",),
  "nucleus": ("p",),
  "beam": ("n",),
  "best_of": ("n", "temperature"),
}

# argument -> (type, allowed, allowed in words)
ARGUMENTS = {
  "temperature": (float, lambda x: 0 <= x < float("inf"), "a number >= 0 (0 is greedy)"),
  "k": (int, lambda x: x >= 1, "a whole number >= 1"),
  "p": (float, lambda x: 0 < x <= 1, "a number above 0, at most 1"),
  "n": (int, lambda x: x >= 1, "a whole number >= 1"),
}


@dataclasses.dataclass(frozen=True)
class Sampler:
  """A parsed sampler. Hashable: each one is compiled into a program of its own."""

  name: str = "greedy"  # a key of `SAMPLERS`
  temperature: float = 1.0  # logits are divided by it; 0.0 takes the most likely token
  k: int = 0  # top_k: how many of the most likely tokens stay
  p: float = 1.0  # nucleus: how much probability stays
  n: int = 1  # sequences per row: width of the beam, or number to take the best of


def parse(text: str) -> Sampler:
  """Reads "greedy", "temperature:T", "top_k:K", "nucleus:P", "beam:N" or "best_of:N:T".

  Raises:
    UserError: an unknown name, a wrong number of arguments, or one out of range.
  """
  name, *values = text.split(":")
  if name not in SAMPLERS:
    raise errors.UserError(f'sampler "{text}" is unknown{errors.did_you_mean(name, SAMPLERS)}')
  names = SAMPLERS[name]
  if len(values) != len(names):
    form = ":".join([name, *(n.upper() for n in names)])
    raise errors.UserError(f'sampler "{text}" has {len(values)} arguments; write {form}')
  found = {arg: _argument(text, arg, value) for arg, value in zip(names, values)}
  return Sampler(name, **({"temperature": 0.0} if name == "greedy" else {}) | found)


def _argument(text: str, name: str, value: str) -> int | float:
  kind, is_allowed, words = ARGUMENTS[name]
  try:
    number = kind(value)
  except ValueError:
    number = None
  if number is None or not is_allowed(number):
    raise errors.UserError(f'sampler "{text}": {name} is "{value}"; it must be {words}')
  return number


def choose(
  sampler: Sampler, logits: Float[Array, "B V"], keys: Array, step: Int[Array, ""]
) -> Int[Array, " B"]:
  """The next token of every row.

  Args:
    sampler: any but beam, which chooses among sequences.
    logits: float32; -inf where a token is forbidden.
    keys: one PRNG key per row [B].
    step: number of the token, 0 for the first new one.
  """
  if not sampler.temperature:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / sampler.temperature
  if sampler.name == "top_k":
    logits = jnp.where(top_k_set(logits, sampler.k), logits, -jnp.inf)
  elif sampler.name == "nucleus":
    logits = jnp.where(nucleus_set(logits, sampler.p), logits, -jnp.inf)
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def top_k_set(logits: Float[Array, "*b V"], k: int) -> Bool[Array, "*b V"]:
  """The k most likely tokens, and those that are as likely as the last of them."""
  least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
  return logits >= least


def nucleus_set(logits: Float[Array, "*b V"], p: float) -> Bool[Array, "*b V"]:
  """The most likely tokens that together reach probability `p`; ties with the last one stay.

  Source: arXiv:1904.09751, section 3.1; big_vision predict_fns.py for the ties.
  """
  ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
  reached = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
  last = jnp.sum(reached < p, axis=-1, keepdims=True)
  least = jnp.take_along_axis(ordered, jnp.minimum(last, logits.shape[-1] - 1), axis=-1)
  return logits >= least


def logprob(logits: Float[Array, "B V"], token: Int[Array, " B"]) -> Float[Array, " B"]:
  """Natural logarithm of each row's probability of its token: log softmax, untempered."""
  chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def row_keys(key: Array, rows: Int[Array, " B"], n: int = 1) -> Array:
  """PRNG keys [B * n]: `n` consecutive ones for each row, from the row's own number only."""
  fold = jax.vmap(jax.random.fold_in, (0, None))
  per_row = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
  return jax.vmap(fold, (None, 0), out_axes=1)(per_row, jnp.arange(n)).reshape(-1)


def best_of(
  tokens: Int[Array, "R M"], logprobs: Float[Array, "R M"], n: int, eos: Int[Array, ""] | int
) -> tuple[Int[Array, "B M"], Float[Array, "B M"]]:
  """The best of each `n` consecutive sequences: that with the highest summed log-probability.

  Summed up to and including the first EOS, not divided by the length; the first one wins a tie.

  Returns:
    (tokens, log-probabilities) of the B = R / n chosen ones.
  """
  scores = jnp.sum(jnp.where(until_eos(tokens, eos), logprobs, 0.0), axis=1)
  best = jnp.argmax(scores.reshape(-1, n), axis=1)
  rows = jnp.arange(len(best)) * n + best
  return tokens[rows], logprobs[rows]


def until_eos(tokens: Int[Array, "B M"], eos: Int[Array, ""] | int) -> Bool[Array, "B M"]:
  """True up to and including each row's first EOS; everywhere in a row without one."""
  ended = jnp.cumsum(tokens == eos, axis=1)
  return ended - (tokens == eos) == 0
