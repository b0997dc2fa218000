"""Tokens that users add behind <image>, in each of the files where transformers keeps them."""

import json
import pickle

import pytest

from paligemma_jax import errors
from paligemma_jax.processing import processor as processor_lib
from paligemma_jax.processing import tokenizer as tokenizer_lib
from tests import toy

IMAGE = 1500
TOKENS = ("<s_ok>", "my token", " lead", "ünï")


def token(i, content, **flags) -> dict:
  plain = dict.fromkeys(("special", "single_word", "lstrip", "rstrip"), False)
  return {"id": i, "content": content, "normalized": True, **plain, **flags}


def files(where: str, tokens=TOKENS, first=IMAGE + 1, **flags) -> dict[str, bytes]:
  """The toy tokenizer's files with `tokens` added in one of them alone."""
  found = toy.tokenizer().to_files()
  added = [token(first + i, t, **flags) for i, t in enumerate(tokens)]
  d = json.loads(found[where])
  if where == "tokenizer.json":
    d["added_tokens"] += added
    del found["tokenizer.model"]
  elif where == "tokenizer_config.json":
    d["added_tokens_decoder"] |= {str(t["id"]): t for t in added}
  else:
    d |= {t["content"]: t["id"] for t in added}
  return found | {where: json.dumps(d).encode()}


WHERE = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")


@pytest.mark.parametrize("where", WHERE)
def test_each_file_tells_of_added_tokens(where):
  t = tokenizer_lib.Tokenizer.from_files(files(where))
  assert t.added == TOKENS and t.vocab_size == IMAGE + 1 + len(TOKENS)
  assert t.encode("<s_ok><s_ok>") == [1501, 1501]
  plain = toy.tokenizer()
  assert t.encode("cat <s_ok> dog") == [*plain.encode("cat "), 1501, *plain.encode(" dog")]
  for text in (
    "a <s_ok> b",
    "my token my  token",
    "x lead y",
    "ünïcode",
    "<loc0001><s_ok><seg003>",
  ):
    assert t.decode(t.encode(text)) == text
  assert all(
    t.encode(text) == plain.encode(text) for text in ("caption en", "<s_o", "<image>", "\n")
  )


@pytest.mark.parametrize("where", WHERE)
def test_they_travel_in_our_files_and_to_other_processes(where):
  t = tokenizer_lib.Tokenizer.from_files(files(where, special=True))
  assert pickle.loads(pickle.dumps(t)) == t
  written = t.to_files()
  again = tokenizer_lib.Tokenizer.from_files(written)
  assert again == t and again.added == TOKENS and again.to_files() == written
  assert tokenizer_lib.Tokenizer.from_bytes(written["tokenizer.model"]).added == TOKENS
  assert tokenizer_lib.Tokenizer.from_bytes(written["tokenizer.json"]).added == TOKENS
  stored = {e["content"]: e for e in json.loads(written["tokenizer.json"])["added_tokens"]}
  assert stored["<image>"]["id"] == IMAGE and stored["my token"]["id"] == 1502
  # What the file said of special ones is said again; added_tokens.json says nothing.
  assert stored["<s_ok>"]["special"] is (where != "added_tokens.json")
  assert json.loads(written["added_tokens.json"])["<s_ok>"] == 1501


def test_a_folder_is_read_with_all_its_files(tmp_path):
  for name, data in files("added_tokens.json").items():
    (tmp_path / name).write_bytes(data)
  assert tokenizer_lib.Tokenizer.from_path(tmp_path).added == TOKENS
  assert processor_lib.Processor.from_path(tmp_path, res=28).tokenizer.added == TOKENS


def test_a_word_of_the_vocabulary_may_be_made_a_token():
  """add_tokens(["▁cat"]) keeps the word's id; from then on it is found before anything is joined."""
  t, cat = toy.tokenizer(), toy.tokenizer().encode(" cat")
  assert len(cat) == 1
  added = files("tokenizer_config.json", [" cat"], first=cat[0])
  changed = tokenizer_lib.Tokenizer.from_files(added)
  assert changed.vocab_size == t.vocab_size and not changed.added
  assert changed.encode(" category")[0] == cat[0]


def test_a_renamed_token_counts_as_in_tokenizer_json():
  found = toy.tokenizer().to_files()
  found["tokenizer.json"] = found["tokenizer.json"].replace(b"<mask>", b"<mine>")
  for name in ("tokenizer_config.json", "special_tokens_map.json"):
    found[name] = found[name].replace(b"<mask>", b"<mine>")
  t = tokenizer_lib.Tokenizer.from_files(found)
  assert t.encode("<mine>") == toy.tokenizer().encode("<mask>")
  del found["tokenizer.json"]
  with pytest.raises(errors.UserError, match="tokenizer.model: the files beside it are of another"):
    tokenizer_lib.Tokenizer.from_files(found)


def test_image_alone_is_no_token_of_ours():
  t = tokenizer_lib.Tokenizer.from_files(toy.tokenizer().to_files())
  assert t == toy.tokenizer() and t.vocab_size == IMAGE and t.added == ()


@pytest.mark.parametrize(
  "where, tokens, flags, said",
  [
    ("tokenizer.json", ["<a>"], {"lstrip": True}, "the added token '<a>' has lstrip"),
    ("tokenizer.json", ["<a>"], {"rstrip": True}, "the added token '<a>' has rstrip"),
    ("tokenizer_config.json", ["<a>"], {"single_word": True}, "'<a>' has single_word"),
    ("tokenizer.json", ["a\nb"], {}, r"the added token 'a\\nb' holds '\\n'"),
    ("added_tokens.json", ["<a>"], {"first": 1505}, "no token has id 1501, the last one is 1505"),
    (
      "added_tokens.json",
      ["<loc0000>"],
      {},
      "the added token '<loc0000>' .1501. stands there twice",
    ),
    ("added_tokens.json", ["<a>"], {"first": IMAGE}, "id 1500 is '<a>', in .* it is '<image>'"),
  ],
)
def test_what_cannot_be_kept_is_named(where, tokens, flags, said):
  found = files(where, tokens, **flags)
  with pytest.raises(errors.UserError, match=said) as e:
    tokenizer_lib.Tokenizer.from_files(found, "folder")
  assert "folder/" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
  "data", [b"", b"{", b"[1]", b'{"a": "b"}', b'{"added_tokens": [{"id": 1}]}']
)
def test_a_damaged_file_is_one_line(where, data):
  found = toy.tokenizer().to_files() | {where: data}
  if where == "tokenizer_config.json" and data[:2] == b'{"':
    return  # without added tokens
  with pytest.raises(errors.UserError, match=f"folder/{where} is damaged"):
    tokenizer_lib.Tokenizer.from_files(found, "folder")


def test_a_table_that_is_too_short_is_refused_with_the_number():
  t = tokenizer_lib.Tokenizer.from_files(files("added_tokens.json"))
  t.check_rows(1505)
  with pytest.raises(
    errors.UserError, match=r"4 of them added .<s_ok>.*1500 rows, so 5 would be lost"
  ):
    t.check_rows(1500)
