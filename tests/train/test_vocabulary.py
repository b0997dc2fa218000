"""A tokenizer that is learnt from the data that a model of random parameters trains on."""

import json

import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats
from paligemma_jax.processing import tokenizer
from paligemma_jax.train import settings, setup, vocabulary
from paligemma_jax.transfers import common, forkme
from tests import toy


def source(folder, records, **options):
  path = folder / "train.jsonl"
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return {"yours": common.jsonl(str(path), **options).to_dict()}


LABELS = ("triangle", "striped zebra", "日本", "naïve café")


def detect(folder):
  objects = [[{"label": label, "box": [0, 0, 5, 5]}] for label in LABELS]
  return source(folder, [{"image": "a.png", "objects": o} for o in objects] * 5, task="detect")


def test_it_writes_what_the_data_say_in_few_tokens_and_anything_else_in_bytes(tmp_path):
  made = vocabulary.train(detect(tmp_path), 1536)
  assert made.vocab_size <= 1536 and (made.pad, made.eos, made.bos) == (0, 1, 2)
  assert made.seg0 == made.loc0 + len(tokenizer.LOC)
  for text in (*LABELS, "detect triangle ; 日本", "<loc0001>", "Ω never seen\n"):
    assert made.decode(made.encode(text)) == text
  assert len(made.encode("detect triangle")) <= 2


def test_the_same_data_make_the_same_tokenizer_without_the_tokens_of_places(tmp_path):
  one = vocabulary.train(detect(tmp_path), 1536)
  assert one == vocabulary.train(detect(tmp_path), 1536)
  sizes = [{"image": "a.png", "prefix": "p", "suffix": f"<loc{i:04d}><seg001> x"} for i in range(9)]
  made = vocabulary.train(source(tmp_path, sizes), 1536)
  index = [made.decode([i]) for i in range(4 + 256 + 7, made.loc0)]
  assert not [piece for piece in index if "loc" in piece or "1" in piece]


def test_more_letters_than_the_vocabulary_holds_are_written_in_bytes(tmp_path):
  texts = ["".join(chr(0x4E00 + 7 * i + k) for k in range(7)) for i in range(400)]
  records = [{"image": "a.png", "prefix": "p", "suffix": text} for text in texts]
  made = vocabulary.train(source(tmp_path, records), 1536)
  assert made.vocab_size <= 1536 and made.decode(made.encode(texts[0])) == texts[0]


@pytest.mark.parametrize("record", [{"prefix": 5}, {}, {"prefix": "p", "suffix": "\ud83d half"}])
def test_a_record_that_is_no_example_is_left_to_the_check_of_the_data(tmp_path, record):
  good = {"image": "a.png", "prefix": "what?", "suffix": "cat"}
  assert vocabulary.train(source(tmp_path, [record, good]), 1536).encode("what?")


def test_a_table_that_is_too_small_is_one_line(tmp_path):
  with pytest.raises(errors.UserError, match='"trained": .*give --config.input.tokenizer=FILE'):
    vocabulary.train(detect(tmp_path), 1200)


def from_scratch(folder, **changes):
  path = folder / "train.jsonl"
  if not path.exists():
    detect(folder)
  c = forkme.get_config(f"train={path},val={path},task=detect,init=none")
  c.update_from_flattened_dict(changes)
  return settings.check(c)


def test_a_run_from_scratch_begins_with_a_tokenizer_of_its_data(tmp_path):
  inputs = setup.open_inputs(from_scratch(tmp_path))
  assert (inputs.source, inputs.config.name) == (None, "tiny-112")
  assert inputs.processor.tokenizer == vocabulary.train(detect(tmp_path), 1536)


def test_without_a_tokenizer_the_way_to_one_is_named(tmp_path, monkeypatch):
  monkeypatch.delenv("PALIGEMMA_TOKENIZER", raising=False)
  with pytest.raises(errors.UserError, match="input.tokenizer=trained, to learn one from train.da"):
    setup.open_inputs(from_scratch(tmp_path, **{"input.tokenizer": ""}))


def test_what_was_trained_keeps_the_tokenizer_that_it_began_with(tmp_path):
  c = from_scratch(tmp_path)
  began = setup.open_inputs(c)
  flat = toy.flat_params(began.config)
  read = lambda name, layer=None: flat[name] if layer is None else flat[name][layer]
  run = tmp_path / "run"
  formats.save(run / "checkpoints", read, began.config, began.processor.to_files(), format="orbax")
  source(tmp_path, [{"image": "b.png", "objects": [{"label": "horse", "box": [0, 0, 1, 1]}]}])
  goes_on = setup.open_inputs(c, run / "checkpoints/0")
  evaluated = setup.open_inputs(from_scratch(tmp_path, **{"model.init": str(run)}))
  for inputs in (goes_on, evaluated):
    assert inputs.processor.tokenizer == began.processor.tokenizer
