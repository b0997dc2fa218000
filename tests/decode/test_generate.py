"""What holds for generate and stream with any weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import errors, sharding, structs
from paligemma_jax.decode import generate
from paligemma_jax.models import paligemma, tree
from tests import toy
from tests.decode.golden_batch import take

V, M, TOL = 64, 6, dict(atol=2e-5, rtol=0)
SAMPLERS = ("greedy", "temperature:1.5", "beam:3", "best_of:3:1.5")  # the others: test_samplers.py
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@functools.cache
def build(family="paligemma", **settings):
  config = toy.config(family, vocab_size=V, **settings)
  flat = {k: jnp.asarray(v) for k, v in toy.flat_params(config).items()}
  return paligemma.PaliGemma(config), sharding.unflatten(flat)


def prompts(lengths=(5, 3, 7, 4, 6), width=8, frames=None) -> structs.Batch:
  """Ragged prompts; row b is the same whatever the other rows are."""
  rows = []
  for b, length in enumerate(lengths):
    rng = np.random.default_rng(b)
    image = rng.integers(0, 256, (*(() if frames is None else (frames,)), 28, 28, 3), np.uint8)
    is_token = np.arange(width) < length
    text = np.where(is_token, rng.integers(4, V, 32)[:width], 0).astype(np.int32)
    mask_ar = np.where(is_token, 0, 1).astype(np.int32)
    mask_image = np.ones(frames or 1, bool)
    loss = np.zeros(width, np.float32)
    rows.append(structs.Batch(image, mask_image, text, mask_ar, is_token, loss, np.True_))
  return structs.Batch(*(np.stack(x) for x in zip(*rows)))


def run(batch, sampler="greedy", family="paligemma", **kwargs):
  model, params = build(family)
  kwargs = dict(max_new_tokens=M, eos=-1, sampler=sampler) | kwargs
  return [np.asarray(x) for x in generate.generate(model, params, batch, **kwargs)]


def assert_same(a, b):
  np.testing.assert_array_equal(a[0], b[0])
  np.testing.assert_allclose(a[1], b[1], **TOL)


@every_sampler
def test_batch_size_and_padding_change_nothing(sampler):
  together = run(prompts(), sampler, seed=5)
  for row in (0, 3):
    alone = run(take(prompts(width=11), [row]), sampler, seed=5, rows=[row])
    assert_same(alone, [x[row : row + 1] for x in together])


def test_rows_that_only_fill_the_batch_change_nothing_and_stay_blank():
  batch = prompts()
  filled = batch._replace(valid=np.array([True, True, False, True, False]))
  want, got = run(batch), run(filled)
  assert_same([x[filled.valid] for x in got], [x[filled.valid] for x in want])
  assert not got[0][~filled.valid].any() and not got[1][~filled.valid].any()


@pytest.mark.parametrize(
  "family, settings",
  [
    ("paligemma", {}),
    ("paligemma2", {}),
    ("paligemma2", {"final_logits_softcap": 2.0, "sliding_window": 5}),
  ],
)
def test_the_cache_changes_nothing(family, settings):
  """Each token and its log-probability against a full forward pass over all tokens before it."""
  model, params = build(family, **settings)
  batch = prompts()
  tokens, logp = generate.generate(model, params, batch, max_new_tokens=M, eos=-1)
  lengths = batch.mask_input.sum(1)
  text, mask_ar = (np.pad(x, ((0, 0), (0, M)), constant_values=c) for x, c in
                   ((batch.text, 0), (batch.mask_ar, 1)))  # fmt: skip
  for b, n in enumerate(lengths):
    text[b, n : n + M] = tokens[b]
  mask_input = np.arange(text.shape[1]) < lengths[:, None] + M
  forward = jax.jit(lambda p, *args: model.apply({"params": p}, *args)[0])
  logits = forward(params, batch.image, text, mask_ar, mask_input)
  for b, n in enumerate(lengths):
    whole = np.asarray(jax.nn.log_softmax(logits[b, n - 1 : n - 1 + M]))
    np.testing.assert_array_equal(whole.argmax(-1), tokens[b])
    np.testing.assert_allclose(whole.max(-1), logp[b], **TOL)


def test_a_prompt_with_a_partial_answer_continues():
  whole, _ = run(prompts())
  batch = prompts(width=12)
  for b, n in enumerate(batch.mask_input.sum(1)):
    batch.text[b, n : n + 2] = whole[b, :2]
    batch.mask_input[b, n : n + 2] = True  # mask_ar is 1 there already
  np.testing.assert_array_equal(run(batch)[0][:, :-2], whole[:, 2:])


def test_a_missing_second_image_is_as_if_there_were_one():
  two = prompts(frames=2)
  two.mask_image[:, 1] = False
  one = two._replace(image=two.image[:, 0], mask_image=two.mask_image[:, :1])
  assert_same(run(two), run(one))
  assert_same(run(two._replace(image=two.image[:, :1], mask_image=one.mask_image)), run(one))


@every_sampler
def test_answers_end_with_the_eos_and_are_blank_after_it(sampler):
  eos = int(run(prompts(), sampler)[0][0, 2])  # a token that comes
  tokens, logp = run(prompts(), sampler, eos=eos)
  assert (tokens == eos).any()
  for row, values in zip(tokens, logp):
    found = np.flatnonzero(row == eos)
    n = found[0] + 1 if len(found) else M
    assert not row[n:].any() and not values[n:].any() and (values[:n] < 0).all()


@every_sampler
def test_masked_tokens_never_come(sampler):
  taken = np.unique(run(prompts(), sampler)[0])
  tokens, logp = run(prompts(), sampler, mask_logits=taken)
  assert not np.isin(tokens, taken).any() and np.isfinite(logp).all()


def test_seeds_repeat_and_differ():
  a, b, c = (run(prompts(), "temperature:1.5", seed=s)[0] for s in (0, 0, 1))
  np.testing.assert_array_equal(a, b)
  assert (a != c).any()


def test_the_same_prompt_in_two_rows_is_drawn_twice():
  batch = take(prompts(), [0, 0])
  tokens, _ = run(batch, "temperature:1.5")
  assert (tokens[0] != tokens[1]).any()
  tokens, _ = run(batch, "temperature:1.5", rows=[4, 4])
  np.testing.assert_array_equal(tokens[0], tokens[1])


def test_best_of_is_at_least_as_likely_as_its_first_sample():
  best, one = (run(prompts(), s, seed=4)[1].sum(1) for s in ("best_of:3:1.5", "temperature:1.5"))
  assert (best >= one - 1e-5).all() and (best > one + 1e-3).any()


def test_beam_of_one_is_at_least_as_likely_as_a_greedy_answer_that_ends():
  eos = int(run(prompts())[0][0, 2])
  tokens, greedy = run(prompts(), eos=eos)
  ended = (tokens == eos).any(1)
  _, beam = run(prompts(), "beam:1", eos=eos)
  assert ended.any() and (beam.sum(1)[ended] >= greedy.sum(1)[ended] - 1e-5).all()


def test_layers_stacked_or_one_by_one_give_the_same():
  model, params = build()
  kwargs = dict(max_new_tokens=M, eos=-1)
  split = paligemma.unstack_layers(params)
  a, b = (generate.generate(model, p, prompts(), **kwargs) for p in (params, split))
  assert_same([np.asarray(x) for x in a], [np.asarray(x) for x in b])


def test_one_program_for_all_seeds_rows_and_eos():
  batch = prompts()
  run(batch, "temperature:1.5")
  before = generate._generate._cache_size()
  run(batch, "temperature:1.5", seed=9, rows=[7, 8, 9, 10, 11], eos=3)
  run(batch._replace(valid=np.array([True] + [False] * 4)), "temperature:1.5")
  assert generate._generate._cache_size() == before
  run(batch, "temperature:1.6")
  assert generate._generate._cache_size() == before + 1


@pytest.mark.parametrize("sampler", ["greedy", "temperature:1.5"])
def test_stream_yields_the_tokens_of_generate(sampler):
  model, params = build()
  batch = take(prompts(), [1])
  kwargs = dict(max_new_tokens=M, sampler=sampler, seed=3)
  tokens, _ = run(batch, **kwargs)
  assert list(generate.stream(model, params, batch, eos=-1, **kwargs)) == tokens[0].tolist()
  eos = int(tokens[0, 2])
  want = tokens[0, : tokens[0].tolist().index(eos) + 1].tolist()
  assert list(generate.stream(model, params, batch, eos=eos, **kwargs)) == want


def test_wrong_input_says_what_is_wrong():
  model, params = build()
  batch = take(prompts(), [0])
  call = functools.partial(generate.generate, model, params, batch)
  with pytest.raises(errors.UserError, match="max_new_tokens is 0; it must be at least 1"):
    call(max_new_tokens=0)
  with pytest.raises(errors.UserError, match="mask_logits has token 64; tokens are 0 to 63"):
    call(max_new_tokens=1, mask_logits=[3, 64])
  with pytest.raises(errors.UserError, match=r"mask_logits has shape \(3,\)"):
    call(max_new_tokens=1, mask_logits=np.ones(3, bool))
  with pytest.raises(errors.UserError, match="forbids every token"):
    call(max_new_tokens=1, mask_logits=np.arange(V))
  with pytest.raises(errors.UserError, match="only 64 tokens; use fewer beams"):
    call(max_new_tokens=1, sampler="beam:64")
  with pytest.raises(errors.UserError, match="cannot stream"):
    next(generate.stream(model, params, batch, max_new_tokens=1, sampler="beam:2"))


def test_weights_sharded_over_eight_devices_give_the_same():
  rules = (("batch", "fsdp"), ("auto", "fsdp"))
  mesh = sharding.make_mesh({"fsdp": -1})
  model, params = build()
  flat = sharding.flatten(params)
  places = sharding.param_shardings(tree.plain(model.config), mesh, rules)
  spread = sharding.unflatten({k: jax.device_put(v, places[k]) for k, v in flat.items()})
  batch = take(prompts(), [0, 1, 2, 3, 4, 0, 1, 2])
  placed = sharding.put_batch(batch, mesh, rules)
  kwargs = dict(max_new_tokens=4, sampler="beam:2")
  with jax.set_mesh(mesh):
    got = generate.generate(model.clone(rules=rules), spread, placed, **kwargs)
  want = generate.generate(model, params, batch, **kwargs)
  assert_same([np.asarray(x) for x in got], [np.asarray(x) for x in want])
