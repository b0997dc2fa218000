"""How likely a model finds the true suffixes, in nats; no text is generated.

Despite the name nothing is exponentiated, as in big_vision, evaluators/proj/paligemma/perplexity.py.
The batches must have the training layout: the evaluation layout has no suffix to measure.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax import structs
from paligemma_jax.models import loss


def terms(nll: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  """Per-example sum, and mean over supervised tokens, of float32[B, T] nats: two float32[B].

  Args:
    nll: negative log-likelihood of every target token.
    weights: float[B, T], mask_loss of the targets; None counts all tokens, prefix and padding too.
  """
  weights = jnp.ones_like(nll) if weights is None else weights
  total = (nll * weights).sum(axis=1)
  # The reference's guard: without any supervised token both are 0.
  return total, total / jnp.maximum(weights.sum(axis=1), 2e-38)


@functools.partial(jax.jit, static_argnames="model")
def nll_terms(model, params: dict, batch: structs.Batch) -> tuple[jax.Array, jax.Array]:
  """`terms` of a batch in the training layout."""
  hidden = model.apply(
    {"params": params},
    batch.image,
    batch.text[:, :-1],
    batch.mask_ar[:, :-1],
    mask_image=batch.mask_image,
    method="hidden",
  )
  nll = loss.token_nll(
    hidden,
    params["llm"]["embedder"]["input_embedding"],
    batch.text[:, 1:],
    final_logits_softcap=model.config.llm.final_logits_softcap,
    dtype=model.dtype,
  )
  return terms(nll, batch.mask_loss[:, 1:])


def measure(
  batches: Iterable[tuple[structs.Batch, list[dict]]],
  step: Callable[[structs.Batch], tuple[np.ndarray, np.ndarray]],
) -> Iterator[dict]:
  """The rows, each with "nll_sum" and "nll_avg" in nats, as `metrics.likelihood` scores them.

  Args:
    batches: pairs (Batch in the training layout, one dict per valid example).
    step: Batch -> `terms` of this process's examples, float32[B] each.
  """
  for batch, rows in batches:
    total, mean = (np.asarray(x)[batch.valid] for x in step(batch))
    for row, s, a in zip(rows, total, mean, strict=True):
      yield {**row, "nll_sum": float(s), "nll_avg": float(a)}
