"""How likely the true answers are to a model; scores in nats, lower is better."""


def perplexity(rows: list[dict]) -> dict[str, float]:
  """Mean over examples, each weighing the same, of the negative log-likelihood of the suffix, nats.

  Despite the name nothing is exponentiated.

  Args:
    rows: with "nll_sum" and "nll_avg", the sum and the mean over the tokens of suffix and EOS.

  Returns:
    {"sum", "avg"}.

  Source: big_vision, evaluators/proj/paligemma/perplexity.py.
  """
  return {key: sum(row[f"nll_{key}"] for row in rows) / len(rows) for key in ("sum", "avg")}
