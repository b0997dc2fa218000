import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_jax.metrics import ptb
from tests.metrics import golden


def test_golden():
  cases = golden.load("ptb_tokenize")["cases"]
  texts = [case["text"].replace("\n", " ") for case in cases]  # all of one call of the Java tool
  after = ["\n" + text + "\n" for text in texts[1:]] + [""]
  for case, text, rest in zip(cases, texts, after, strict=True):
    assert ptb.tokenize(text, rest) == case["tokens"], text


@pytest.mark.parametrize(
  "text, want",
  [
    ("A dog's bone, isn't it?", "a dog 's bone is n't it"),
    ("what?! no!!", "what ?! no !!"),
    ("the (red) [one]", "the -lrb- red -rrb- -lsb- one -rsb-"),
    ("St. Louis, U.S.", "st. louis u.s."),
    ("see fig. 3, a fig.", "see fig. 3 a fig"),
    ("$5 €5 £5 ½", "$ 5 $ 5 # 5 1/2"),
    ("gonna don’t 'em", "gon na do n't 'em"),
    ("AT&T a&b", "at&t a & b"),
    ("smile 😀 :)", "smile :-rrb-"),
    ("call 555 123 4567", "call 555\xa0123\xa04567"),
    ("one\rtwo\u2028three", "one two three"),  # line ends within a caption are spaces
    ("猫が座る 桌子上。", "猫が座る 桌子上 。"),
  ],
)
def test_tokens(text, want):
  assert ptb.tokenize(text) == want


def test_what_follows_in_the_call_counts_as_it_does_in_java():
  assert ptb.tokenize("he'd've", "\na dog") == "he 'd 've"
  assert ptb.tokenize("he'd've", "") == "he 'd ve"
  assert ptb.tokenize("fig.", "\n5 dogs") == "fig."


@given(st.text(max_size=40))
def test_tokens_of_any_text_are_lower_case_and_without_marks(text):
  tokens = ptb.tokenize(text).split(" ")
  assert not {".", ",", "?", "!", ":", ";", "-", "--", "..."} & set(tokens)
  assert all(token == token.lower() for token in tokens)


@given(st.lists(st.text("abcdeé", min_size=2, max_size=8), max_size=6), st.integers(1, 4))
def test_spaces_between_words_do_not_matter(words, spaces):
  assert ptb.tokenize((" " * spaces).join(words) + " ") == ptb.tokenize(" ".join(words))


@given(st.text("aeou ñéü", max_size=12))
def test_both_unicode_forms_of_letters_are_kept(text):
  composed = ptb.tokenize(unicodedata.normalize("NFC", text))
  split = ptb.tokenize(unicodedata.normalize("NFD", text))
  assert unicodedata.normalize("NFC", split) == composed
