"""`draw="shuffle"`, where one order of the options needs more tokens than another."""

import dataclasses
import itertools

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.data import checks, pipeline, prepare, sources, tasks
from paligemma_jax.processing import tokenizer
from tests.data import feeding

OPTIONS = dict(task="options", prefix="{q}{indexed_choices}", suffix="{indexed_answer}")
CHOICES = ["Mr.", "cat", "dog"]


@pytest.fixture(scope="module")
def joining():
  """A tokenizer with a piece ".,", so that "Mr." before a comma is shorter than at the end."""
  orders = itertools.permutations(["Mr.", "cat", "dog", "Dr."], 3)
  lines = ["(A) {}, (B) {}, (C) {}".format(*order) for order in orders]
  return tokenizer.Tokenizer.train(lines * 20, 1500)


@pytest.fixture
def joined(processor, joining):
  return dataclasses.replace(processor, tokenizer=joining)


def _tokens(text: str, joining) -> int:
  return len(joining.encode(text))


def test_the_orders_differ_in_length(joining):
  ends = (
    _tokens("(A) cat, (B) dog, (C) Mr.", joining),
    _tokens("(A) Mr., (B) cat, (C) dog", joining),
  )
  assert ends[0] == ends[1] + 1


@pytest.fixture
def source(pictures, write, joining):
  """A record that needs 32 tokens as it stands, which a batch of 32 holds, and 33 in other orders."""
  text = "(A) Mr., (B) cat, (C) dog"
  needed = 1 + _tokens(text, joining) + 1 + 1  # BOS, newline, the letter; EOS is only a target
  record = {"image": "p0.png", "q": "1" * (32 - needed), "choices": CHOICES, "answer": 0}
  assert 1 + _tokens(record["q"] + text, joining) + 2 == 32
  return {"path": write([record]), "draw": "shuffle", **OPTIONS}


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("orders", [1, 6])  # that are measured; what is longer is not drawn
def test_no_order_stops_a_run_or_loses_its_end(source, joined, truncate, orders, monkeypatch):
  monkeypatch.setattr(prepare, "_ORDERS", orders)
  checks.check({"train.data.x": source}, joined, 64)
  batches = feeding.train({"x": source}, joined, 20, text_len=64, truncate=truncate)
  ends = {int(t[m > 0][-1]) for b in batches for t, m in zip(b.text, b.mask_loss, strict=True)}
  assert ends == {joined.tokenizer.eos}
  drawn = {text.partition("(A)")[2].partition("\n")[0] for text in feeding.texts(joined, batches)}
  assert len(drawn) == (4 if orders == 1 else 6)  # "Mr." last, or anywhere
  assert batches[0].text.shape[1] == (33 if orders == 1 else 65)


def test_what_no_order_may_need_more_than_is_told_before_training(source, joined):
  (line,) = checks.findings(source, "train.data.x", joined, 32)
  assert "text_len 32 would cut 1 of 1 examples" in line and "needs 33 tokens" in line


def test_an_evaluation_takes_an_order_that_fits_too(source, joined):
  for text_len in (33, 64):
    options = dict(batch_size=1, text_len=text_len, with_suffix=True)
    with pipeline.eval_batches(source, joined, **options) as batches:
      ((batch, (row,)),) = list(batches)
    assert f"({row['suffix']}) Mr." in row["prefix"]  # letter and order belong together
    assert row["suffix"] in joined.tokenizer.decode(batch.text[0][batch.mask_loss[0] > 0])


def test_the_longest_answer_is_that_of_any_order(pictures, write, joined):
  objects = [{"label": label, "box": [0, 0, 9, 9]} for label in ("dog.", "Mr. ,", "cat", "Dr.")]
  path = write([{"image": "p0.png", "objects": objects}])
  config = {"path": path, "task": "detect", "prefix": "detect", "draw": "shuffle"}
  record, rules = sources.open_source(config)[0], tasks.Rules.of(config)
  answers = [
    len(joined.tokenizer.encode(tasks.drafts(record, rules, order=order)[0].suffix)) + 1
    for order in itertools.permutations(range(4))
  ]
  assert pipeline.longest_suffix({"x": config}, joined) == max(answers)


def test_an_order_is_drawn_for_every_visit_and_the_same_in_every_process(source, joined):
  one = feeding.train({"x": source}, joined, 3, text_len=64)
  again = feeding.train({"x": source}, joined, 3, text_len=64, workers=0)
  other = feeding.train({"x": source}, joined, 3, text_len=64, seed=4)
  for a, b in zip(one, again, strict=True):
    feeding.assert_equal(a, b)
  assert any((a.text != b.text).any() for a, b in zip(one, other, strict=True))


def test_a_record_without_an_answer_is_counted_not_trained_on(pictures, write, processor):
  records = [{"image": "p0.png", "choices": ["a", "b"], "answer": k} for k in (0, -1)]
  config = {"path": write(records), **OPTIONS, "prefix": "{indexed_choices}"}
  (batch,) = feeding.train({"x": config}, processor, 1, batch_size=2, max_unreadable=1)
  assert sorted(batch.valid.tolist()) == [False, True]
  with pytest.raises(errors.UserError, match="data.jsonl:2: no answer to train on"):
    feeding.train({"x": config}, processor, 1, batch_size=2)
  assert np.all(batch.mask_loss[~batch.valid] == 0)
