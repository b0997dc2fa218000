import types

import jax
import numpy as np
import pytest

from paligemma_jax import errors, exchange, sharding
from paligemma_jax.evals import hosts
from tests import toy


def _answer(mesh) -> list[tuple[int, dict]]:
  """What this process gives to the others: its rows of ten examples in batches of eight, with their
  places. The figure of an example is ten times its number."""
  here = sharding.rows_here(mesh, sharding.FSDP, 8)
  batches = []
  for start in (0, 8):
    batch = types.SimpleNamespace(start=start, valid=start + here < 10)
    batches.append((batch, [{"id": i} for i in start + here[batch.valid]]))
  places, rows = [], []
  for batch, examples in hosts.placed(batches, places, lambda batch: (here, 8)):
    figures = hosts.local(10 * np.arange(batch.start, batch.start + 8), here)[batch.valid]
    rows += [{**row, "figure": x} for row, x in zip(examples, figures, strict=True)]
  return list(zip(places, rows, strict=True))


@pytest.mark.parametrize("layout, tensor", [("0011", 1), ("0110", 1), ("0101", 2), ("0110", 2)])
def test_every_example_has_its_own_figure_whatever_the_order_of_the_processes(
  layout, tensor, monkeypatch
):
  mesh, given = toy.mesh(layout, tensor), []
  for process in range(2):
    monkeypatch.setattr(jax, "process_index", lambda: process)  # noqa: B023 - used at once
    given += _answer(mesh)
  monkeypatch.setattr(exchange, "gather", lambda rows: given)
  found = [(row["id"], row["figure"]) for row in hosts.gathered([], [])]
  assert found == [(i, 10 * i) for i in range(10)]


def test_nothing_to_evaluate_is_a_users_error():
  with pytest.raises(errors.UserError, match="no examples"):
    hosts.gathered([], [])
