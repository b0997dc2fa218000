"""Scores of questions with few possible answers: POPE, MMVP and ScienceQA."""

import functools
import re

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import scores, targets

_LETTER = re.compile(r"the answer is ([a-z])\.")


class _Pairs(scores.Score):
  """Drawn are pairs; a row's score is whether its own question is right."""

  def per_row(self, rows):
    return [{"acc": float(right)} for right in _right(rows)]


@scores.of_terms(alone=("acc",), check=lambda row: _label(row))
def pope(rows: list[dict]) -> scores.Terms:
  """POPE as big_vision scores it: the lower-cased prediction is the label, "yes" or "no".

  Returns:
    "acc"; "valid_percent": share of predictions that are yes or no, 0..1 in spite of its name.

  Source: big_vision, evaluators/proj/paligemma/transfers/pope.py.
  """
  found = [row["prediction"].lower() for row in rows]
  return {
    "acc": scores.array([p == _label(row) for p, row in zip(found, rows)]),
    "valid_percent": scores.array([p in ("yes", "no") for p in found]),
  }


@scores.of_terms(alone=("accuracy",), check=lambda row: _label(row))
def pope_official(rows: list[dict]) -> scores.Terms:
  """POPE's five figures with the authors' lenient reading of free text, `says_yes`.

  Returns:
    "accuracy", "precision", "recall", "f1" of yes, and "yes_ratio", the share of yes predicted. A
    quotient without denominator (never a yes) is left out.

  Source: RUCAIBox/POPE, evaluate.py; arXiv:2305.10355.
  """
  found = np.array([says_yes(row["prediction"]) for row in rows], np.float64)
  truth = np.array([_label(row) == "yes" for row in rows], np.float64)
  both = found * truth
  return {
    "accuracy": (found == truth).astype(np.float64),
    "precision": (both, found),
    "recall": (both, truth),
    "f1": (2 * both, found + truth),
    "yes_ratio": found,
  }


@functools.partial(_Pairs, check=lambda row: _truth(row))
def mmvp(rows: list[dict]) -> scores.Terms:
  """MMVP: a pair of questions counts when both predictions equal their truths.

  Args:
    rows: in the order of the questions, two and two a pair; or in any order with "pair", which
      questions of a pair have in common.

  Returns:
    "paired_acc": share of right pairs, the published figure; "acc": share of right questions.

  Raises:
    errors.UserError: a question without its partner.

  Source: arXiv:2401.06209, section 3.
  """
  right, pairs = _right(rows), {}
  for i, row in enumerate(rows):
    pairs.setdefault(row.get("pair", i // 2), []).append(right[i])
  for name, members in pairs.items():
    if len(members) != 2:
      raise errors.UserError(
        f"mmvp: pair {name} has {len(members)} questions, wanted 2; give all questions in order"
      )
  both = np.array(list(pairs.values()), np.float64).reshape(-1, 2)
  return {"paired_acc": both.min(axis=1), "acc": both.mean(axis=1)}


@scores.of_terms(alone=("acc",), check=lambda row: _truth(row))
def science_qa(rows: list[dict]) -> scores.Terms:
  """ScienceQA: the letters of "The answer is B." agree; what follows the full stop is ignored.

  Returns:
    "acc"; "parsefail": share of predictions that do not begin so.

  Source: big_vision, evaluators/proj/paligemma/transfers/science_qa.py.
  """
  found = [letter(row["prediction"]) for row in rows]
  return {
    "acc": scores.array([f == letter(_truth(row)) for f, row in zip(found, rows)]),
    "parsefail": scores.array([f is None for f in found]),
  }


def says_yes(prediction: str) -> bool:
  """Whether free text means yes: no word before the first full stop is "No", "no" or "not"."""
  words = prediction.split(".")[0].replace(",", "").split(" ")
  return not {"No", "no", "not"} & set(words)


def letter(answer: str) -> str | None:
  """The letter of "The answer is B…." at the start of a text, lower-cased; None: there is none."""
  match = _LETTER.match(answer.lower())
  return match and match.group(1)


def _right(rows: list[dict]) -> list[bool]:
  return [row["prediction"] == _truth(row) for row in rows]


def _label(row: dict) -> str:
  label = _truth(row).lower()
  if label not in ("yes", "no"):
    raise errors.UserError(f'pope: the truth of a row is {label!r}, wanted "yes" or "no"')
  return label


def _truth(row: dict) -> str:
  """The answer of a row that must have one."""
  found = targets.answers(row)
  if len(found) != 1:
    raise errors.UserError(f'a row has {len(found)} answers as "suffix", this metric needs one')
  return found[0]
