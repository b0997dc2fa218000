"""Questions with options: "(A) cat, (B) dog", and which of a list is the right one."""

import string
from collections.abc import Sequence

from paligemma_jax import errors

_LETTERS = string.ascii_uppercase


def index(record: dict, of: str, at: str) -> int:
  """The number under the key `at` of one of the list under `of`; -1: none, as in a test split.

  Raises:
    errors.UserError: no list, or none of its numbers.
  """
  values, k = record[of], record[at]
  if not isinstance(values, list):
    raise errors.UserError(f'"{of}" is {values!r}; wanted a list')
  if not isinstance(k, int) or isinstance(k, bool) or not -1 <= k < len(values):
    raise errors.UserError(
      f'"{at}" is {k!r}; wanted 0 to {len(values) - 1}, the number of one of the {len(values)}'
      f' "{of}", or -1 where there is no answer'
    )
  return k


def indexed(record: dict, order: Sequence[int] | None = None) -> dict:
  """The record with "(A) cat, (B) dog" as "indexed_choices" and "A" as "indexed_answer".

  Args:
    record: has "choices", texts, and "answer", the index of the right one; -1: none, and the
      letter is None.
    order: of the choices; None: as they stand.

  Raises:
    errors.UserError: more choices than letters, or an answer that is none of them.
  """
  answer, choices = index(record, "choices", "answer"), record["choices"]
  if len(choices) > len(_LETTERS):
    raise errors.UserError(
      f'"choices" holds {len(choices)}; there are letters for {len(_LETTERS)}: leave some out'
    )
  order = list(range(len(choices)) if order is None else order)
  shown = ", ".join(f"({_LETTERS[k]}) {choices[i]}" for k, i in enumerate(order))
  letter = _LETTERS[order.index(answer)] if answer >= 0 else None
  return {**record, "indexed_choices": shown, "indexed_answer": letter}
