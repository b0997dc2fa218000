"""How likely the true answers are to a model; scores in nats, lower is better."""

import dataclasses

import numpy as np

from paligemma_jax.metrics import scores, targets

# A row that was measured had an answer.
_MEASURED = dataclasses.replace(
  targets.ANSWERS, of=lambda row: ["nll_sum"] if "nll_sum" in row else targets.ANSWERS.of(row)
)


@scores.of_terms(alone=("sum", "avg"), target=_MEASURED)
def perplexity(rows: list[dict]) -> scores.Terms:
  """Mean over examples, each weighing the same, of the negative log-likelihood of the suffix, nats.

  Despite the name nothing is exponentiated.

  Args:
    rows: with "nll_sum" and "nll_avg", the sum and the mean over the tokens of suffix and EOS.

  Returns:
    {"sum", "avg"}; infinite if a row's is not a number, as of a model that is broken.

  Source: big_vision, evaluators/proj/paligemma/perplexity.py.
  """
  columns = {key: np.array([row[f"nll_{key}"] for row in rows]) for key in ("sum", "avg")}
  return {key: np.nan_to_num(column, nan=np.inf) for key, column in columns.items()}
