import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from paligemma_jax import cache, errors
from paligemma_jax.data import examples, prepare, sources, tasks
from paligemma_jax.models import vqvae
from paligemma_jax.processing import masks, tokenizer


@pytest.fixture
def source(write):
  rng = np.random.default_rng(0)
  objects = [
    {"label": "a", "box": [2, 3, 30, 20], "mask": masks.encode_rle(rng.random((30, 40)) > 0.5)}
    for _ in range(3)
  ]
  rows = [{"image": "x", "objects": o} for o in (objects[:1], [], objects[1:])]
  return sources.Jsonl(write(rows))


def test_codes_are_those_of_the_codec_on_the_crops(source, codec):
  found = prepare.mask_codes(source, codec)
  items = [o for record in source for o in record["objects"]]
  crops = [masks.crop_for_codec(masks.decode_rle(o["mask"]), o["box"]) for o in items]
  want = [tuple(row) for row in np.asarray(vqvae.encode(codec, jnp.stack(crops))).tolist()]
  assert [found[i] for i in range(3)] == [want[:1], [], want[1:]]


def test_the_way_through_the_codec_and_back(source, codec):
  items = [o for record in source for o in record["objects"]]
  crops = [masks.crop_for_codec(masks.decode_rle(o["mask"]), o["box"]) for o in items]
  codes, decoded = prepare.round_trip(crops, codec)
  assert codes == [tuple(row) for row in np.asarray(vqvae.encode(codec, jnp.stack(crops))).tolist()]
  want = vqvae.decode(codec, jnp.asarray(codes))  # not compiled, hence rounded elsewhere
  np.testing.assert_allclose(decoded, want, rtol=1e-5, atol=1e-4)
  assert prepare.record_codes(source[2], source.folder, codec) == codes[1:]


def test_codes_come_from_the_cache_until_something_changes(source, codec, monkeypatch):
  first = prepare.mask_codes(source, codec)
  runs = []
  encode_all = prepare._encode_all
  monkeypatch.setattr(prepare, "_encode_all", lambda *a: runs.append(1) or encode_all(*a))
  again = prepare.mask_codes(source, codec)
  np.testing.assert_array_equal(first.codes, again.codes)
  assert not runs
  prepare.mask_codes(source, {**codec, vqvae.CODEBOOK: codec[vqvae.CODEBOOK] + 1})
  assert len(runs) == 1


def test_a_damaged_cache_file_is_made_anew(source, codec):
  first = prepare.mask_codes(source, codec)
  (file,) = cache.directory("codes").iterdir()
  file.write_bytes(b"half a f")
  np.testing.assert_array_equal(prepare.mask_codes(source, codec).codes, first.codes)


def test_an_object_without_mask_has_no_codes_and_segment_names_it(write, pictures, codec, source):
  item = {"label": "a", "box": [0, 0, 1, 1], "sentences": ["it"]}
  whole = source[0]["objects"][0]
  bare = sources.Jsonl(write([{"image": "p0.png", "objects": [item, whole]}], "bare.jsonl"))
  none, codes = prepare.mask_codes(bare, codec)[0]
  assert none is None and [codes] == prepare.mask_codes(source, codec)[0]
  assert prepare.record_codes(bare[0], bare.folder, codec) == [None, codes]
  with pytest.raises(errors.UserError, match='bare.jsonl:1: an object has no "mask"; the task'):
    examples.make(bare, 0, tasks.Rules("segment"), codes=[None, codes])


def test_lengths_count_noise(write, processor):
  source = sources.Jsonl(write([{"objects": [{"label": "cat", "box": [0, 0, 1, 1]}]}]))
  rules = tasks.Rules(task="detect", noise=3)
  _, answer, _ = prepare.token_lengths(source, rules, processor)
  (draft,) = tasks.drafts(source[0], rules, rng=np.random.default_rng(0))
  assert answer.tolist() == [len(processor.tokenizer.encode(draft.suffix)) + 1]


@pytest.mark.parametrize("item", [{}, {"label": 7}, {"label": "cat", "box": [0, 0, 1, 10**400]}, 7])
def test_a_record_that_is_no_example_has_no_length(write, processor, item):
  source = sources.Jsonl(write([{"objects": [item]}]))
  for task in ("detect", "segment"):
    lengths = prepare.token_lengths(source, tasks.Rules(task=task), processor)
    assert [x.tolist() for x in lengths] == [[0], [0], [0]]


def test_tokens_are_counted_piece_by_piece_between_loc_tokens(processor):
  rng, t = np.random.default_rng(0), processor.tokenizer
  parts = [
    "<loc0000>",
    "<loc1023>",
    "<loc1024>",
    "<seg127>",
    "<seg128>",
    "<loc1>",
    "<",
    " cat ;",
    " a",
  ]
  count = prepare._counter(t)
  for _ in range(500):
    text = "".join(rng.choice(parts, rng.integers(12)))
    assert count(text) == len(t.encode(text)), text


def test_lengths_come_from_the_cache_until_something_changes(write, processor, monkeypatch):
  source = sources.Jsonl(write([{"prefix": "caption en", "suffix": "a cat and a dog"}]))
  runs, measure = [], prepare._measure
  monkeypatch.setattr(prepare, "_measure", lambda *a: runs.append(1) or measure(*a))
  of = lambda p, **rules: [
    n.tolist() for n in prepare.token_lengths(source, tasks.Rules(**rules), p)
  ]
  first = of(processor)
  assert of(processor) == first and len(runs) == 1
  other = tokenizer.Tokenizer.train(["another corpus"] * 4, 1500)
  letters = dataclasses.replace(processor, tokenizer=other)
  assert of(letters) != first and of(letters) == [  # each has lengths of its own
    [1 + len(other.encode("caption en")) + 1], [len(other.encode("a cat and a dog")) + 1],
    [3 + len(other.encode("caption en")) + len(other.encode("a cat and a dog"))],
  ]  # fmt: skip
  assert of(processor) == first and len(runs) == 2
  assert of(processor, prefix="p") != first and of(processor, lower=True) == first
  assert len(runs) == 4


def test_lengths_are_those_of_the_layout(write, processor):
  t = processor.tokenizer
  long = "a cat and a dog"
  source = sources.Jsonl(write([{"prefix": "caption en", "suffix": ["yes", long]}, {"bad": 1}]))
  prompt, answer, whole = prepare.token_lengths(source, tasks.Rules(), processor)
  assert prompt.tolist() == [1 + len(t.encode("caption en")) + 1, 0]
  assert answer.tolist() == [len(t.encode(long)) + 1, 0]
  assert whole.tolist() == [prompt[0] + len(t.encode(long)) + 1, 0]
