"""A toy checkpoint with everything it needs, and two pictures."""

import json

import pytest
from PIL import Image

from paligemma_jax.checkpoint import formats
from paligemma_jax.cli import main
from paligemma_jax.processing import processor
from tests import toy


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory):
  """A Hugging Face folder of random weights with tokenizer and preprocessing."""
  path = tmp_path_factory.mktemp("toy") / "hf"
  config = toy.config()
  flat = toy.flat_params(config)
  files = processor.Processor(
    toy.tokenizer(), config.img.res, config.img.num_tokens, "bicubic"
  ).to_files()
  read = lambda name, layer=None: flat[name] if layer is None else flat[name][layer]
  formats.save(path, read, config, files)
  return str(path)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
  """Paths of two PNG files, 40 x 30 and 28 x 28 pixels."""
  folder = tmp_path_factory.mktemp("pictures")
  paths = []
  for i, picture in enumerate(toy.pictures()[:2]):
    Image.fromarray(picture).save(folder / f"{i}.png")
    paths.append(str(folder / f"{i}.png"))
  return paths


@pytest.fixture
def run(capsys):
  """run(*arguments) -> what the command prints; asserts that it ends well."""

  def call(*argv):
    status = main.main([str(a) for a in argv])
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out

  return call


@pytest.fixture
def refuse(capsys):
  """refuse(*arguments) -> the one line that is said; asserts status 2 and nothing else printed."""

  def call(*argv):
    status = main.main([str(a) for a in argv])
    said = capsys.readouterr()
    assert (status, said.out) == (2, ""), said.err
    assert said.err.startswith("paligemma: ") and said.err.count("\n") == 1, said.err
    return said.err

  return call


@pytest.fixture
def write_jsonl(tmp_path):
  """write_jsonl(name, records) -> path."""

  def write(name, records):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return str(tmp_path / name)

  return write
