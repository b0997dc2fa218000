"""How likely the true answers are to a model; scores in nats, lower is better."""

import dataclasses

import numpy as np

from paligemma_jax.metrics import scores, targets


def _measured(row: dict) -> list:
  """The true answers; of a row that was measured, and does not say what on, its likelihood."""
  return targets.answers(row) if "suffix" in row else [row[k] for k in ("nll_sum",) if k in row]


@scores.of_terms(alone=("sum", "avg"), target=dataclasses.replace(targets.ANSWERS, of=_measured))
def perplexity(rows: list[dict]) -> scores.Terms:
  """Mean over examples, each weighing the same, of the negative log-likelihood of the suffix, nats.

  Despite the name nothing is exponentiated.

  Args:
    rows: with "nll_sum" and "nll_avg", the sum and the mean over the tokens of suffix and EOS. Rows
      without an answer are not counted: of them only the end was measured.

  Returns:
    {"sum", "avg"}; infinite if a row's is not a number, as of a model that is broken.

  Source: big_vision, evaluators/proj/paligemma/perplexity.py.
  """
  counts = [bool(_measured(row)) for row in rows]
  columns = {key: np.array([row[f"nll_{key}"] for row in rows]) for key in ("sum", "avg")}
  return {
    key: scores.only(np.nan_to_num(column, nan=np.inf), counts) for key, column in columns.items()
  }
