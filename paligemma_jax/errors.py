"""What is said to users whose input is wrong: what, where, what was found, what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """The user's input is wrong. The command line prints it as one line and exits with status 2."""


class RunError(Exception):
  """A run cannot go on, through no fault of its input. One line as well, exit status 1."""


def did_you_mean(word: str, words: Iterable[str], limit: int = 12, near: str = "") -> str:
  """Returns `; did you mean "x"? Known: a, b`; without a near one `; known: a, b`.

  Args:
    word: what was found.
    words: what would have been right.
    limit: how many of them to list at most.
    near: the nearest, where the caller knows better than the letters alone.
  """
  words = sorted(str(w) for w in words)
  near = near or "".join(difflib.get_close_matches(str(word), words, n=1, cutoff=0.6))
  shown = ", ".join(words[:limit]) + (", …" if len(words) > limit else "") if words else "none"
  return f'; did you mean "{near}"? Known: {shown}' if near else f"; known: {shown}"
