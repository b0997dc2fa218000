"""The layout of text and masks."""

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.processing import prompt
from tests import golden, toy


def golden_layouts():
  return sorted({k.split("/")[0] for k in golden.io("ops") if k.startswith("layout")})


@pytest.mark.parametrize("name", golden_layouts())
def test_training_layout_equals_the_reference(name):
  data = {k.split("/")[1]: v for k, v in golden.io("ops").items() if k.startswith(name + "/")}
  got = prompt.layout_ids(data["prefix"], data["sep"], data["suffix"], int(data["text_len"]) + 1)
  np.testing.assert_array_equal(got.text, data["train_text"])
  np.testing.assert_array_equal(got.mask_ar, data["train_mask_ar"])
  np.testing.assert_array_equal(got.mask_loss, data["train_mask_loss"])


@pytest.mark.parametrize("name", golden_layouts())
def test_evaluation_layout_equals_the_reference(name):
  data = {k.split("/")[1]: v for k, v in golden.io("ops").items() if k.startswith(name + "/")}
  suffix = data["suffix"][data["suffix"] != 1]  # EOS is removed for evaluation
  got = prompt.layout_ids(data["prefix"], data["sep"], suffix, int(data["text_len"]))
  np.testing.assert_array_equal(got.text, data["eval_text"])
  np.testing.assert_array_equal(got.mask_ar, data["eval_mask_ar"])
  np.testing.assert_array_equal(got.mask_input, data["eval_mask_input"].astype(bool))


def test_prefix_and_suffix_are_joined_by_a_newline_of_its_own():
  t = toy.tokenizer()
  got = prompt.layout(t, "caption en\n", "cat", 32)
  wanted = [t.bos, *t.encode("caption en\n"), *t.newline, *t.encode("cat"), t.eos]
  assert got.text[got.mask_input].tolist() == wanted  # a typed newline stays a second one


def test_without_a_suffix_the_prompt_ends_with_the_newline():
  t = toy.tokenizer()
  got = prompt.layout(t, "caption en", None, 16)
  assert got.text[got.mask_input][-1:].tolist() == t.newline
  assert not got.mask_loss.any() and not got.mask_ar[got.mask_input].any()


def test_an_empty_suffix_still_trains_eos():
  t = toy.tokenizer()
  got = prompt.layout(t, "caption en", "", 16)
  assert got.text[got.mask_loss > 0].tolist() == [t.eos]


def test_too_long_is_an_error_that_says_what_would_fit():
  t = toy.tokenizer()
  with pytest.raises(errors.UserError, match="needs text_len") as e:
    prompt.layout(t, "answer en how many digits?", "three digits: 1, 4 and 9", 9)
  needed = int(str(e.value).split("text_len ")[1].split()[0])
  full = prompt.layout(t, "answer en how many digits?", "three digits: 1, 4 and 9", needed + 1)
  assert full.mask_input.all() and full.text[-1] == t.eos


def test_truncation_cuts_on_the_right():
  t = toy.tokenizer()
  full = prompt.layout(t, "caption en", "three digits: 1, 4 and 9", 64)
  cut = prompt.layout(t, "caption en", "three digits: 1, 4 and 9", 9, truncate=True)
  np.testing.assert_array_equal(cut.text, full.text[:9])


def test_places_of_noise_have_no_loss_their_label_has():
  t, loc = toy.tokenizer(), "<loc0001><loc0002><loc0003><loc1023>"
  one, other = f"{loc} cat", f"{loc} <noise>"
  suffix = f"{one} ; {other} ; {other}"
  text = prompt.layout(t, "detect all", suffix, 64)
  without = text.text[(text.mask_ar == 1) & text.mask_input & (text.mask_loss == 0)]
  assert t.decode(without.tolist()) == loc + loc
  learnt = text.text[text.mask_loss == 1]
  assert t.decode(learnt.tolist()) == f"{one} ;  <noise> ;  <noise>"
  assert learnt[-1] == t.eos
  for length in range(3, 64):
    cut = prompt.layout(t, "detect all", suffix, length, truncate=True)
    np.testing.assert_array_equal(cut.mask_loss, text.mask_loss[:length])


@pytest.mark.parametrize("tokens, length", [(1, 32), (32, 32), (33, 64), (512, 512)])
def test_the_next_length_holds_the_text(tokens, length):
  assert prompt.next_length(tokens) == length


def test_there_is_a_longest_length():
  with pytest.raises(errors.UserError, match="513 tokens is longer than 512"):
    prompt.next_length(513)
