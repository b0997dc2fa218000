"""Decoding against the reference's own tokens and log-probabilities (tests/data/golden)."""

import numpy as np
import pytest

from paligemma_jax.decode import generate, samplers
from tests import golden
from tests.decode import golden_batch

LOGP = dict(atol=1e-4, rtol=0)  # as the golden README suggests
NEVER = -1  # an EOS that no token is: rows go on, as the reference's do after their EOS

both = pytest.mark.parametrize("tag", golden.TAGS)


def decode(tag, batch=None, **kwargs):
  model, params = golden_batch.load(tag)
  kwargs.setdefault("max_new_tokens", golden.io(tag)["out_greedy_tokens"].shape[1])
  batch = golden_batch.batch(tag) if batch is None else batch
  return (np.asarray(x) for x in generate.generate(model, params, batch, **kwargs))


def assert_equal_up_to_eos(tokens, logp, want_tokens, want_logp, tol=LOGP, eos=1):
  kept = np.asarray(samplers.until_eos(want_tokens, eos))
  np.testing.assert_array_equal(tokens, np.where(kept, want_tokens, 0))
  np.testing.assert_allclose(logp, np.where(kept, want_logp, 0), **tol)


@both
def test_greedy(tag):
  io = golden.io(tag)
  tokens, logp = decode(tag)
  assert_equal_up_to_eos(tokens, logp, io["out_greedy_tokens"], io["out_greedy_logp"])


@both
def test_greedy_beyond_eos(tag):
  io = golden.io(tag)
  tokens, logp = decode(tag, eos=NEVER)
  np.testing.assert_array_equal(tokens, io["out_greedy_tokens"])
  np.testing.assert_allclose(logp, io["out_greedy_logp"], **LOGP)


@both
def test_masked_tokens_are_never_taken_and_logprobs_stay_those_of_all_tokens(tag):
  io = golden.io(tag)
  vocab = io["out_prefill_logits"].shape[-1]
  for mask in (io["mask_logits"], np.isin(np.arange(vocab), io["mask_logits"])):
    tokens, logp = decode(tag, mask_logits=mask, eos=NEVER)
    np.testing.assert_array_equal(tokens, io["out_greedy_tokens_masked"])
    np.testing.assert_allclose(logp, io["out_greedy_logp_masked"], **LOGP)


@both
def test_rows_that_all_end_early(tag):
  io, rows = golden.io(tag), golden.config(tag)["early_stop_rows"]
  tokens, logp = decode(tag, golden_batch.take(golden_batch.batch(tag), rows))
  want = io["out_greedy_tokens_early_rows"], io["out_greedy_logp_early_rows"]
  assert_equal_up_to_eos(tokens, logp, *want)


@both
def test_bfloat16_cache(tag):
  io = golden.io(tag)
  tokens, logp = decode(tag, eos=NEVER, cache_dtype="bfloat16")
  np.testing.assert_array_equal(tokens, io["out_greedy_tokens_bf16cache"])
  # The reference rounds keys and values before the prompt attends to them, we while storing them:
  # 0.02 apart, the size of the rounding itself.
  np.testing.assert_allclose(logp, io["out_greedy_logp_bf16cache"], atol=0.05, rtol=0)


@both
def test_beams(tag):
  io = golden.io(tag)
  for n in golden.config(tag)["beam_sizes"]:
    tokens, logp = decode(tag, sampler=f"beam:{n}")
    np.testing.assert_array_equal(tokens, io[f"out_beam{n}_tokens"])
    assert (logp[tokens == 0] == 0).all()


@both
def test_beams_with_another_eos(tag):
  io = golden.io(tag)
  for key in (k for k in io if k.startswith("out_beam") and k.endswith("_alt_eos")):
    n = int(key.removeprefix("out_beam").split("_")[0])
    tokens, _ = decode(tag, sampler=f"beam:{n}", eos=int(io["beam_alt_eos"]))
    np.testing.assert_array_equal(tokens, io[key])


@both
def test_greedy_logprobs_belong_to_the_prefill_logits(tag):
  io = golden.io(tag)
  first = io["out_greedy_tokens"][:, 0]
  logp = samplers.logprob(io["out_prefill_logits"][:, 0], first)
  np.testing.assert_allclose(logp, io["out_greedy_logp"][:, 0], **LOGP)
