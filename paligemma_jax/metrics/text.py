"""Scores of short answers as strings: equal, near, or a number that is near."""

from collections.abc import Sequence

from paligemma_jax.metrics import scores, targets

_NEAR = 0.5  # ANLS: what differs by this share of its length, or more, counts nothing


@scores.of_terms(alone=("exact_match", "exact_match_any"))
def exact_match(rows: list[dict]) -> scores.Terms:
  """Share of predictions that equal the truth as they stand: no stripping, no lower-casing.

  Returns:
    "exact_match", 0..1: the prediction is the truth, or the first answer where there is a list;
    "exact_match_any", only where a row has a list: it is any of the answers.
    Rows without truth (None, or an empty list) are not counted.

  Source: big_vision, evaluators/proj/paligemma/transfers/vqa.py (`acc` of one answer, `acc_any`).
  """
  pairs = [(row["prediction"], targets.answers(row)) for row in rows]
  terms = {"exact_match": scores.array([p == a[0] if a else None for p, a in pairs])}
  if any(not isinstance(row.get("suffix"), str | None) for row in rows):
    terms["exact_match_any"] = scores.array([p in a if a else None for p, a in pairs])
  return terms


@scores.of_terms(alone=("relaxed_acc", "acc"))
def relaxed_accuracy(rows: list[dict]) -> scores.Terms:
  """ChartQA's accuracy, on lower-cased strings; with several answers any of them.

  Returns:
    "relaxed_acc": share of predictions that `relaxed_match` an answer; "acc": that equal one.
    Rows without truth are not counted.

  Source: big_vision, evaluators/proj/paligemma/transfers/chartqa.py.
  """
  relaxed, equal = [], []
  for row in rows:
    prediction, wanted = row["prediction"].lower(), [a.lower() for a in targets.answers(row)]
    relaxed.append(any(relaxed_match(prediction, a) for a in wanted) if wanted else None)
    equal.append(prediction in wanted if wanted else None)
  return {"relaxed_acc": scores.array(relaxed), "acc": scores.array(equal)}


def relaxed_match(prediction: str, target: str, tolerance: float = 0.05) -> bool:
  """Whether two ChartQA answers agree: numbers within a relative error, all else exactly.

  "7%" reads as 0.07. Nothing is relative to 0, so a target of "0" needs the same string; a target
  "nan" agrees with no number.

  Args:
    prediction: what the model wrote.
    target: the reference answer.
    tolerance: allowed |prediction - target| / |target|, a fraction (0.05 is 5 %).

  Source: ChartQA (arXiv:2203.10244), section 5.1.
  """
  found, wanted = number(prediction), number(target)
  if found is None or not wanted:
    return prediction == target
  # The quotient, as the reference: the product differs at the edge.
  return abs(found - wanted) / abs(wanted) <= tolerance


def number(text: str) -> float | None:
  """The number that a text is, by Python's rules, "5%" as 0.05; None: it is none."""
  try:
    return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
  except ValueError:
    return None


def anls(prediction: str, target: str) -> float:
  """Levenshtein similarity of two strings, 0..1; 0 when at least half differs.

  Lengths are in code points; white space and case count.

  Source: Biten et al., arXiv:1907.00490, section 4.
  """
  if not target:
    return float(not prediction)
  longest = max(len(target), len(prediction))
  # Each missing character is an edit: too few of them is known without looking.
  if abs(len(target) - len(prediction)) / longest >= _NEAR:
    return 0.0
  share = distance(prediction, target) / longest
  return 1.0 - share if share < _NEAR else 0.0


def distance(a: Sequence, b: Sequence) -> int:
  """Levenshtein distance: fewest insertions, deletions and replacements of items, each 1.

  A column of the usual table is two integers, a bit for every step up and every step down between
  its entries, so that a whole column follows from the one before in a few operations.

  Source: Myers, doi:10.1145/316542.316550, for distances as in Hyyrö, Nordic J. Computing 10 (2003).
  """
  if not a:
    return len(b)
  places = {}
  for i, item in enumerate(a):
    places[item] = places.get(item, 0) | 1 << i
  every, last, total = (1 << len(a)) - 1, 1 << (len(a) - 1), len(a)
  up, down = every, 0
  for item in b:
    equal = places.get(item, 0)
    diagonal = (((equal & up) + up) ^ up) | equal
    right_up, right_down = down | ~(diagonal | up) & every, up & diagonal
    total += bool(right_up & last) - bool(right_down & last)
    right_up, right_down = (right_up << 1) | 1, right_down << 1
    up, down = (right_down | ~(equal | down | right_up)) & every, right_up & (equal | down)
  return total
