"""Samplers: what users may write, which tokens may be drawn, and from which random numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.decode import samplers
from tests import golden

OPS = golden.io("ops")


@pytest.mark.parametrize(
  "text, want",
  [
    ("greedy", samplers.Sampler("greedy", temperature=0.0)),
    ("temperature:0.5", samplers.Sampler("temperature", temperature=0.5)),
    ("top_k:40", samplers.Sampler("top_k", k=40)),
    ("nucleus:0.9", samplers.Sampler("nucleus", p=0.9)),
    ("beam:4", samplers.Sampler("beam", n=4)),
    ("best_of:8:0.7", samplers.Sampler("best_of", n=8, temperature=0.7)),
  ],
)
def test_parse(text, want):
  assert samplers.parse(text) == want


@pytest.mark.parametrize(
  "text, message",
  [
    ("gredy", 'sampler "gredy" is unknown; did you mean "greedy"?'),
    ("beam", 'sampler "beam" has 0 arguments; write beam:N'),
    ("best_of:3", 'sampler "best_of:3" has 1 arguments; write best_of:N:TEMPERATURE'),
    ("beam:0", 'n is "0"; it must be a whole number >= 1'),
    ("beam:2.5", 'n is "2.5"; it must be a whole number >= 1'),
    ("nucleus:1.5", 'p is "1.5"; it must be a number above 0, at most 1'),
    ("temperature:nan", 'temperature is "nan"; it must be a number >= 0'),
    ("temperature:-1", 'temperature is "-1"; it must be a number >= 0'),
  ],
)
def test_a_wrong_sampler_says_what_is_wrong(text, message):
  with pytest.raises(errors.UserError, match=message.replace("?", r"\?")):
    samplers.parse(text)


@pytest.mark.parametrize("key", [k for k in OPS if k.startswith("nucleus/keep")])
def test_nucleus_keeps_the_same_tokens_as_the_reference(key):
  p, t = (float(x[1:]) for x in key.split("_")[1:])
  kept = samplers.nucleus_set(OPS["nucleus/logits"] / t, p)
  np.testing.assert_array_equal(kept, OPS[key])


def test_nucleus_of_everything_and_of_nothing():
  logits = jnp.array([0.0, 2.0, -jnp.inf, 1.0])
  assert samplers.nucleus_set(logits, 1.0)[jnp.array([0, 1, 3])].all()
  np.testing.assert_array_equal(samplers.nucleus_set(logits, 1e-6), [False, True, False, False])


def test_top_k_keeps_ties_with_the_last():
  logits = jnp.array([3.0, 1.0, 2.0, 2.0])
  np.testing.assert_array_equal(samplers.top_k_set(logits, 1), [True, False, False, False])
  np.testing.assert_array_equal(samplers.top_k_set(logits, 2), [True, False, True, True])
  assert samplers.top_k_set(logits, 9).all()


def test_best_of_as_the_reference():
  for n in (int(k.rsplit("n", 1)[1]) for k in OPS if k.startswith("bon/selected_tokens_n")):
    tokens, logp = samplers.best_of(OPS["bon/tokens"], OPS["bon/logp"], n, eos=1)
    np.testing.assert_array_equal(tokens, OPS[f"bon/selected_tokens_n{n}"])
    np.testing.assert_array_equal(logp, OPS[f"bon/selected_logp_n{n}"])
  scores = jnp.sum(OPS["bon/logp"] * samplers.until_eos(OPS["bon/tokens"], 1), axis=1)
  np.testing.assert_allclose(scores, OPS["bon/scores"], rtol=1e-6)


def test_until_eos_includes_the_first_eos_only():
  tokens = jnp.array([[5, 1, 7, 1], [5, 6, 7, 8], [1, 1, 0, 0]])
  want = [[True, True, False, False], [True] * 4, [True, False, False, False]]
  np.testing.assert_array_equal(samplers.until_eos(tokens, 1), want)


def draws(text, logits, n=2000):
  keys = samplers.row_keys(jax.random.key(0), jnp.arange(n))
  many = jnp.broadcast_to(jnp.asarray(logits), (n, len(logits)))
  return np.asarray(samplers.choose(samplers.parse(text), many, keys, jnp.int32(0)))


def test_temperature_draws_with_the_tempered_probabilities():
  logits = np.log([0.5, 0.3, 0.2])
  for t in (1.0, 0.5):
    share = np.bincount(draws(f"temperature:{t}", logits), minlength=3) / 2000
    want = np.exp(logits / t) / np.exp(logits / t).sum()
    np.testing.assert_allclose(share, want, atol=0.04)  # four standard deviations


def test_top_k_and_nucleus_draw_only_from_their_sets():
  logits = np.log([0.5, 0.3, 0.15, 0.05])
  assert set(draws("top_k:2", logits)) == {0, 1}
  assert set(draws("nucleus:0.9", logits)) == {0, 1, 2}
  assert set(draws("temperature:0", logits)) == {0}


def test_a_rows_random_numbers_depend_on_its_own_number_only():
  key = jax.random.key(3)
  data = lambda keys: np.asarray(jax.random.key_data(keys))
  five = data(samplers.row_keys(key, jnp.arange(5), n=2)).reshape(5, 2, -1)
  np.testing.assert_array_equal(data(samplers.row_keys(key, jnp.array([3]), n=2)), five[3])
  np.testing.assert_array_equal(data(samplers.row_keys(key, jnp.arange(5), n=1)), five[:, 0])
  assert len({x.tobytes() for x in five.reshape(10, -1)}) == 10


def test_samplers_that_mean_the_same_agree():
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(50, 7)), jnp.float32)
  keys = samplers.row_keys(jax.random.key(1), jnp.arange(50))
  drawn = lambda text: samplers.choose(samplers.parse(text), logits, keys, jnp.int32(2)).tolist()
  for name in ("temperature:0", "top_k:1", "nucleus:0.000001", "best_of:1:0", "best_of:4:0"):
    assert drawn(name) == drawn("greedy"), name
  for name in ("top_k:7", "top_k:99", "nucleus:1.0", "best_of:1:1"):
    assert drawn(name) == drawn("temperature:1"), name
