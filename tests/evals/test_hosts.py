import pytest

from paligemma_jax import errors
from paligemma_jax.evals import hosts


def test_rows_of_several_processes_are_in_the_order_of_the_data(monkeypatch):
  other = [(0, [{"id": 2}, {"id": 3}]), (1, [])]  # its share of both batches, the last one ends
  monkeypatch.setattr(hosts.sharding, "gather_rows", lambda parts: [*parts, *other])
  rows = hosts.gathered([{"id": 0}, {"id": 1}, {"id": 4}], [2, 1])
  assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]


def test_nothing_to_evaluate_is_a_users_error():
  with pytest.raises(errors.UserError, match="no examples"):
    hosts.gathered([], [])
