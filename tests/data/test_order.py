import pickle

import numpy as np
import pytest

from paligemma_jax.data import order


def mixture(*weights):
  return {f"s{k}": {"weight": w} for k, w in enumerate(weights)}


@pytest.mark.parametrize(
  "weights, counts",  # in a period
  [
    ((1.0, 3.0), [1, 3]),
    ((0.3, 0.7), [3, 7]),
    ((0.3, 0.6, 0.1), [3, 6, 1]),
    ((1.0, 1.005), [200, 201]),
    ((113287.0, 566435.0), [113287, 566435]),
    ((0.4, 0.2, 2.0, 1.5, 1.5), [4, 2, 20, 15, 15]),
    ((5.0,), [1]),
  ],
)
def test_shares_are_exact(weights, counts):
  period = sum(counts)
  for start in (0, 7, 3 * period + 1):  # wherever a period begins
    numbers = order.source_numbers(mixture(*weights), start, start + period)
    assert np.bincount(numbers).tolist() == counts


def test_weights_without_a_short_period_are_right_to_a_millionth():
  weights = np.array([1 / 3, 0.1234567891, 2**0.5])
  numbers = order.source_numbers(mixture(*weights.tolist()), 0, 2**20)
  shares = np.bincount(numbers) / len(numbers)
  np.testing.assert_allclose(shares, weights / weights.sum(), atol=2e-6)


@pytest.mark.parametrize("count, most", [(2, 1), (5, 2), (35, 3)])
def test_no_source_runs_ahead(count, most):
  weights = np.random.default_rng(count).integers(1, 40, count).astype(float)
  numbers = order.source_numbers(mixture(*weights), 0, int(weights.sum()))
  seen = np.cumsum(np.eye(count)[numbers], axis=0)
  wanted = np.arange(1, len(numbers) + 1)[:, None] * weights / weights.sum()
  assert np.abs(seen - wanted).max() <= most


def test_every_epoch_of_a_source_is_another_permutation_of_its_records():
  positions = order.Order([5, 7], mixture(1.0, 3.0), seed=0)
  picked = [positions[p] for p in range(4 * 35)]  # 35 of the first, 105 of the second
  for number, length in ((0, 5), (1, 7)):
    records = [i for k, i in picked if k == number]
    epochs = [tuple(records[k : k + length]) for k in range(0, len(records), length)]
    assert all(sorted(epoch) == list(range(length)) for epoch in epochs)
    assert len(set(epochs)) > len(epochs) / 2


def test_sources_of_the_same_length_have_orders_of_their_own():
  positions = order.Order([50, 50], mixture(1.0, 1.0), seed=0)
  picked = [positions[p] for p in range(200)]  # two epochs of each
  one, other = ([i for k, i in picked if k == number] for number in (0, 1))
  assert sorted(one) == sorted(other)
  assert sum(a == b for a, b in zip(one, other)) < 20  # about two are expected


def test_the_order_of_a_source_does_not_depend_on_the_others():
  alone = order.Order([7], {"s1": {}}, seed=3)
  mixed = order.Order([5, 7], mixture(1.0, 3.0), seed=3)
  records = [i for k, i in (mixed[p] for p in range(40)) if k == 1]
  assert records == [alone[p][1] for p in range(30)]
  assert records != [order.Order([7], {"s1": {}}, seed=4)[p][1] for p in range(30)]


def test_a_copy_in_another_process_is_the_same():
  one = order.Order([5, 7], mixture(1.0, 3.0), seed=3)
  copy = pickle.loads(pickle.dumps(one))
  assert [one[p] for p in (0, 99, 2**40)] == [copy[p] for p in (0, 99, 2**40)]
