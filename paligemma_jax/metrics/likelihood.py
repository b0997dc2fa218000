"""How likely the true answers are to a model; scores in nats, lower is better."""

from paligemma_jax.metrics import scores


@scores.of_terms(alone=("sum", "avg"))
def perplexity(rows: list[dict]) -> scores.Terms:
  """Mean over examples, each weighing the same, of the negative log-likelihood of the suffix, nats.

  Despite the name nothing is exponentiated.

  Args:
    rows: with "nll_sum" and "nll_avg", the sum and the mean over the tokens of suffix and EOS.

  Returns:
    {"sum", "avg"}.

  Source: big_vision, evaluators/proj/paligemma/perplexity.py.
  """
  return {key: scores.array([row[f"nll_{key}"] for row in rows]) for key in ("sum", "avg")}
