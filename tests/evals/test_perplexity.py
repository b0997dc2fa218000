import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import sharding, structs
from paligemma_jax.evals import perplexity
from paligemma_jax.metrics import likelihood
from paligemma_jax.models import loss, paligemma
from tests import golden, toy
from tests.metrics import golden as golden_metrics


def _terms(logits, text, mask_loss):
  """The evaluator's numbers from logits: with the identity as table they are the hidden states."""
  table = jnp.eye(logits.shape[-1])
  nll = loss.token_nll(jnp.asarray(logits), table, jnp.asarray(text[:, 1:]))
  weights = None if mask_loss is None else jnp.asarray(mask_loss[:, 1:], jnp.float32)
  return perplexity.terms(nll, weights)


def test_golden_evaluator():
  with np.load(golden.DIR / "ops_io.npz") as f:
    io = {k.removeprefix("ppl/"): f[k] for k in f.files if k.startswith("ppl/")}
  total, mean = _terms(io["logits"], io["text"], io["mask_loss"])
  np.testing.assert_allclose(total, io["sum"], atol=1e-4)
  np.testing.assert_allclose(mean, io["avg"], atol=1e-4)


def test_golden_metrics():
  data = golden_metrics.load("perplexity")
  logits = np.asarray(data["logits"], np.float32)
  total, mean = _terms(logits, np.asarray(data["text"]), np.asarray(data["mask_loss"]))
  np.testing.assert_allclose(total, data["sum"], atol=1e-6)
  np.testing.assert_allclose(mean, data["avg"], atol=1e-6)
  rows = [{"nll_sum": float(s), "nll_avg": float(a)} for s, a in zip(total, mean)]
  assert likelihood.perplexity(rows) == pytest.approx(data["evaluator_mean"], abs=1e-6)


def test_uniform_logits_of_four_words():
  total, mean = _terms(np.zeros((1, 4, 4), np.float32), np.zeros((1, 5), int), np.ones((1, 5)))
  assert total.tolist() == pytest.approx([4 * np.log(4)])
  assert mean.tolist() == pytest.approx([np.log(4)])


def test_without_weights_every_token_counts():
  logits, text = np.zeros((1, 3, 4), np.float32), np.zeros((1, 4), int)
  assert float(_terms(logits, text, None)[0][0]) == pytest.approx(3 * np.log(4))


def test_without_supervised_tokens_it_is_zero():
  total, mean = _terms(np.zeros((1, 3, 4), np.float32), np.zeros((1, 4), int), np.zeros((1, 4)))
  assert (total[0], mean[0]) == (0, 0)


@pytest.mark.parametrize("cap", [0.0, 0.5])  # none, and half a nat
def test_the_step_equals_the_logits_of_the_model(cap):
  cfg = toy.config(vocab_size=60, final_logits_softcap=cap)
  model = paligemma.PaliGemma(cfg)
  params = sharding.unflatten({k: jnp.asarray(v) for k, v in toy.flat_params(cfg).items()})
  rng = np.random.default_rng(0)
  text = rng.integers(3, 60, (2, 6)).astype(np.int32)
  mask_loss = np.array([[0, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 1]], np.float32)
  batch = structs.Batch(
    image=rng.integers(0, 255, (2, 28, 28, 3), dtype=np.uint8),
    mask_image=np.ones((2, 1), bool),
    text=text,
    mask_ar=mask_loss.astype(np.int32),
    mask_input=np.ones((2, 6), bool),
    mask_loss=mask_loss,
    valid=np.ones(2, bool),
  )
  total, mean = perplexity.nll_terms(model, params, batch)
  logits, _ = model.apply({"params": params}, batch.image, text[:, :-1], batch.mask_ar[:, :-1])
  logp = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), text[:, 1:, None], 2)[..., 0]
  want = -(logp * mask_loss[:, 1:]).sum(1)
  np.testing.assert_allclose(total, want, rtol=1e-4)
  np.testing.assert_allclose(mean, want / [2, 4], rtol=1e-4)


def test_rows_without_an_answer_do_not_count_and_what_is_no_number_is_infinite():
  rows = [{"suffix": s, "nll_sum": 2.0, "nll_avg": 1.0} for s in ("a", ["b"])]
  none = [{"suffix": s, "nll_sum": 9.0, "nll_avg": 9.0} for s in (None, [])]
  assert likelihood.perplexity(rows + none) == {"sum": 2.0, "avg": 1.0}
  broken = rows[0] | {"nll_sum": float("nan"), "nll_avg": float("nan")}
  assert likelihood.perplexity([*rows, broken]) == {"sum": np.inf, "avg": np.inf}


def test_padding_rows_of_the_last_batch_do_not_count():
  batch = types.SimpleNamespace(valid=np.array([True, False]))
  step = lambda batch: (np.array([3.0, 100.0]), np.array([1.0, 100.0]))
  rows = list(perplexity.measure([(batch, [{"id": 7}])], step))
  assert rows == [{"id": 7, "nll_sum": 3.0, "nll_avg": 1.0}]
  assert likelihood.perplexity(rows) == {"sum": 3.0, "avg": 1.0}
