"""Scores of short answers."""


def exact_match(rows: list[dict]) -> dict[str, float]:
  """Share of predictions that equal the truth as they stand: no stripping, no lower-casing.

  Returns:
    "exact_match", 0..1: the prediction is the truth, or the first answer where there is a list;
    "exact_match_any", only where a row has a list: it is any of the answers.
    Rows without truth (None, or an empty list) are not counted; {} if there is no other.

  Source: big_vision, evaluators/proj/paligemma/transfers/vqa.py (`acc` of one answer, `acc_any`).
  """
  pairs = [(row["prediction"], answers(row)) for row in rows]
  pairs = [(prediction, wanted) for prediction, wanted in pairs if wanted]
  if not pairs:
    return {}
  scores = {"exact_match": sum(p == wanted[0] for p, wanted in pairs) / len(pairs)}
  if any(not isinstance(row.get("suffix"), str | None) for row in rows):
    scores["exact_match_any"] = sum(p in wanted for p, wanted in pairs) / len(pairs)
  return scores


def answers(row: dict) -> list[str]:
  """The truths of a row as a list: none, one, or all that its "suffix" lists."""
  suffix = row.get("suffix")
  if suffix is None:
    return []
  return [suffix] if isinstance(suffix, str) else list(suffix)
