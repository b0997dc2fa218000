"""The decode loop and the beam search with a scripted model instead of a network.

The script is a table of logits; its "cache" counts how often it was asked.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.decode import beam, generate
from tests import golden

OPS = golden.io("ops")
EOS = 1


def forced(tokens):
  """Logits [M, B, V] under which greedy decoding writes `tokens` [B, M]."""
  return 10.0 * jax.nn.one_hot(jnp.asarray(tokens).T, 10)


def run(logits, valid, eos=EOS):
  """(tokens, number of tokens after which the loop stopped)."""
  extend = lambda token, step: (logits[step + 1], step + 1)
  state = generate.run(
    extend,
    logits[0],
    jnp.int32(0),
    jnp.asarray(valid),
    lambda logits, step, cache: jnp.argmax(logits, axis=-1).astype(jnp.int32),
    max_new_tokens=len(logits),
    eos=eos,
  )
  assert state.cache == state.step - 1  # the last token is not put through the model
  return np.asarray(state.tokens), int(state.step)


@pytest.mark.parametrize("case", range(len(OPS["stop/cases_mask"])))
def test_the_loop_stops_when_the_reference_does(case):
  tokens, valid = OPS["stop/tokens"], OPS["stop/cases_mask"][case]
  seen = int(OPS["stop/seqlen"][0, 0])
  _, steps = run(forced(tokens[:, : seen + 1]), valid)
  assert (steps <= seen) == OPS["stop/done"][case]


def test_a_row_is_blank_after_its_eos_while_others_go_on():
  tokens, steps = run(forced([[5, 1, 7, 7], [5, 6, 7, 1]]), [True, True])
  assert steps == 4
  np.testing.assert_array_equal(tokens, [[5, 1, 0, 0], [5, 6, 7, 1]])


def test_rows_that_do_not_count_stay_blank_and_hold_nothing():
  tokens, steps = run(forced([[5, 1, 7, 7], [5, 6, 7, 8]]), [True, False])
  assert steps == 2
  np.testing.assert_array_equal(tokens, [[5, 1, 0, 0], [0, 0, 0, 0]])


def test_without_an_eos_the_loop_runs_to_the_end():
  tokens, steps = run(forced([[5, 1, 0, 7]]), [True], eos=-1)
  assert steps == 4
  np.testing.assert_array_equal(tokens, [[5, 1, 0, 7]])


V, M = 5, 4


def markov(seed, rows=3):
  """A model whose next token depends on the row and the last token: logits [rows, V + 1, V]."""
  return jnp.asarray(2 * np.random.default_rng(seed).normal(size=(rows, V + 1, V)), jnp.float32)


def search(table, n, eos=EOS, valid=None, forbidden=None):
  valid = jnp.ones(len(table), bool) if valid is None else jnp.asarray(valid)
  forbidden = jnp.zeros(V, bool) if forbidden is None else forbidden
  return _search(table, valid, forbidden, eos, n)


@functools.partial(jax.jit, static_argnums=4)
def _search(table, valid, forbidden, eos, n):
  rows = len(table)
  extend = lambda token, row: (table[row, token], row)
  return beam.search(
    extend,
    lambda row, index: row[index],
    table[:, V],  # the state before the first token
    jnp.arange(rows),
    valid,
    n=n,
    max_new_tokens=M,
    eos=eos,
    forbidden=lambda row: forbidden[None],
  )


def every_sequence(table, row):
  """(summed log-probability, tokens) of everything that ends with EOS within M tokens."""
  logp = np.asarray(jax.nn.log_softmax(table[row], axis=-1))
  others = [t for t in range(V) if t != EOS]
  for length in range(M):
    for start in itertools.product(others, repeat=length):
      tokens = (*start, EOS)
      yield sum(logp[a, b] for a, b in zip((V, *start), tokens)), tokens


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_most_likely_of_all_sequences(seed):
  table = markov(seed)
  table = table.at[:, :, EOS].add(-1.0)  # else the empty answer wins too often
  tokens, logp = search(table, n=4)  # 4 tokens that are not EOS: nothing is ever cut at M = 4
  for row in range(len(table)):
    score, want = max(every_sequence(table, row))
    np.testing.assert_array_equal(tokens[row], [*want, *[0] * (M - len(want))])
    np.testing.assert_allclose(logp[row].sum(), score, atol=1e-5)


def test_beam_of_one_is_the_best_end_along_the_greedy_path():
  table = markov(7)
  tokens, logp = search(table, n=1)
  for row in range(len(table)):
    logps = np.asarray(jax.nn.log_softmax(table[row], axis=-1))
    last, path, score, ends = V, [], 0.0, []
    for _ in range(M):
      ends.append((score + logps[last, EOS], [*path, EOS]))
      following = max((t for t in range(V) if t != EOS), key=lambda t: logps[last, t])
      path, score, last = [*path, following], score + logps[last, following], following
    score, want = max(ends)
    np.testing.assert_array_equal(tokens[row, : len(want)], want)
    np.testing.assert_allclose(logp[row].sum(), score, atol=1e-5)


def test_beams_of_a_row_depend_on_no_other_row():
  table = markov(8, rows=5)
  together = search(table, n=2)[0]
  for row in range(5):
    np.testing.assert_array_equal(search(table[row : row + 1], n=2)[0][0], together[row])


def test_beams_without_an_eos_are_the_most_likely_sequences_of_full_length():
  table = markov(9)
  impossible = jnp.arange(V) == EOS
  for kwargs in (dict(eos=-1), dict(forbidden=impossible)):
    tokens, logp = search(table, n=4, **kwargs)
    assert tokens.shape == (3, M) and np.isfinite(logp).all() and (logp < 0).all()
  assert not (tokens == EOS).any()


def test_beams_take_no_forbidden_token_and_leave_invalid_rows_blank():
  forbidden = jnp.arange(V) == 3
  tokens, logp = search(markov(10), n=2, valid=[True, False, True], forbidden=forbidden)
  assert not (tokens == 3).any()
  assert not tokens[1].any() and not logp[1].any()
