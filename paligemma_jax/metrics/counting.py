"""Scores of counting: TallyQA and CountBenchQA."""

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import scores, targets

_LARGEST = 15  # TallyQA's highest truth
_COUNTS = {str(n) for n in range(_LARGEST + 1)}
_WORDS = (
  "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
  " sixteen seventeen eighteen nineteen twenty"
).split()
_NUMERALS = {"none": "0"} | {word: str(i) for i, word in enumerate(_WORDS)}


@scores.of_terms(alone=("acc",), check=lambda row: _truth(row))
def tallyqa(rows: list[dict]) -> scores.Terms:
  """Share of predictions that are the true number, in digits or as a word up to twenty.

  Args:
    rows: with "issimple" (1: simple, 0: complex, -1 or None: neither) where the two are told apart.

  Returns:
    "acc"; "acc/simple" and "acc/complex"; "acc/count_N" for truths from 0 to 15; each of these that
    is there with the number of its rows, "num/…".

  Raises:
    errors.UserError: a truth that is no number from 0 to 15.

  Source: big_vision, evaluators/proj/paligemma/transfers/tallyqa.py.
  """
  truths = [_truth(row) for row in rows]
  acc = scores.array([numeral(row["prediction"]) == t for row, t in zip(rows, truths)])
  groups = {
    "simple": [row.get("issimple") == 1 for row in rows],
    "complex": [row.get("issimple") == 0 for row in rows],
  }
  for n in range(_LARGEST + 1):
    groups[f"count_{n}"] = [t == str(n) for t in truths]
  terms = {"acc": acc}
  for name, counts in groups.items():
    if np.any(counts):
      terms[f"acc/{name}"] = scores.only(acc, counts)
      terms[f"num/{name}"] = scores.count(counts)
  return terms


def numeral(answer: str) -> str:
  """The digits of a number word from none and zero to twenty; another text as it is."""
  return _NUMERALS.get(answer.lower(), answer)


def _truth(row: dict) -> str:
  found = [numeral(answer) for answer in targets.answers(row)]
  if len(found) != 1 or found[0] not in _COUNTS:
    raise errors.UserError(f"tallyqa: a truth is {row.get('suffix')!r}, wanted 0 to {_LARGEST}")
  return found[0]
