"""Answers that keep to the grammar of boxes, with any weights."""

import functools

import numpy as np
import pytest

from paligemma_jax import errors, sharding, structs
from paligemma_jax.decode import generate, grammar
from paligemma_jax.models import paligemma
from paligemma_jax.processing import boxes, processor
from tests import toy

V, RES = 1500, 28
SAMPLERS = ("greedy", "temperature:3", "beam:3", "best_of:2:2")
PROMPTS = ("detect cat", "detect cat ; cat food ; naïve 猫", "detect t-shirt ; (2) a, b")


def build(constrain, prompt, max_new_tokens=64):
  return grammar.build(toy.tokenizer(), V, constrain, [prompt], max_new_tokens)


def place_after(rules, text, max_new_tokens=64):
  """The place after the tokens of a text, each of which the grammar must allow; None: it does not."""
  place = grammar.begin(rules, max_new_tokens)
  for token in toy.tokenizer().encode(text):
    if not grammar.allowed(rules, place)[0, token]:
      return None
    place = grammar.step(rules, place, np.array([token]))
  return place


def next_texts(rules, text, max_new_tokens=64):
  """What may come after a text."""
  ids = np.flatnonzero(grammar.allowed(rules, place_after(rules, text, max_new_tokens))[0])
  return {"EOS" if i == 1 else toy.tokenizer().decode([int(i)]) for i in ids}


def some_boxes(labels, codes=None):
  return [structs.Box(x, 10 * i, 20, 30 + 5 * i, 99, codes=codes) for i, x in enumerate(labels)]


@pytest.mark.parametrize("kind", ["detect", "segment"])
@pytest.mark.parametrize(
  "labels",
  [["cat"], ["cat food", "cat", "cat"], ["naïve 猫", "a, b", "t-shirt"], ["dark red", "dog"], []],
)
def test_every_answer_of_training_is_allowed(kind, labels):
  text = boxes.format_boxes(some_boxes(labels, None if kind == "detect" else (7,) * 16), 100, 100)
  asked = " ; ".join(dict.fromkeys([*labels, "zebra"]))
  rules = build(kind, f"{kind} {asked}", 512)
  assert "EOS" in next_texts(rules, text, 512)
  if labels:
    assert "EOS" in next_texts(build(f"{kind}:*", "all", 512), text, 512)
    assert place_after(build(kind, f"{kind} zebra", 512), text, 512) is None


def test_a_single_object_without_a_label_is_what_refer_answers():
  text = boxes.format_boxes(some_boxes([""], (5,) * 16), 100, 100)
  rules = build("refer", "the left one")
  assert next_texts(rules, text) == {"EOS"}
  assert "EOS" not in next_texts(rules, "")


def test_what_may_come_next():
  rules = build("detect", "detect cat ; cat dog")
  loc = lambda first, last: {f"<loc{i:04d}>" for i in range(first, last + 1)}
  assert next_texts(rules, "") == {"EOS"} | loc(0, 1022)  # 1023 begins nothing
  assert next_texts(rules, "<loc0005>") == loc(0, 1022)
  assert next_texts(rules, "<loc0005><loc1022>") == loc(6, 1023)
  box = "<loc0005><loc1022><loc0006><loc1023>"
  assert next_texts(rules, box) == {" cat"}
  assert next_texts(rules, f"{box} cat") == {"EOS", " dog", " ;"}
  assert next_texts(rules, f"{box} cat dog") == {"EOS", " ;"}
  assert next_texts(rules, f"{box} cat ; ") == loc(0, 1022)


def test_nothing_is_begun_that_cannot_be_completed():
  rules = build("detect", "detect cat ; cat dog", 20)
  box = "<loc0005><loc1022><loc0006><loc1023>"
  assert next_texts(rules, "", 6) == {"EOS"}  # 4 loc tokens, "cat", "dog", EOS
  assert len(next_texts(rules, "", 7)) > 1
  assert " ;" in next_texts(rules, f"{box} cat", 5 + 2 + 7)
  assert " ;" not in next_texts(rules, f"{box} cat", 5 + 2 + 6)


@pytest.mark.parametrize("labels", ["cat ; cat dog", "*"])
def test_detect_all_ends_when_no_other_object_fits(labels):
  rules = build(f"detect_all:{labels}", "find all")
  box = "<loc0005><loc1022><loc0006><loc1023>"
  assert "EOS" not in next_texts(rules, "")
  assert "EOS" not in next_texts(rules, f"{box} cat")
  least = 6 if labels == "*" else 7  # 4 loc tokens, a label, EOS
  assert "EOS" not in next_texts(rules, f"{box} cat", 5 + 2 + least)
  assert "EOS" in next_texts(rules, f"{box} cat", 5 + 2 + least - 1)
  assert next_texts(rules, "", least - 1) == {"EOS"}  # as nothing else may come


