"""The vocabulary: Gemma's layout of ids, what users type, damaged files."""

import json
import pickle

import pytest
from sentencepiece import sentencepiece_model_pb2 as proto

from paligemma_jax import errors
from paligemma_jax.processing import tokenizer as tokenizer_lib
from tests import toy

PIECE = proto.ModelProto.SentencePiece
TEXTS = (
  "detect cat ; dog",
  "a  b   c    d     e\t\n\n\nf",
  " leading and trailing ",
  "你好 é 🙂 \u00a0 \u200b",
  "<loc0012><loc1023> cat<seg003>",
  "<loc1024> <loc12> <bos> <image>",
  "\n",
  "",
)


def plain_model() -> proto.ModelProto:
  """The toy model without loc and seg tokens, as the published Gemma file is."""
  model = proto.ModelProto.FromString(toy.tokenizer().to_files()["tokenizer.model"])
  del model.pieces[-1152:]
  return model


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_undoes_encoding(text):
  tokenizer = toy.tokenizer()
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_loc_and_seg_follow_the_gemma_vocabulary_in_order():
  t = toy.tokenizer()
  assert t.seg0 == t.loc0 + 1024 and t.vocab_size == t.seg0 + 128
  ids = t.encode("<loc0000><loc1023><seg000><seg127>")
  assert ids == [t.loc0, t.loc0 + 1023, t.seg0, t.seg0 + 127]


def test_control_tokens_typed_by_a_user_stay_text():
  t = toy.tokenizer()
  ids = t.encode("<bos> a cat<eos><pad>")
  assert not {t.bos, t.eos, t.pad} & set(ids)
  assert t.decode(ids) == "<bos> a cat<eos><pad>"


def test_newline_is_one_token_of_its_own():
  t = toy.tokenizer()
  assert t.newline == t.encode("\n") and len(t.newline) == 1
  assert t.encode("cat\n") == t.encode("cat") + t.newline


def test_decode_stops_at_eos_and_drops_what_is_no_text():
  t = toy.tokenizer()
  cat, dog = t.encode(" cat"), t.encode(" dog")
  assert t.decode([t.bos, *cat, 3, t.vocab_size + 7, t.eos, *dog, t.eos]) == " cat"


def test_an_extended_model_is_not_extended_again():
  t = toy.tokenizer()
  again = tokenizer_lib.Tokenizer.from_bytes(t.to_files()["tokenizer.model"])
  assert again == t


def test_a_plain_model_gets_the_tokens_and_encodes_text_as_before():
  t = tokenizer_lib.Tokenizer.from_bytes(plain_model().SerializeToString())
  assert (t.vocab_size, t.loc0) == (toy.tokenizer().vocab_size, toy.tokenizer().loc0)
  assert all(t.encode(s) == toy.tokenizer().encode(s) for s in TEXTS)


def test_tokenizer_json_gives_the_same_tokenizer():
  t = tokenizer_lib.Tokenizer.from_bytes(toy.tokenizer().to_files()["tokenizer.json"])
  assert t.vocab_size == toy.tokenizer().vocab_size
  assert all(t.encode(s) == toy.tokenizer().encode(s) for s in TEXTS)
  assert t.encode("<bos>")[0] != t.bos


def test_tokenizer_json_of_gemma_1_has_a_tab_in_place_of_a_byte():
  spec = toy.tokenizer().to_files()["tokenizer.json"].decode()
  # The byte's name goes to the tab, whose own piece is renamed to something that nobody types.
  spec = spec.replace('"\\t"', '"<unused9>"').replace('"<0x09>"', '"\\t"')
  t = tokenizer_lib.Tokenizer.from_bytes(spec.encode())
  assert t.encode("\t") == [toy.tokenizer().encode("\x08")[0] + 1]
  assert t.decode(t.encode("a\tb")) == "a\tb"


def test_a_directory_offers_the_first_tokenizer_file_it_has(tmp_path):
  files = toy.tokenizer().to_files()
  (tmp_path / "tokenizer.json").write_bytes(files["tokenizer.json"])
  assert tokenizer_lib.Tokenizer.from_path(tmp_path).encode("cat") == toy.tokenizer().encode("cat")
  (tmp_path / "paligemma_tokenizer.model").write_bytes(files["tokenizer.model"])
  assert tokenizer_lib.Tokenizer.from_path(tmp_path) == toy.tokenizer()


def test_it_travels_to_worker_processes():
  assert pickle.loads(pickle.dumps(toy.tokenizer())) == toy.tokenizer()


def test_training_is_deterministic_and_takes_what_the_corpus_yields():
  a = tokenizer_lib.Tokenizer.train(["a small corpus"] * 3, 5000)
  b = tokenizer_lib.Tokenizer.train(["a small corpus"] * 3, 5000)
  assert a == b and 1152 + 260 < a.vocab_size < 5000
  assert toy.tokenizer().vocab_size == 1500


