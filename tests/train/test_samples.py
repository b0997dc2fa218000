"""The miniatures that `:debug` runs on: built once, complete, with what else a run needs."""

import pytest

from paligemma_jax import errors
from paligemma_jax.data import sources
from paligemma_jax.models import vqvae
from paligemma_jax.processing import tokenizer
from paligemma_jax.train import samples, setup
from paligemma_jax.transfers import okvqa


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("PALIGEMMA_CACHE", str(tmp_path_factory.mktemp("cache")))
    setup.build("sample:okvqa")
    yield samples.directory()


def test_the_config_finds_its_data(folder):
  c = okvqa.get_config("debug")
  for source in (*c.train.data.values(), *(e.data for e in c.evals.values())):
    records = sources.open_source(source.to_dict())
    assert len(records) > 1 and records[0]["question"]


def test_the_tokenizer_writes_anything_and_fits_the_tiny_model(folder):
  made = tokenizer.Tokenizer.from_path(folder / "tokenizer.model")
  assert made.vocab_size <= 1536
  for text in ("answer en what?", "ßüñ 東京 🙂", "<loc0012><seg003>"):
    assert made.decode(made.encode(text)) == text


def test_the_codec_opens(folder):
  assert vqvae.load(str(folder / "codec.npz"))


def test_what_is_there_is_left_alone(folder):
  before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
  samples.prepare(["okvqa"])
  assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize(
  "name, words",
  [("sample:okvqb", 'did you mean "okvqa"'), ("sampel:okvqa", 'build: "sampel:okvqa" is unknown')],
)
def test_a_wrong_name_is_told(folder, name, words):
  with pytest.raises(errors.UserError, match=words):
    setup.build(name)
