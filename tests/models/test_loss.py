"""The loss that never holds all logits, against the plain one that does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax.models import attention, loss

B, T, D, V = 3, 8, 16, 96


def plain_nll(hidden, table, targets, smoothing=0.0, cap=0.0):
  """Label smoothing written out as a cross entropy with a dense target."""
  logp = jax.nn.log_softmax(attention.soft_capped(jnp.einsum("BTD,VD->BTV", hidden, table), cap))
  target = jax.nn.one_hot(targets, table.shape[0])
  target = jnp.where(target > 0, 1 - smoothing, smoothing / (table.shape[0] - 1))
  return -jnp.sum(target * logp, axis=-1)


def per_example(nll, weights):
  return jnp.mean(jnp.sum(nll * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1))


def per_token(nll, weights):
  return jnp.sum(nll * weights) / jnp.sum(weights)


@pytest.fixture(scope="module")
def data():
  """hidden, table, targets, weights; row 1 has no supervised token, row 2 only the last one."""
  rng = np.random.default_rng(0)
  hidden, table = (rng.normal(size=s).astype(np.float32) for s in ((B, T, D), (V, D)))
  weights = np.zeros((B, T), np.float32)
  weights[0, 3:6] = weights[2, 7] = 1
  return hidden, table, rng.integers(V, size=(B, T)), weights


@pytest.mark.parametrize("mean", [per_example, per_token])
@pytest.mark.parametrize("smoothing, cap", [(0.0, 0.0), (0.1, 0.0), (0.0, 3.0), (0.2, 3.0)])
@pytest.mark.parametrize("shards, pieces", [((1, 1), 1), ((1, 1), 8), ((1, 4), 3), ((1, 4), 5)])
def test_value_and_gradients_are_those_of_the_plain_loss(
  data, mean, smoothing, cap, shards, pieces
):
  hidden, table, targets, weights = data

  def ours(hidden, table):
    nll = loss.token_nll(hidden, table, targets, smoothing, cap, shards=shards, pieces=pieces)
    return mean(nll, weights)

  def plain(hidden, table):
    return mean(plain_nll(hidden, table, targets, smoothing, cap), weights)

  got, got_grads = jax.value_and_grad(ours, (0, 1))(hidden, table)
  want, want_grads = jax.value_and_grad(plain, (0, 1))(hidden, table)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  for a, b in zip(got_grads, want_grads):
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize(
  "rows, least, pieces",
  [
    (257_152, 0, 1),
    (257_152, 5, 7),  # the next divisor
    (257_152, 16, 28),
    (257_219, 16, 17),  # a prime: the last piece repeats some rows, which do not count again
    (2 * 128_603, 16, 17),  # twice a prime
    (3, 9, 3),
  ],
)
def test_a_vocabulary_is_walked_through_in_about_as_many_pieces_as_it_takes(rows, least, pieces):
  assert loss._pieces(rows, least) == pieces


@pytest.mark.parametrize("window", [3, 5, T, 2 * T, None])
def test_a_window_that_holds_all_supervised_tokens_changes_nothing(data, window):
  hidden, table, targets, weights = data
  rows = loss.supervised(weights, window)
  assert rows.shape == (B, min(window or T, T))
  targets, picked = (np.take_along_axis(x, rows, axis=1) for x in (targets, weights))
  nll = loss.token_nll(np.take_along_axis(hidden, rows[..., None], axis=1), table, targets)
  want = plain_nll(*data[:3]) * weights
  np.testing.assert_allclose(jnp.sum(nll * picked, axis=1), want.sum(axis=1), rtol=1e-6)


def test_the_temporaries_are_a_tenth_of_the_plain_ones():
  shapes = (8, 128, 2048), (257_152, 2048), (8, 128), (8, 128)
  kinds = jnp.float32, jnp.float32, jnp.int32, jnp.float32
  args = [jax.ShapeDtypeStruct(s, k) for s, k in zip(shapes, kinds)]

  def plain(hidden, table, targets, weights):
    logits = jnp.einsum("BTD,VD->BTV", hidden, table)
    right = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return per_example(jax.nn.logsumexp(logits, axis=-1) - right, weights)

  def ours(hidden, table, targets, weights):
    return per_example(loss.token_nll(hidden, table, targets), weights)

  def temporaries(fn, argnums):
    compiled = jax.jit(jax.value_and_grad(fn, argnums)).lower(*args).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  most = temporaries(plain, 0) / 10
  assert temporaries(ours, 0) <= most
  assert temporaries(ours, (0, 1)) <= most  # the table's gradient is built in its own place
