"""Our exported files in the installed transformers: the same ids, pixels and texts."""

import dataclasses
import random
import string

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.processing import processor as processor_lib
from paligemma_jax.processing import tokenizer as tokenizer_lib
from tests import toy

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def larger():
  """A tokenizer with long chains of merges, trained on made-up words of several scripts."""
  rng = random.Random(0)
  syllables = ["ba", "lo", "ri", "tan", "é", "ße", "да", "не", "語", "日本", "12", "==", "--"]
  words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(400)]
  lines = [" ".join(rng.choices(words, k=8)) for _ in range(600)]
  return tokenizer_lib.Tokenizer.train(lines, 3500)


@pytest.fixture(scope="module", params=["toy", "larger"])
def both(request, tmp_path_factory):
  """(ours, theirs) of the same files."""
  transformers = pytest.importorskip("transformers")
  t = toy.tokenizer() if request.param == "toy" else request.getfixturevalue("larger")
  ours = processor_lib.Processor(t, res=28, num_image_tokens=4, resize="bicubic")
  path = tmp_path_factory.mktemp(request.param)
  for name, content in ours.to_files().items():
    (path / name).write_bytes(content)
  return ours, transformers.AutoProcessor.from_pretrained(str(path))


def texts() -> list[str]:
  rng = random.Random(1)
  letters = string.ascii_letters + string.digits + " " * 20 + "\n\n\t.,;<>-=éßдане語日本🙂"
  made_up = ["".join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(300)]
  words = ["balo", "ritan", "日本語", "данет", "tanéßeba", "1212", "====", "-----", "lololo"]
  chains = [rng.choice(("", " ")).join(rng.choices(words, k=6)) for _ in range(200)]
  return [
    *made_up, *chains, "", " ", " " * 17, "\n" * 5, "a\n\n\nb", "\t\t", "a  b   c    d     e",
    "<loc0012><loc1023> cat ; <seg003><seg127>", "<loc1024><loc12><seg128>", "▁ literal ▁▁",
    "x\r\ny", "\u00a0 \u200b", "👩‍👩‍👧", "<start_of_turn>user", "a" * 40, "ab" * 20, "=" * 77,
  ]  # fmt: skip


def test_ids_are_equal(both):
  ours, theirs = both
  for text in texts():
    ids = theirs.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ours.tokenizer.encode(text) == ids, text


def test_the_special_ids_are_equal(both):
  ours, theirs = both
  t = ours.tokenizer
  names = ["<pad>", "<eos>", "<bos>", "<loc0000>", "<seg000>", "<image>"]
  ids = theirs.tokenizer.convert_tokens_to_ids(names)
  assert ids == [t.pad, t.eos, t.bos, t.loc0, t.seg0, t.vocab_size]
  assert theirs.image_seq_length == ours.num_image_tokens


def test_decoded_texts_are_equal(both):
  """Wherever the bytes are valid UTF-8: SentencePiece marks bad characters, tokenizers bad runs."""
  ours, theirs = both
  t, rng = ours.tokenizer, random.Random(2)
  rows = [t.encode(text) for text in texts()]
  rows += [rng.choices(range(270, t.vocab_size), k=20) for _ in range(200)]
  for ids in rows:
    got = theirs.tokenizer.decode([2, *ids, 1, 0, 0], skip_special_tokens=True)
    assert t.decode([2, *ids, 1, 0, 0]) == got


def test_bos_typed_by_a_user_is_text_for_us_and_a_token_for_them(both):
  ours, theirs = both
  assert theirs.tokenizer("<bos>", add_special_tokens=False)["input_ids"] == [2]
  assert 2 not in ours.tokenizer.encode("<bos>")


@pytest.mark.parametrize("num_images", [1, 2])
def test_the_whole_input_is_equal(both, num_images):
  ours, theirs = both
  pics = toy.pictures()
  images = [list(pics[:num_images]), list(pics[-num_images:])]
  prompts, suffixes = ["caption en", "answer en how many digits?"], ["a cat", "3"]
  batch = ours(images=images, prompts=prompts, suffixes=suffixes)
  got = theirs(
    images=images,
    text=[f"{'<image>' * num_images}{p}" for p in prompts],
    suffix=suffixes,
    return_tensors="np",
    padding=True,
  )
  pixels = batch.image.reshape(-1, 28, 28, 3).transpose(0, 3, 1, 2)
  # float32 of two divisions in another order
  np.testing.assert_allclose(got["pixel_values"], pixels / 127.5 - 1, atol=1e-6)
  for i in range(2):
    real = got["attention_mask"][i].astype(bool)
    ids = got["input_ids"][i][real]
    places = num_images * ours.num_image_tokens
    assert (ids[:places] == ours.tokenizer.vocab_size).all()
    assert ids[places:].tolist() == batch.text[i][batch.mask_input[i]].tolist()
    labels = np.where(batch.mask_loss[i] > 0, batch.text[i], -100)[batch.mask_input[i]]
    assert got["labels"][i][real][places:].tolist() == labels.tolist()
    kinds = got["token_type_ids"][i][real][places:]
    assert kinds.tolist() == batch.mask_ar[i][batch.mask_input[i]].tolist()


def test_transparent_pictures_are_laid_on_white_by_transformers_5(both):
  ours, theirs = both
  rgba = np.random.default_rng(0).integers(0, 256, (28, 28, 4), np.uint8)
  got = theirs(images=[Image.fromarray(rgba)], text=["<image>caption en"], return_tensors="np")
  pixels = dataclasses.replace(ours, alpha="white")([Image.fromarray(rgba)], ["caption en"]).image
  np.testing.assert_allclose(
    got["pixel_values"][0].transpose(1, 2, 0), pixels[0] / 127.5 - 1, atol=1e-6
  )


def test_a_tokenizer_saved_by_transformers_reads_as_ours(both, tmp_path):
  ours, theirs = both
  theirs.tokenizer.save_pretrained(tmp_path)
  assert (tmp_path / "tokenizer.json").exists()
  back = tokenizer_lib.Tokenizer.from_bytes((tmp_path / "tokenizer.json").read_bytes())
  assert back.vocab_size == ours.tokenizer.vocab_size
  assert all(back.encode(text) == ours.tokenizer.encode(text) for text in texts())


def test_the_model_file_alone_gives_equal_ids(both, tmp_path):
  """transformers' own converter, as for a folder without tokenizer.json."""
  transformers = pytest.importorskip("transformers")
  ours, _ = both
  files = ours.to_files()
  for name in ("tokenizer.model", "tokenizer_config.json", "preprocessor_config.json"):
    (tmp_path / name).write_bytes(files[name])
  theirs = transformers.AutoProcessor.from_pretrained(str(tmp_path)).tokenizer
  for text in texts():
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.tokenizer.encode(text) == ids, text


def test_a_processor_saved_by_transformers_reads_as_ours(both, tmp_path):
  ours, theirs = both
  theirs.save_pretrained(tmp_path)
  back = processor_lib.Processor.from_path(tmp_path)
  assert (back.res, back.num_image_tokens, back.resize) == (28, 4, "bicubic")
  assert back.tokenizer.encode("detect cat\n") == ours.tokenizer.encode("detect cat\n")
