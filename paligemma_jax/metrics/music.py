"""Scores of optical music recognition: error rates of `**kern` texts, lower is better."""

import numpy as np

from paligemma_jax.metrics import scores, targets, text


class _Rates(scores.Score):
  """A row's score is what is left of 1 after its characters' error rate: higher is better."""

  def per_row(self, rows):
    edits, lengths = self.terms(rows)["cer"]
    left = 1 - scores.quotient(edits, lengths)
    return [{} if np.isnan(v) else {"accuracy": max(0.0, float(v))} for v in left]


@_Rates
def music(rows: list[dict]) -> scores.Terms:
  """Error rates: edit distance to the truth over all pages / length of all truths.

  Returns:
    "cer" in characters, "ser" in symbols (what spaces separate, each tab and each line end), "ler"
    in lines. 0 is perfect; more than 1 is possible.

  Source: Ríos-Vila et al., doi:10.1007/s10032-023-00432-z, section 5.2, and antoniorv6/SMT,
  eval_functions.py.
  """
  units = {"cer": list, "ser": _symbols, "ler": lambda page: page.split("\n")}
  return {name: _rate(rows, split) for name, split in units.items()}


def _rate(rows: list[dict], split) -> tuple[np.ndarray, np.ndarray]:
  """Edits and lengths of the truths, both 0 for a row without."""
  edits, lengths = np.zeros((2, len(rows)))
  for i, row in enumerate(rows):
    for truth in map(split, targets.answers(row)[:1]):
      edits[i], lengths[i] = text.distance(split(row["prediction"]), truth), len(truth)
  return edits, lengths


def _symbols(page: str) -> list[str]:
  return page.replace("\n", " <b> ").replace("\t", " <t> ").split(" ")
