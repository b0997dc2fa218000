"""What is said to users whose input is wrong: what, where, what was found, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """The user's input is wrong. The command line prints it as one line and exits with status 2."""


class RunError(Exception):
  """A run cannot go on, through no fault of its input. One line as well, exit status 1."""


def did_you_mean(word: str, words: Iterable[str], limit: int = 12) -> str:
  """Returns `; did you mean "x"? (all: …)` for a misspelt `word`; without a near one only the list.

  Args:
    word: what was found.
    words: what would have been right.
    limit: how many of them to list at most.
  """
  words = sorted(str(w) for w in words)
  near = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
  shown = ", ".join(words[:limit]) + (", …" if len(words) > limit else "")
  return (f'; did you mean "{near[0]}"?' if near else ";") + f" (all: {shown})"
