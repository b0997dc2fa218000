"""Batches that are prepared ahead of time."""

import itertools
import threading

import pytest

from paligemma_jax.train import feed


def test_everything_arrives_in_order():
  fed = feed.Feed(iter(range(5)), lambda x: x * 10)
  assert list(fed) == [0, 10, 20, 30, 40]
  fed.close()


def test_it_works_ahead_but_not_without_end():
  taken, ahead = [], threading.Event()

  def batches():
    for i in itertools.count():
      taken.append(i)
      if len(taken) == 4:  # one given out, two ready, one in hand
        ahead.set()
      yield i

  fed = feed.Feed(batches(), lambda x: x, depth=2)
  assert next(fed) == 0
  assert ahead.wait(timeout=60)
  fed.close()
  assert len(taken) == 4


def test_an_error_arrives_where_the_batch_would_have():
  def batches():
    yield 1
    raise ValueError("broken.jpg")

  fed = feed.Feed(batches(), lambda x: x)
  assert next(fed) == 1
  for _ in range(2):
    with pytest.raises(ValueError, match="broken.jpg"):
      next(fed)
  fed.close()


def test_closing_ends_the_thread():
  before = threading.active_count()
  fed = feed.Feed(itertools.count(), lambda x: x)
  fed.close()
  assert threading.active_count() == before
