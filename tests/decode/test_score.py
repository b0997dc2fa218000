"""Log-probabilities of given answers against a forward pass over each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import paligemma_jax as pg
from paligemma_jax import errors, sharding, vlm
from paligemma_jax.decode import generate, grammar, score
from paligemma_jax.models import paligemma
from paligemma_jax.processing import processor
from tests import toy
from tests.decode.test_generate import prompts

V, EOS = 64, 1
# Lengths 0 to 8; [7, 9, 4] begins with [7, 9] and [7].
ANSWERS = [
  [[7], [7, 9], [7, 9, 4], [], [5, 6, 7, 8]],
  [[11] * 5, [12, 13, 14, 15, 16, 17], [9, 8, 7, 6, 5, 4, 3], [3, 1 + 1, 3, 9, 9, 3, 7, 8]],
  [[20, 21], [20, 21]],
]
FAMILIES = [
  ("paligemma", {}),
  ("paligemma2", {}),
  ("paligemma2", {"final_logits_softcap": 2.0, "sliding_window": 5}),
]


@functools.cache
def build(family, settings):
  config = toy.config(family, vocab_size=V, **dict(settings))
  flat = {k: jnp.asarray(v) for k, v in toy.flat_params(config).items()}
  return paligemma.PaliGemma(config), sharding.unflatten(flat)


def reference(model, params, batch, answers):
  """The same, from one forward pass over prompt, answer and EOS for every answer."""
  found = []
  for b, row in enumerate(answers):
    found.append([])
    n = int(batch.mask_input[b].sum())
    for answer in row:
      text, mask_ar, is_token = (np.zeros((1, 20), x) for x in (np.int32, np.int32, bool))
      ids = [*answer, EOS]
      text[0, : n + len(ids)] = [*batch.text[b, :n], *ids]
      mask_ar[0, n:] = 1
      is_token[0, : n + len(ids)] = True
      logits, _ = _forward(model)(params, batch.image[b : b + 1], text, mask_ar, is_token)
      logp = np.asarray(jax.nn.log_softmax(logits[0], axis=-1), np.float64)
      found[-1].append(sum(logp[n - 1 + i, t] for i, t in enumerate(ids)))
  return found


@functools.cache
def _forward(model):
  return jax.jit(lambda params, *args: model.apply({"params": params}, *args))


@pytest.mark.parametrize("family, settings", FAMILIES)
@pytest.mark.parametrize("longest", [score.LONGEST, 16])
def test_answers_over_one_cache_equal_a_forward_pass_over_each(
  monkeypatch, family, settings, longest
):
  monkeypatch.setattr(score, "LONGEST", longest)  # 16: several passes
  model, params = build(family, tuple(settings.items()))
  batch = prompts((5, 3, 7))
  got = score.logprobs(model, params, batch, ANSWERS, eos=EOS)
  for mine, whole in zip(got, reference(model, params, batch, ANSWERS)):
    np.testing.assert_allclose(mine, whole, atol=1e-5, rtol=0)


def test_answers_are_packed_without_padding():
  rows = [[[5] * 9, [6] * 8, [], [7] * 20], [[8]]]
  passes = score.pack(rows, EOS)
  assert len(passes) == 1 and passes[0].token.shape == (2, 64)
  used = passes[0].group[0] >= 0
  assert used.sum() == 37 and used[:37].all()
  assert passes[0].target[0, 8] == passes[0].target[0, 16] == passes[0].target[0, 36] == EOS
  assert score.pack([[[]], []], EOS) == []


def test_other_answers_compile_nothing_anew_and_rows_may_have_none():
  model, params = build("paligemma", ())
  batch = prompts((5, 3, 7))
  some = score.logprobs(model, params, batch, [[[5, 6]], [[7]], [[8], [9, 9]]])
  before = score._branch._cache_size(), score._first._cache_size()
  got = score.logprobs(model, params, batch, [[[4] * 7, [3]], [], [[8], [9, 9]]])
  assert (score._branch._cache_size(), score._first._cache_size()) == before
  assert [len(x) for x in got] == [2, 0, 2]
  np.testing.assert_allclose(got[2], some[2], atol=1e-5)


@functools.cache
def loaded(family="paligemma2"):
  config = toy.config(family)
  params = sharding.unflatten(toy.flat_params(config))
  process = processor.Processor(toy.tokenizer(), config.img.res, config.img.num_tokens)
  return vlm.VLM(paligemma.PaliGemma(config), params, process, config)


def ask(*texts):
  return loaded().processor(images=list(toy.pictures()[: len(texts)]), prompts=list(texts))


def test_the_public_score():
  batch = ask("caption en", "detect cat")
  out = pg.score(loaded(), batch, ["cat", "cat food", ""])
  assert out.answers == [["cat", "cat food", ""]] * 2
  for logprobs, probs, best in zip(out.logprobs, out.probs, out.best):
    np.testing.assert_allclose(probs, np.exp(logprobs) / np.exp(logprobs).sum())
    assert best == ["cat", "cat food", ""][int(np.argmax(logprobs))]
  alone = pg.score(loaded(), ask("caption en"), ["cat food"])
  np.testing.assert_allclose(alone.logprobs[0][0], out.logprobs[0][1], atol=1e-5)
  each = pg.score(loaded(), batch, [["cat food"], ["", "cat"]])
  np.testing.assert_allclose(each.logprobs[1], out.logprobs[1][[2, 0]], atol=1e-5)
  with pytest.raises(errors.UserError, match="3 lists of answers for 2 prompts"):
    pg.score(loaded(), batch, [["a"], ["b"], ["c"]])
  with pytest.raises(errors.UserError, match="no answers"):
    pg.score(loaded(), batch, [])


def test_a_constrained_answer_has_the_models_own_probability():
  """That of the very same tokens when nothing is forbidden."""
  asked = "detect cat ; dog"
  rules = grammar.build(toy.tokenizer(), 1500, "detect", [asked], 24)
  tokens, logprobs = generate.generate(
    loaded().model, loaded().params, ask(asked), max_new_tokens=24, rules=rules,
    sampler="temperature:3", seed=2,
  )  # fmt: skip
  answer = [t for t in np.asarray(tokens)[0].tolist() if t]
  assert answer[-1] == EOS and len(answer) > 5
  (whole,) = score.logprobs(loaded().model, loaded().params, ask(asked), [[answer[:-1]]])
  np.testing.assert_allclose(np.asarray(logprobs).sum(), whole[0], atol=1e-4)
