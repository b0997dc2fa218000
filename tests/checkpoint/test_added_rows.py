"""Rows behind <image>: kept when there is more than padding, in every format."""

import json

import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats, hf_config
from paligemma_jax.processing import processor as processor_lib
from paligemma_jax.processing import tokenizer as tokenizer_lib
from tests import toy
from tests.checkpoint import toys

V = 1500  # id of <image>


def with_tokens(*tokens) -> tokenizer_lib.Tokenizer:
  """The toy tokenizer with `tokens` behind <image>."""
  files = toy.tokenizer().to_files()
  added = json.loads(files["added_tokens.json"]) | {t: V + 1 + i for i, t in enumerate(tokens)}
  return tokenizer_lib.Tokenizer.from_files(
    files | {"added_tokens.json": json.dumps(added).encode()}
  )


def folder(path, rows, tokenizer=None):
  """A Hub folder with a table of `rows`, <image> at V; returns flat name -> array."""
  assets = {}
  if tokenizer:
    assets = processor_lib.Processor(tokenizer, res=28, num_image_tokens=4).to_files()
  # Without a tokenizer <image> is written behind all rows; it is put to V afterwards.
  _, flat = toys.write(path, vocab_size=rows, assets=assets)
  config = json.loads((path / "config.json").read_text())
  config["image_token_index"] = V
  (path / "config.json").write_text(json.dumps(config))
  return flat


@pytest.mark.parametrize("rows", [V + 3, V + 36, V + 100])
def test_rows_of_added_tokens_are_kept_in_every_format(tmp_path, rows):
  """Resized to the tokens; within the padding, V + 36 being a multiple of 64; padded further."""
  tokenizer = with_tokens("<s_ok>", "<s_bad>")
  flat = folder(tmp_path / "a", rows, tokenizer)
  source = formats.open(tmp_path / "a")
  assert source.config.llm.vocab_size == rows
  toys.assert_same(source, flat)
  formats.convert(tmp_path / "a", tmp_path / "b.npz")
  formats.convert(tmp_path / "b.npz", tmp_path / "c", to="orbax")
  formats.convert(tmp_path / "c", tmp_path / "d")
  for name in ("b.npz", "c", "d"):
    found = formats.open(tmp_path / name)
    toys.assert_same(found, flat)
    assert tokenizer_lib.Tokenizer.from_files(found.assets) == tokenizer
  weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in "ad"]
  assert weights[0] == weights[1]
  config = json.loads((tmp_path / "d/config.json").read_text())
  assert (config["image_token_index"], config["text_config"]["vocab_size"]) == (V, rows)


@pytest.mark.parametrize(
  "rows, kept", [(V, V), (V + 1, V), (V + 36, V), (V + 3, V + 3), (1600, 1600)]
)
@pytest.mark.parametrize("tokenizer", [None, toy.tokenizer()])
def test_without_added_tokens_only_the_usual_padding_is_dropped(tmp_path, rows, kept, tokenizer):
  config = {"image_token_index": V, "text_config": {"vocab_size": rows}}
  tokens = V + 1 if tokenizer else 0
  assert hf_config.read(config, "x", tokens).llm.vocab_size == kept


def test_tokens_without_a_row_are_refused_with_their_number(tmp_path):
  folder(tmp_path / "x", V + 2, with_tokens("<a>", "<b>", "<c>"))
  with pytest.raises(errors.UserError, match="has 1504 tokens: 2 that were added have no row"):
    formats.open(tmp_path / "x")


@pytest.mark.parametrize("rows", [V + 1, V + 36, V + 100])
def test_a_tokenizer_with_fewer_tokens_than_rows_is_written_with_its_own_image_token(
  tmp_path, rows
):
  """As trained from scratch: transformers puts <image> where the tokenizer has it."""
  assets = processor_lib.Processor(toy.tokenizer(), res=28, num_image_tokens=4).to_files()
  cfg, flat = toys.write(tmp_path / "x", vocab_size=rows, assets=assets)
  assert json.loads((tmp_path / "x/config.json").read_text())["image_token_index"] == V
  source = formats.open(tmp_path / "x")
  assert source.config == cfg
  toys.assert_same(source, flat)
