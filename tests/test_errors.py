"""What a user is told who wrote something that is nearly right."""

import pytest

from paligemma_jax import errors


@pytest.mark.parametrize(
  "word, options, want",
  [
    ("ful", {}, '; did you mean "full"? Known: fast, full, head'),
    ("xyz", {}, "; known: fast, full, head"),
    ("ful", {"limit": 2}, '; did you mean "full"? Known: fast, full, …'),
    ("ful", {"near": "head"}, '; did you mean "head"? Known: fast, full, head'),
  ],
)
def test_a_hint_names_the_nearest_and_what_is_known(word, options, want):
  assert errors.did_you_mean(word, ("head", "full", "fast"), **options) == want


def test_a_hint_says_when_nothing_is_known():
  assert errors.did_you_mean("x", ()) == "; known: none"
