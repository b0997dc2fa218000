import itertools

import numpy as np
import pytest

from paligemma_jax.metrics import matching


@pytest.mark.parametrize(
  "a, b, want",
  [
    ((0, 0, 10, 10), (0, 0, 10, 10), 1),
    ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
    ((0, 0, 10, 10), (10, 0, 20, 10), 0),  # touching: the end is exclusive
    ((0, 0, 10, 10), (2, 2, 4, 4), 4 / 100),
    ((0, 0, 0, 0), (0, 0, 0, 0), 0),  # an empty box has no overlap, not even with itself
    ((10, 10, 0, 0), (0, 0, 10, 10), 0),  # inverted
  ],
)
def test_box_iou(a, b, want):
  assert matching.box_iou(a, b) == pytest.approx(want)
  assert matching.box_iou(b, a) == pytest.approx(want)


def test_mask_iou():
  left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
  left[:, :2], top[:2] = True, True
  assert matching.mask_iou(left, top) == 4 / 12
  assert matching.mask_iou(left, left) == 1
  assert matching.mask_iou(left, None) == 0
  assert matching.mask_iou(left & False, left & False) == 0


def test_the_best_sum_wins_over_the_best_pair():
  table = np.array([[0.6, 0.55], [0.55, 0.0]])  # greedy would take 0.6 and leave row 1 alone
  assert matching.assign(table).tolist() == [0.55, 0.55]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (4, 5), (0, 3), (3, 0), (0, 0)])
def test_assignment_equals_trying_all(shape):
  rng = np.random.default_rng(sum(shape))
  for _ in range(20):
    table = rng.random(shape) * (rng.random(shape) < 0.7)
    got = matching.assign(table)
    padded = np.pad(table, ((0, 0), (0, shape[0])))  # a column of its own for being left alone
    tries = itertools.permutations(range(padded.shape[1]), shape[0])
    want = max(sum(padded[i, j] for i, j in enumerate(p)) for p in tries)
    assert got.shape == (shape[0],)
    assert got.sum() == pytest.approx(want)


def test_labels_must_agree_where_both_are_given():
  cat, dog, nameless = {"label": "cat"}, {"label": "dog"}, {"label": ""}
  table = matching.overlaps([cat, dog], [cat, nameless, dog], lambda a, b: 1.0)
  assert table.tolist() == [[1, 1, 0], [0, 1, 1]]
