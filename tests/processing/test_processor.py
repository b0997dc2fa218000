"""Pictures and strings -> Batch, and the files that record how."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors, structs
from paligemma_jax.processing import image, prompt
from paligemma_jax.processing import processor as processor_lib
from tests import toy


def toy_processor(**settings):
  settings = {"res": 28, "num_image_tokens": 4, **settings}
  return processor_lib.Processor(toy.tokenizer(), **settings)


def test_an_inference_batch():
  p, pics = toy_processor(), toy.pictures()
  batch = p(images=[pics[0], pics[1]], prompts=["caption en", "detect cat ; dog"])
  assert batch.image.shape == (2, 28, 28, 3) and batch.image.dtype == np.uint8
  assert batch.text.shape == (2, 32) and batch.text.dtype == np.int32
  assert batch.mask_image.tolist() == [[True], [True]] and batch.valid.all()
  assert not batch.mask_loss.any()
  np.testing.assert_array_equal(batch.image[0], image.resize(pics[0], 28, "bilinear_antialias"))


def test_a_training_batch_has_one_column_more():
  p = toy_processor(text_len=16)
  batch = p(images=[toy.pictures()[0]], prompts=["caption en"], suffixes=["a cat"])
  wanted = prompt.layout(toy.tokenizer(), "caption en", "a cat", 17)
  for name in ("text", "mask_ar", "mask_input", "mask_loss"):
    np.testing.assert_array_equal(getattr(batch, name)[0], getattr(wanted, name))


def test_examples_with_one_and_two_pictures_share_a_batch():
  p, pics = toy_processor(), toy.pictures()
  batch = p(images=[[pics[0], pics[1]], pics[2]], prompts=["same?", "caption en"])
  assert batch.image.shape == (2, 2, 28, 28, 3)
  assert batch.mask_image.tolist() == [[True, True], [True, False]]
  assert not batch.image[1, 1].any()
  np.testing.assert_array_equal(batch.image[0, 1], pics[1])


def test_pictures_come_as_paths_bytes_pil_and_arrays(tmp_path):
  pixels, path = toy.pictures()[0], tmp_path / "a.png"
  Image.fromarray(pixels).save(path)
  sources = [path, str(path), path.read_bytes(), Image.open(path), pixels]
  batch = toy_processor()(images=sources, prompts=["caption en"] * 5)
  assert (batch.image == batch.image[:1]).all()


@pytest.mark.parametrize("num_rows, length", [(1, 32), (3, 64), (9, 256)])
def test_text_len_is_the_next_of_a_few_lengths(num_rows, length):
  p = toy_processor()
  prefix = " cat" * {1: 30, 3: 31, 9: 200}[num_rows]  # BOS and newline make 32, 33, 202
  batch = p(images=[toy.pictures()[0]], prompts=[prefix])
  assert batch.text.shape[1] == length


def test_text_len_with_suffix_counts_what_is_predicted():
  p = toy_processor()
  batch = p(images=[toy.pictures()[0]], prompts=[" cat" * 20], suffixes=[" cat" * 10])
  assert batch.text.shape[1] == 33 and batch.mask_input.all()  # 1 + 20 + 1 + 10 + 1


def test_too_long_is_an_error_unless_truncation_is_asked_for():
  p, pics = toy_processor(), [toy.pictures()[0]]
  with pytest.raises(errors.UserError, match="text_len is 8"):
    p(pics, [" cat" * 20], text_len=8)
  assert p(pics, [" cat" * 20], text_len=8, truncate=True).text.shape == (1, 8)
  with pytest.raises(errors.UserError, match="longer than 512"):
    p(pics, [" cat" * 600])
  assert p(pics, [" cat" * 600], truncate=True).text.shape == (1, 512)


@pytest.mark.parametrize(
  "arguments, words",
  [
    (dict(images=[], prompts=[]), "0 images, 0 prompts"),
    (dict(images=[0], prompts=["a", "b"]), "1 images, 2 prompts"),
    (dict(images=[0], prompts="a"), "prompts is a list"),
    (dict(images="a.jpg", prompts=["a"]), "images is a list"),
    (dict(images=[0, 0], prompts=["a", "b"], suffixes=["a", None]), "suffix 1 is None"),
    (dict(images=[[]], prompts=["a"]), 'no image for prefix "a"'),
    (dict(images=[b"x"], prompts=["a"]), "image 0: not an image"),
  ],
)
def test_wrong_arguments_are_one_clear_line(arguments, words):
  with pytest.raises(errors.UserError, match=words):
    toy_processor()(**arguments)


def test_rows_stack_to_the_batch_of_the_call():
  p, pics = toy_processor(), toy.pictures()
  examples = [
    structs.Example([pics[0]], "caption en", "a cat"),
    structs.Example([pics[1], pics[2]], "answer en same?", "no"),
  ]
  rows = [p.example(e, 32, train=True) for e in examples]
  wanted = p([e.images for e in examples], [e.prefix for e in examples], ["a cat", "no"])
  for got, want in zip(processor_lib.stack(rows), wanted):
    np.testing.assert_array_equal(got, want)
  assert processor_lib.stack(rows[:1]).image.shape == (1, 28, 28, 3)
  assert processor_lib.stack(rows[:1], num_images=3).mask_image.tolist() == [[True, False, False]]
  with pytest.raises(ValueError, match="2 images, num_images is 1"):
    processor_lib.stack(rows, num_images=1)


def test_evaluation_rows_leave_the_suffix_out():
  example = structs.Example([toy.pictures()[0]], "caption en", "a cat")
  row = toy_processor().example(example, 32, train=False)
  assert row.text.shape == (32,) and not row.mask_loss.any()
  assert row.text[row.mask_input].tolist()[-1:] == toy.tokenizer().newline


def test_token_lengths_say_what_fits():
  p = toy_processor()
  head, tail = p.token_lengths("caption en", "a cat")
  row = p.example(structs.Example([toy.pictures()[0]], "caption en", "a cat"), 32, train=True)
  assert (head, tail) == (row.mask_input.sum() - row.mask_loss.sum(), row.mask_loss.sum())
  assert p.token_lengths("caption en", None) == (head, 0)


def test_decode_gives_the_texts():
  t = toy.tokenizer()
  rows = [[*t.encode("a cat"), t.eos, 9, 9], [*t.encode("no"), t.eos]]
  width = max(map(len, rows))
  tokens = np.array([r + [0] * (width - len(r)) for r in rows], np.int32)
  assert toy_processor().decode(tokens) == ["a cat", "no"]


def test_it_travels_to_worker_processes():
  p = toy_processor(resize="bicubic")
  assert pickle.loads(pickle.dumps(p)) == p


@pytest.mark.parametrize("resize", image.METHODS)
def test_the_files_bring_the_processor_back(resize, tmp_path):
  p = toy_processor(resize=resize, text_len=48)
  files = p.to_files()
  assert processor_lib.Processor.from_files(files) == p
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
  assert processor_lib.Processor.from_path(tmp_path) == p


@pytest.mark.parametrize("alpha", image.ALPHAS)
def test_transparency_is_the_processors_and_travels_with_its_files(alpha):
  p = processor_lib.Processor.from_files(toy_processor(alpha=alpha).to_files())
  assert p.alpha == p.picture_settings["alpha"] == alpha
  clear = Image.new("RGBA", (28, 28), (10, 20, 30, 0))
  for picture in (clear, np.asarray(clear)):
    batch = p(images=[picture], prompts=["caption en"])
    assert (batch.image == ([10, 20, 30] if alpha == "drop" else 255)).all()


def test_arguments_win_over_the_files():
  files = toy_processor(resize="bicubic", text_len=48).to_files()
  p = processor_lib.Processor.from_files(
    files, res=56, resize="bilinear", text_len=64, alpha="white"
  )
  assert (p.res, p.num_image_tokens, p.resize, p.text_len) == (56, 16, "bilinear", 64)
  assert p.alpha == "white"


def test_a_published_hub_folder_is_bicubic_and_an_npz_bilinear():
  hub = {"size": {"height": 448, "width": 448}, "resample": 3, "image_seq_length": 1024}
  files = {"preprocessor_config.json": json.dumps(hub).encode()}
  p = processor_lib.Processor.from_files(files)
  assert (p.res, p.num_image_tokens, p.resize, p.text_len) == (448, 1024, "bicubic", None)
  assert p.alpha == "drop"  # transformers 5 lays on white whatever a folder says; 4 does not
  files = {"processor_config.json": json.dumps({"image_processor": hub}).encode()}
  assert processor_lib.Processor.from_files(files) == p
  npz = processor_lib.Processor.from_files({}, res=224)
  assert (npz.num_image_tokens, npz.resize) == (256, "bilinear_antialias")


@pytest.mark.parametrize(
  "content, words",
  [
    (b'{"size": {"hei', "not JSON"),
    (b"[]", "not an object"),
    (b'{"resample": 3}', "not the preprocessing of PaliGemma"),
    (b'{"size": {"shortest_edge": 224}}', "not the preprocessing of PaliGemma"),
    (b'{"size": {"height": 224, "width": 448}}', "must be a square"),
    (b'{"size": 0}', "not the preprocessing of PaliGemma"),
    (b'{"size": "224"}', "not the preprocessing of PaliGemma"),
    (b'{"size": 224, "resample": 1e400}', "not the preprocessing of PaliGemma"),
    (b'{"size": 224, "image_seq_length": "many"}', "not the preprocessing of PaliGemma"),
    (b'{"size": 224, "paligemma_jax": {"resize": ["bicubic"]}}', "not the preprocessing"),
    (b'{"size": 224, "paligemma_jax": {"alpha": 3}}', "not the preprocessing"),
    (b'{"size": 224, "resample": 1}', "resample 1 is not supported"),
    (b'{"size": 224, "image_mean": [0.48, 0.46, 0.41]}', "image_mean"),
    (b'{"size": 224, "do_normalize": false}', "do_normalize is False, PaliGemma's is True"),
    (b'{"size": 224, "do_rescale": false}', "do_rescale is False"),
    (b'{"size": 224, "do_center_crop": true}', "do_center_crop is True"),
    (b'{"size": 224, "rescale_factor": 1}', "rescale_factor is 1, not 1/255"),
  ],
)
def test_a_foreign_preprocessing_is_named(content, words):
  with pytest.raises(errors.UserError, match=words) as e:
    processor_lib.Processor.from_files({"preprocessor_config.json": content}, place="ckpt")
  assert str(e.value).startswith("ckpt/preprocessor_config.json: ")


def test_two_files_that_disagree_are_refused():
  """Release 4 reads the one and release 5 the other."""
  hub = lambda **d: {"size": {"height": 28, "width": 28}, "resample": 3, **d}  # noqa: E731
  files = lambda old, new: {  # noqa: E731
    "preprocessor_config.json": json.dumps(old).encode(),
    "processor_config.json": json.dumps({"image_processor": new}).encode(),
  }
  assert processor_lib.Processor.from_files(files(hub(), hub(image_mean=[0.5]))).res == 28
  for other in (hub(resample=2), hub(size=56)):
    with pytest.raises(
      errors.UserError, match="ckpt: preprocessor_config.json and processor_config"
    ):
      processor_lib.Processor.from_files(files(hub(), other), place="ckpt")


def test_a_missing_tokenizer_is_an_error_only_when_it_is_needed(monkeypatch):
  monkeypatch.delenv("PALIGEMMA_TOKENIZER", raising=False)
  p = processor_lib.Processor.from_files({}, res=28, place="pt_224.npz")
  assert list(p.to_files()) == ["preprocessor_config.json"]
  with pytest.raises(errors.UserError) as e:
    p(images=[toy.pictures()[0]], prompts=["caption en"])
  for place in ("tokenizer.model", "tokenizer.json", "beside pt_224.npz", "$PALIGEMMA_TOKENIZER"):
    assert place in str(e.value)


def test_the_tokenizer_is_given_or_beside_or_in_the_environment(tmp_path, monkeypatch):
  path = tmp_path / "tokenizer.model"
  path.write_bytes(toy.tokenizer().to_files()["tokenizer.model"])
  assert processor_lib.Processor.from_files({}, res=28, tokenizer=path).tokenizer == toy.tokenizer()
  monkeypatch.setenv("PALIGEMMA_TOKENIZER", str(tmp_path))
  assert processor_lib.Processor.from_files({}, res=28).tokenizer == toy.tokenizer()
  with pytest.raises(errors.UserError, match="gone: cannot read"):
    processor_lib.Processor.from_files({}, res=28, tokenizer=tmp_path / "gone")


def test_an_unknown_name_is_refused():
  with pytest.raises(errors.UserError, match='did you mean "bilinear"'):
    dataclasses.replace(toy_processor(), resize="bilinaer")
  with pytest.raises(errors.UserError, match='did you mean "white"'):
    dataclasses.replace(toy_processor(), alpha="wite")
