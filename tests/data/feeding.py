"""Batches of a training, as the tests of the pipeline take them."""

import itertools

import numpy as np

from paligemma_jax import structs
from paligemma_jax.data import pipeline

TEXT_LEN = 16


def train(sources, processor, count, **options):
  """The first `count` batches."""
  options = {"batch_size": 4, "text_len": TEXT_LEN, "seed": 3, **options}
  with pipeline.train_batches(sources, processor, **options) as batches:
    return list(itertools.islice(batches, count))


def assert_equal(a, b):
  """Every field of two batches."""
  for name, x, y in zip(structs.Batch._fields, a, b, strict=True):
    np.testing.assert_array_equal(x, y, name)


def texts(processor, batches):
  """The text of every row."""
  found = []
  for text in np.concatenate([b.text for b in batches]):
    found.append(processor.tokenizer.decode(text))
  return found