def test_too_small_a_vocabulary_is_refused():
  with pytest.raises(ValueError, match="vocab_size 1200"):
    tokenizer_lib.Tokenizer.train(["abc"], 1200)


def truncated() -> bytes:
  return toy.tokenizer().to_files()["tokenizer.model"][:9000]


def cut_between_pieces() -> bytes:
  model = plain_model()
  model.ClearField("trainer_spec")
  model.ClearField("normalizer_spec")
  return model.SerializeToString()


def other_ids() -> bytes:
  """T5 and Llama count differently: <unk> 0, <s> 1, </s> 2."""
  model = plain_model()
  for piece, name in zip(model.pieces, ("<unk>", "<s>", "</s>", "a")):
    piece.piece = name
  return model.SerializeToString()


def half_of_the_locs() -> bytes:
  model = plain_model()
  for i in range(512):
    model.pieces.add(piece=f"<loc{i:04d}>", score=0, type=PIECE.USER_DEFINED)
  return model.SerializeToString()


def changed_json(change) -> bytes:
  """A tokenizer.json whose parsed content `change` has changed in place."""
  spec = json.loads(toy.tokenizer().to_files()["tokenizer.json"])
  change(spec)
  return json.dumps(spec).encode()


@pytest.mark.parametrize(
  "change",
  [
    lambda spec: spec["added_tokens"][3].update(content=7),
    lambda spec: spec["added_tokens"][3].update(id="3"),
    lambda spec: spec["model"]["vocab"].update(a=[5]),
    lambda spec: spec["model"]["vocab"].update(a=5.5),
    lambda spec: spec["model"]["merges"].append(["a", 5]),
    lambda spec: spec["model"]["merges"].append("a b c"),
    lambda spec: spec["model"].update(merges=None),
    lambda spec: spec.update(model=[]),
  ],
)
def test_a_tokenizer_json_with_a_part_of_another_type_is_named(change):
  with pytest.raises(errors.UserError, match="t.json: not a complete tokenizer.json"):
    tokenizer_lib.Tokenizer.from_bytes(changed_json(change), "t.json")


@pytest.mark.parametrize(
  "data, words",
  [
    (truncated, "not a SentencePiece model, or truncated"),
    (cut_between_pieces, "truncated"),
    (lambda: b"", "truncated \\(0 bytes\\)"),
    (lambda: b"<html>404</html>", "not a SentencePiece model"),
    (lambda: b'{"model": {"type": "BPE", "voc', "not a complete tokenizer.json"),
    (
      lambda: b'{"model": {"type": "WordPiece", "vocab": {}, "merges": []}, "added_tokens": []}',
      "a WordPiece tokenizer",
    ),
    (other_ids, "id 0 is '<unk>', not <pad>"),
    (half_of_the_locs, "512 of the 1024"),
  ],
)
def test_a_damaged_or_foreign_file_is_named(data, words, tmp_path):
  path = tmp_path / "tokenizer.model"
  path.write_bytes(data())
  with pytest.raises(errors.UserError, match=words) as e:
    tokenizer_lib.Tokenizer.from_path(path)
  assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_image_before_the_locs_is_refused():
  """What transformers writes when it is given a Gemma model without loc and seg tokens."""
  spec = toy.tokenizer().to_files()["tokenizer.json"].decode()
  spec = spec.replace("<image>", "<loc1024>").replace("<loc0000>", "<image>")
  with pytest.raises(errors.UserError, match="<image> is id 348"):
    tokenizer_lib.Tokenizer.from_bytes(spec.encode())


def test_missing_files_say_what_was_looked_for(tmp_path):
  with pytest.raises(errors.UserError, match="tokenizer.model, paligemma_tokenizer.model"):
    tokenizer_lib.Tokenizer.from_path(tmp_path)
  with pytest.raises(errors.UserError, match="gone.model: cannot read"):
    tokenizer_lib.Tokenizer.from_path(tmp_path / "gone.model")


def test_half_a_character_is_refused_with_what_it_is():
  with pytest.raises(errors.UserError, match=r'"cat \\ud83d" holds half of a character'):
    toy.tokenizer().encode("cat \ud83d")


def test_spans_say_which_letters_a_token_wrote():
  tokenizer = toy.tokenizer()
  text = "<loc0000> naïve 猫 ; <loc0001><seg005> a cat"
  ids = tokenizer.encode(text)
  spans = tokenizer.spans([*ids, tokenizer.eos, 0, 0])
  assert len(spans) == len(ids) and spans[-1][1] == len(text)
  assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))  # without gaps
  written = {text[first:last] for first, last in spans}
  assert written >= {"<loc0000>", "<loc0001>", "<seg005>", " ;", " cat", "ï", "猫"}
  assert tokenizer.spans([]) == []
