"""A miniature of each format, and the way from it to what the model is trained on."""

import json

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import pipeline, sources
from paligemma_jax.data.importers import formats
from tests.data.importers.marked import MASK


@pytest.fixture
def draw(tmp_path):
  """draw(path, mask, …) -> path of a picture that is red where the mask is, else grey."""

  def save(path, mask=MASK, **options):
    path = tmp_path / path
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(mask[..., None], np.uint8([255, 0, 0]), np.uint8(128))
    Image.fromarray(pixels).save(path, **options)
    return path

  return save


@pytest.fixture
def put(tmp_path):
  """put(path, content) writes a text file, or JSON, and returns its path."""

  def write(path, content):
    path = tmp_path / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path

  return write


@pytest.fixture
def convert(tmp_path):
  """convert(format, src, …) -> (source of what was imported, what was said about it)."""

  def call(name, src, dst="out.jsonl", **options):
    said = formats.convert(name, src, tmp_path / dst, **options)
    assert not list(tmp_path.glob("*.tmp"))
    return sources.open_source({"path": str(tmp_path / dst)}), said

  return call


@pytest.fixture
def rows(processor, codec):
  """rows(source, task) -> rows of its examples; every text that is trained on is checked first."""

  def read(source, task="text"):
    config = {"path": source.path, "task": task}
    options = dict(batch_size=1, text_len=200, codec=codec)
    found = []
    for batch, (row,) in pipeline.eval_batches(config, processor, **options, with_suffix=True):
      answers = row["suffix"] if isinstance(row["suffix"], list) else [row["suffix"]]
      assert processor.tokenizer.decode(batch.text[0]) == f"{row['prefix']}\n{answers[0]}"
      found.append(row)
    with pipeline.train_batches({"x": config}, processor, seed=0, **options) as batches:
      assert next(batches).mask_loss.any()
    return found

  return read
