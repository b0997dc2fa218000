"""Scores of radiology reports."""

from paligemma_jax import errors
from paligemma_jax.metrics import scores, targets


@scores.of_terms(alone=("radgraph_f1",))
def radgraph(rows: list[dict]) -> scores.Terms:
  """RadGraph F1: entities and relations of a report that agree with those of the true one.

  The library's model reads both reports; it is fetched at the first call.

  Returns:
    "radgraph_f1": entities count when they have a relation or none as in the truth ("partial");
    "radgraph_f1/simple" without, "radgraph_f1/complete" with the relation itself; 0..1.

  Raises:
    errors.UserError: radgraph is not installed.

  Source: Delbrouck et al., arXiv:2210.12186; Jain et al., arXiv:2106.14463.
  """
  try:
    import radgraph as library
  except ImportError:
    raise errors.UserError(
      "radgraph needs the radgraph library, which is not installed; "
      "pip install paligemma_jax[radgraph]"
    ) from None
  kept = [i for i, row in enumerate(rows) if targets.answers(row)]
  score = library.F1RadGraph(reward_level="all", model_type="radgraph-xl")
  _, per_report, _, _ = score(
    hyps=[rows[i]["prediction"] for i in kept], refs=[targets.answers(rows[i])[0] for i in kept]
  )
  terms = {}
  for name, values in zip(("/simple", "", "/complete"), per_report, strict=True):
    own = dict(zip(kept, values, strict=True))
    terms[f"radgraph_f1{name}"] = scores.array([own.get(i) for i in range(len(rows))])
  return {"radgraph_f1": terms.pop("radgraph_f1"), **terms}
