"""A small folder of pictures and a JSONL file about them, and a processor of 28 px."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import toy


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
  monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write(tmp_path):
  """Writes records (or raw lines) as a JSONL file and returns its path."""

  def write(records, name="data.jsonl"):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)

  return write


@pytest.fixture
def pictures(tmp_path):
  """p0.png … p3.png beside the JSONL file: the toy pictures, 40 x 30, 28 x 28, 9 x 17, 31 x 50."""
  for i, picture in enumerate(toy.pictures()):
    Image.fromarray(picture).save(tmp_path / f"p{i}.png")
  return tmp_path


@pytest.fixture(scope="session")
def processor():
  from paligemma_jax.processing import processor as processors

  return processors.Processor(
    tokenizer=toy.tokenizer(), res=28, num_image_tokens=4, resize="bilinear_antialias"
  )


@pytest.fixture(scope="session")
def codec():
  """Random parameters of a narrow mask codec."""
  from paligemma_jax.models import vqvae

  rng = np.random.default_rng(0)
  shapes = vqvae.param_shapes(hidden=2, embedding=8)
  return {k: rng.normal(size=v).astype(np.float32) * 0.3 for k, v in shapes.items()}
