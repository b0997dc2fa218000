"""How likely given answers are, exactly: one prefill, then all answers side by side over its cache.

Letters: B rows, A answers of a row, T tokens of a pass. The answers of a row stand one after the
other in the T columns of a pass; a mask keeps each to the prompt and to itself. So no answer is
padded to the length of another, and other answers compile nothing anew.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax import structs
from paligemma_jax.decode import generate
from paligemma_jax.models import loss, paligemma

LONGEST = 256  # T, unless a single answer is longer: longer lists take several passes (chosen)
_SHORTEST = 16


class Pass(NamedTuple):
  """The tokens of one pass; each predicts its target. Unused columns have group -1."""

  token: np.ndarray  # int32[B, T]
  target: np.ndarray  # int32[B, T]
  group: np.ndarray  # int32[B, T]: the number of the row's answer
  depth: np.ndarray  # int32[B, T]: tokens of the answer before this one


def logprobs(
  model: paligemma.PaliGemma,
  params: dict,
  batch: structs.Batch,
  answers: Sequence[Sequence[Sequence[int]]],
  *,
  eos: int = 1,
  fetch: Callable = np.asarray,
) -> list[np.ndarray]:
  """The log-probability of every answer, its EOS included.

  Equal to a forward pass over prompt and answer, hence of the model's own distribution, with the
  final soft-cap when it has one.

  Args:
    model: the module.
    params: its parameters, decoder layers stacked or one by one.
    batch: prompts of B rows.
    answers: for each row its answers, token ids without EOS, as many as there are; an empty answer
      is EOS alone, no answers are what a row that does not matter has.
    eos: the token that ends an answer.
    fetch: array of the devices -> numpy; over several processes it gathers.

  Returns:
    For each row float64[A], natural logarithms.
  """
  params = generate.decode_params(params)
  passes = pack(answers, eos)
  size = passes[0].token.shape[1] if passes else 0
  logits, cache = _prefill(model, params, generate.inputs(batch), size)
  first = _padded([[(*answer, eos)[0] for answer in row] for row in answers])
  firsts = fetch(_first(logits, first))
  found = [firsts[b, : len(row)].astype(np.float64) for b, row in enumerate(answers)]
  for one in passes:
    nll = np.asarray(fetch(_branch(model, params, cache, one)), np.float64)
    for b, sums in enumerate(found):
      used = one.group[b] >= 0
      np.subtract.at(sums, one.group[b][used], nll[b][used])
  return found


def normalised(logprobs: np.ndarray) -> np.ndarray:
  """Probabilities of float64[A] log-probabilities as if there were no other answers."""
  shares = np.exp(logprobs - logprobs.max(initial=-np.inf))
  return shares / shares.sum()


def pack(answers: Sequence[Sequence[Sequence[int]]], eos: int) -> list[Pass]:
  """The passes that all answers take, of one bucketed size; none where all answers are empty."""
  lengths = [len(answer) for row in answers for answer in row]
  totals = [sum(map(len, row)) for row in answers]
  if not any(lengths):
    return []
  size = _bucket(max(*lengths, min(max(totals), LONGEST)))
  passes: list[Pass] = []
  for b, row in enumerate(answers):
    number, column = 0, 0
    for k, answer in enumerate(row):
      if column + len(answer) > size:
        number, column = number + 1, 0
      if number == len(passes):
        blank = np.zeros((len(answers), size), np.int32)
        passes.append(Pass(blank, blank.copy(), blank - 1, blank.copy()))
      part = slice(column, column + len(answer))
      passes[number].token[b, part] = answer
      passes[number].target[b, part] = [*answer, eos][1:]
      passes[number].group[b, part] = k
      passes[number].depth[b, part] = np.arange(len(answer))
      column = part.stop
  return passes


def _padded(rows: list[list[int]]) -> np.ndarray:
  """int32[B, A] of rows of different lengths, A bucketed."""
  out = np.zeros((len(rows), _bucket(max(map(len, rows)))), np.int32)
  for b, row in enumerate(rows):
    out[b, : len(row)] = row
  return out


def _bucket(n: int) -> int:
  return max(_SHORTEST, 1 << (n - 1).bit_length())


@functools.partial(jax.jit, static_argnames=("model", "cache_size"))
def _prefill(model, params, prompt, cache_size):
  return model.apply({"params": params}, **prompt, cache_size=cache_size, method="prefill")


@jax.jit
def _first(logits, token):
  chosen = jnp.take_along_axis(logits, token, axis=1)
  return chosen - jax.nn.logsumexp(logits, axis=1, keepdims=True)


@functools.partial(jax.jit, static_argnames="model")
def _branch(model, params, cache, one):
  hidden = model.apply({"params": params}, one.token, cache, one.group, one.depth, method="branch")
  return loss.token_nll(
    hidden,
    params["llm"]["embedder"]["input_embedding"],
    one.target,
    final_logits_softcap=model.config.llm.final_logits_softcap,
    dtype=model.dtype,
  )
