"""Scores of visual question answering: several annotators, official normalisation, kinds of questions."""

import re

import numpy as np

from paligemma_jax import errors
from paligemma_jax.metrics import scores, targets, text

ANSWER_TYPES = {"yes/no": "yesno", "number": "number", "other": "other"}  # VQAv2's -> in our names
_ANNOTATORS = 10
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # in the official order
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {"none": "0"} | {
  word: str(i)
  for i, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
# Words that get their apostrophe back. With two, either may be missing, but not both.
_APOSTROPHES = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
  haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
  might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
  shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
  someone's something'd something'd've something'll that's there'd there'd've there're there's
  they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
  what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
  won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
_WORDS = {
  word[:i] + word[i + 1 :]: word for word in _APOSTROPHES for i, c in enumerate(word) if c == "'"
}
_WORDS |= {"somebody'd": "somebodyd", **_NUMBERS}  # the first as the official list has it


@scores.of_terms(alone=("acc",), check=lambda row: _accuracy({**row, "prediction": ""}))
def vqa_v2(rows: list[dict]) -> scores.Terms:
  """The VQA accuracy of ten annotators' answers, as VQAv2 and TextVQA are scored.

  Args:
    rows: with ten answers as "suffix", and "answer_type" ("yes/no", "number" or "other") where the
      kinds are told apart. Rows without answers are not counted.

  Returns:
    "acc", and for each kind that is there "acc/yesno", "acc/number", "acc/other" with the number of
    its rows as "num/yesno" and so on.

  Raises:
    errors.UserError: another number of answers, an unknown "answer_type".

  Source: big_vision, evaluators/proj/paligemma/transfers/vqav2.py; arXiv:1505.00468.
  """
  acc = scores.array([_accuracy(row) for row in rows])
  kinds = [row.get("answer_type") for row in rows]
  terms = {"acc": acc}
  for kind, name in ANSWER_TYPES.items():
    counts = ~np.isnan(acc) & [k == kind for k in kinds]
    terms[f"acc/{name}"] = scores.only(acc, counts)
    terms[f"num/{name}"] = scores.count(counts)
  return terms


@scores.of_terms(alone=("acc", "acc_any", "anls"))
def vqa(rows: list[dict]) -> scores.Terms:
  """Short answers as they stand: share of agreeing annotators, any of them, and ANLS.

  Args:
    rows: with "suffix": one answer, or a list. Rows without an answer are not counted.

  Returns:
    "acc": with one answer 1 when equal; with a list min(1, number of equal answers / 3).
    "acc_any": 1 when equal to any; "anls": the highest `text.anls` of any.

  Source: big_vision, evaluators/proj/paligemma/transfers/vqa.py.
  """
  return _simple_terms(rows)


@scores.of_terms(alone=("acc", "acc_any", "anls"))
def vqa_lower(rows: list[dict]) -> scores.Terms:
  """As `vqa`, both sides lower-cased."""
  return _simple_terms(rows, lower=True)


def _with_means(sums: scores.Sums) -> dict[str, np.ndarray]:
  values = scores.quotients(sums)
  types = [v for name, v in values.items() if name.startswith("acc_") and name != "acc_any"]
  if types:
    values["acc_avg"] = scores.mean(types)
  if {"acc_comp", "acc_presence"} <= values.keys():
    values["acc_avg_nonum"] = (values["acc_comp"] + values["acc_presence"]) / 2
  return values


@scores.of_terms(alone=("acc_any",), finish=_with_means)
def rsvqa(rows: list[dict]) -> scores.Terms:
  """RSVQA: accuracy by kind of question, lower-cased.

  Args:
    rows: with "suffix" and "question_type" ("comp", "count", "presence", "rural_urban", "area", …).

  Returns:
    "acc_any": share of right answers; "acc_TYPE" for every type there is; "acc_avg": the mean of
    the types; "acc_avg_nonum": the mean of comp and presence when both are there; "acc": a third of
    "acc_any", for the reference counts one answer as one of three annotators. "anls" as in `vqa`.

  Source: big_vision, evaluators/proj/paligemma/transfers/rsvqa.py.
  """
  listed = [{**row, "suffix": targets.answers(row)} for row in rows]
  terms = _simple_terms(listed, lower=True)
  kinds = [row.get("question_type") for row in rows]
  for kind in sorted({k for k in kinds if k}):
    terms[f"acc_{kind}"] = scores.only(terms["acc_any"], [k == kind for k in kinds])
  return terms


def accuracy(prediction: str, truths: list[str]) -> float:
  """The VQA accuracy of one prediction, 0..1: 0, 0.3, 0.6, 0.9, 1 for 0, 1, 2, 3, more matches.

  Mean over the ten ways to leave one annotator out of min(1, matches among the other nine / 3).
  Texts are normalised only where the annotators disagree.

  Raises:
    errors.UserError: not ten truths.
  """
  if len(truths) != _ANNOTATORS:
    raise errors.UserError(
      f"VQA accuracy needs {_ANNOTATORS} answers, found {len(truths)}; metric=vqa takes any number"
    )
  prediction, truths = strip(prediction), [strip(t) for t in truths]
  if len(set(truths)) > 1:
    prediction, truths = normalize(prediction), [normalize(t) for t in truths]
  matches = sum(t == prediction for t in truths)
  left_out = matches * min(1, (matches - 1) / 3) + (_ANNOTATORS - matches) * min(1, matches / 3)
  return left_out / _ANNOTATORS


def strip(answer: str) -> str:
  """The answer with line ends and tabs as spaces, without white space at its ends."""
  return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize(answer: str) -> str:
  """An answer as the official VQA evaluation compares it: punctuation, articles, numbers, apostrophes.

      "a T-Shirt."  ->  "t shirt"        "dont know, two"  ->  "don't know 2"

  Two oddities are the official ones: digit-comma-digit anywhere deletes all punctuation, and a full
  stop goes unless a digit follows, whatever is before.

  Source: GT-Vision-Lab/VQA, vqaEval.py, as big_vision reads it.
  """
  has_thousands, out = re.search(r"\d,\d", answer), answer
  for mark in _PUNCTUATION:
    at_edge = f"{mark} " in answer or f" {mark}" in answer
    out = out.replace(mark, "" if has_thousands or at_edge else " ")
  words = re.sub(r"\.(?!\d)", "", out).lower().split()
  return " ".join(_WORDS.get(word, word) for word in words if word not in _ARTICLES)


def _accuracy(row: dict) -> float | None:
  kind, truths = row.get("answer_type"), targets.answers(row)
  if not truths:
    return None
  if kind is not None and kind not in ANSWER_TYPES:
    raise errors.UserError(
      f'a row\'s "answer_type" is {kind!r}{errors.did_you_mean(kind, ANSWER_TYPES)}'
    )
  return accuracy(row["prediction"], truths)


def _simple_terms(rows: list[dict], lower: bool = False) -> scores.Terms:
  terms = {"acc": [], "acc_any": [], "anls": []}
  for row in rows:
    values = _simple(row, lower) if targets.answers(row) else (None,) * 3
    for column, value in zip(terms.values(), values):
      column.append(value)
  return {name: scores.array(column) for name, column in terms.items()}


def _simple(row: dict, lower: bool) -> tuple[float, float, float]:
  """acc, acc_any and anls of a row with an answer."""
  prediction, wanted = row["prediction"], targets.answers(row)
  if lower:
    prediction, wanted = prediction.lower(), [a.lower() for a in wanted]
  matches = wanted.count(prediction)
  needed = 1 if isinstance(row["suffix"], str) else 3
  return (
    min(1.0, matches / needed),
    float(matches > 0),
    max(text.anls(prediction, a) for a in wanted),
  )