@functools.cache
def model():
  config = toy.config(vocab_size=V, res=RES)
  return paligemma.PaliGemma(config), sharding.unflatten(toy.flat_params(config))


def batch(prompts=PROMPTS):
  process = processor.Processor(toy.tokenizer(), RES, 4)
  return process(images=[toy.pictures()[0]] * len(prompts), prompts=list(prompts), text_len=64)


def answers(sampler, prompts=PROMPTS, constrain="detect", max_new_tokens=48, **kwargs):
  rules = grammar.build(toy.tokenizer(), V, constrain, prompts, max_new_tokens)
  tokens, logprobs = generate.generate(
    *model(), batch(prompts), max_new_tokens=max_new_tokens, sampler=sampler, rules=rules, **kwargs
  )
  return np.asarray(tokens), np.asarray(logprobs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_to_the_grammar(sampler):
  tokens, logprobs = answers(sampler, seed=2)
  assert np.isfinite(logprobs).all()
  for row, prompt in zip(tokens, PROMPTS):
    text = toy.tokenizer().decode(row.tolist())
    found = boxes.parse_boxes(text, 1023, 1023)
    assert boxes.format_boxes(found, 1023, 1023) == text
    assert {box.label for box in found} <= set(prompt.removeprefix("detect ").split(" ; "))
    assert 1 in row


def test_any_words_may_be_labels_and_codes_come_where_masks_are_asked_for():
  tokens, _ = answers("temperature:3", ("find all",) * 2, "segment:*", seed=3)
  for row in tokens:
    text = toy.tokenizer().decode(row.tolist())
    found = boxes.parse_boxes(text, 1023, 1023)
    assert text.count("<loc") == 4 * len(found) and text.count("<seg") == 16 * len(found)
    assert all(box.label and box.codes for box in found)


@pytest.mark.parametrize("sampler", ["greedy", "beam:3"])
def test_detect_all_finds_as_many_as_there_is_room_for(sampler):
  tokens, _ = answers(sampler, ("find all",) * 2, "detect_all:cat ; dog", 34)
  for row in tokens:
    found = boxes.parse_boxes(toy.tokenizer().decode(row.tolist()), 1023, 1023)
    assert len(found) == 5  # 5 boxes of 5 tokens, 4 separators of 2, EOS: 34


def test_a_row_depends_on_no_other_and_rows_that_do_not_matter_need_no_prompt():
  together = answers("temperature:3", seed=4)
  others = answers("temperature:3", ("detect a", PROMPTS[1], "detect b"), seed=4)
  np.testing.assert_array_equal(together[0][1], others[0][1])
  rules = grammar.build(toy.tokenizer(), V, "detect", [PROMPTS[0], None, None], 48)
  valid = batch()._replace(valid=np.array([True, False, False]))
  tokens, _ = generate.generate(
    *model(), valid, max_new_tokens=48, sampler="temperature:3", rules=rules, seed=4
  )
  np.testing.assert_array_equal(tokens[0], together[0][0])
  assert not np.asarray(tokens)[1:].any()


def test_other_labels_compile_nothing_anew():
  answers("greedy")
  before = generate._generate._cache_size()
  answers("greedy", ("detect zebra", "detect a ; b ; c", "detect dark red"))
  assert generate._generate._cache_size() == before


def test_stream_yields_the_tokens_of_generate():
  tokens, _ = answers("temperature:3", PROMPTS[:1], seed=6)
  rules = grammar.build(toy.tokenizer(), V, "detect", PROMPTS[:1], 48)
  streamed = generate.stream(
    *model(), batch(PROMPTS[:1]), max_new_tokens=48, sampler="temperature:3", rules=rules, seed=6
  )
  assert list(streamed) == [t for t in tokens[0].tolist() if t]


@pytest.mark.parametrize(
  "constrain, prompt, words",
  [
    ("detct", "detect cat", 'constrain "detct" is unknown; did you mean "detect"'),
    ("detect: ; ", "detect cat", "names no label"),
    ("refer:cat", "the cat", "names no label"),
    ("detect", "find the cat", 'prompt "find the cat" is not "detect LABEL ; LABEL"'),
    ("segment", "detect cat", 'constrain the answer to "segment:LABEL ; LABEL"'),
    ("detect", "detect a <b>", 'label "a <b>" holds one of'),
    ("refer", "the cat", 'constrain "refer" takes 21 tokens, max_new_tokens is 8'),
  ],
)
def test_wrong_input_says_what_is_wrong(constrain, prompt, words):
  with pytest.raises(errors.UserError) as e:
    build(constrain, prompt, 8)
  assert words in str(e.value)


def test_a_mask_and_a_grammar_are_not_joined():
  with pytest.raises(errors.UserError, match="give one"):
    answers("greedy", mask_logits=[5])
