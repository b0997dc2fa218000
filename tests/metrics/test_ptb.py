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


@pytest.mark.parametrize(
  "text, want",
  [
    # An apostrophe inside a single token.
    ("C'mon, c'mon!", "c'mon c'mon"),
    ("c'est la vie", "c'est la vie"),
    ("s'mores s'more", "s'mores s more"),
    ("ev'ry ev'rything", "ev'ry ev'ry thing"),
    ("li'l Li'l. li'la", "li'l li'l li'l a"),
    ("nat'l. int'l gov't", "nat'l int l gov t"),
    ("nor'easter nor'easters", "nor'easter nor'easter s"),
    ("cont'd cont'd. cont'd,", "cont 'd cont'd. cont 'd"),
    ("c’mon li’l c`mon", "c 'm on li l c mon"),  # only the straight one
    ("e'er o'er ne'er ma'am o'o", "e'er o'er ne'er ma'am o'o"),
    # What else the tool keeps whole, or takes out.
    ("anti- and pro-war, ex- and non-", "anti- and pro-war ex and non"),
    ("Korean-U.S. EU-U.S U.S.-U.K ties", "korean-u.s. eu-u.s u.s.-u.k ties"),
    ("S&Ls at the S&P-500 s&ls", "s&ls at the s&p-500 s&ls"),
    ("Ed.D. ED.D. ed.d. x", "ed.d. ed.d. ed.d. x"),
    ("Pte. x PTE. x pteS. x mFg. x", "pte. x pte x ptes. x mfg x"),
    ("caf&eacute; &auml;b a&ndash;b &md; &ht;", "caf&eacute; &auml;b a b &ht;"),
    (r"-LRB- -rsb- \*\*\* f#", r"-lrb- -rsb- \*\*\* f#"),
  ],
)
def test_words_that_the_lexer_lists(text, want):
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
