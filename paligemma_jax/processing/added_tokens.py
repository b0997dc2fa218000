"""Tokens that users add behind `<image>`: read from the files of transformers, put into a model.

They stand in up to four files: `tokenizer.json` (the list of release 4 and 5), `tokenizer_config.json`
and `added_tokens.json` (release 4). Their ids go on behind `<image>`, and so do their rows in the table.
"""

import json
from typing import Any, NamedTuple

from sentencepiece import sentencepiece_model_pb2 as proto

from paligemma_jax import errors

IMAGE = "<image>"
SPACE = "▁"  # SentencePiece's mark of a space
_PIECE = proto.ModelProto.SentencePiece
FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")


class Added(NamedTuple):
  """A token that is looked for in the text before anything is joined."""

  content: str  # with spaces, not SentencePiece's marks
  special: bool = False  # left out by transformers' decode(skip_special_tokens=True)
  normalized: bool = True  # looked for after those that are not

  @property
  def piece(self) -> str:
    """As SentencePiece spells it."""
    return self.content.replace(" ", SPACE)


def read(files: dict[str, bytes], place: str = "") -> dict[int, Added]:
  """Id -> token, of all tokens that the files call added: `<image>`, loc and seg tokens too.

  Args:
    files: name -> content; files of other names are ignored.
    place: the folder, for errors.

  Raises:
    errors.UserError: a file is damaged, two of them disagree about an id, or a token behind
      `<image>` swallows spaces or keeps to whole words, which is not supported.
  """
  found, told = {}, {}
  for name in (n for n in FILES if n in files):
    where = f"{place}/{name}" if place else name
    for i, entry in _entries(files[name], name, where).items():
      special = bool(entry.get("special"))
      token = Added(entry["content"], special, bool(entry.get("normalized", not special)))
      if found.get(i, token).content != token.content:
        raise errors.UserError(
          f"{where}: id {i} is {token.content!r}, in {told[i]} it is {found[i].content!r}; the files "
          "are of two tokenizers"
        )
      if i not in found:
        found[i], told[i] = token, name
      elif special and not found[i].special:
        found[i] = found[i]._replace(special=True)
      flags = [k for k in ("lstrip", "rstrip", "single_word") if entry.get(k)]
      if flags and i > image_id(found, i):
        raise errors.UserError(
          f"{where}: the added token {token.content!r} has {flags[0]}, which is not supported; "
          "added tokens are found as they stand"
        )
  return found


def _entries(data: bytes, name: str, where: str) -> dict[int, dict[str, Any]]:
  """Id -> entry with "content"."""
  try:
    if name == "tokenizer.json":  # its list alone: the rest is 30 MB and comes after it
      text = data.decode()
      start = text.index("[", text.index('"added_tokens"'))
      found = {t["id"]: t for t in json.JSONDecoder().raw_decode(text, start)[0]}
    elif name == "tokenizer_config.json":
      entries = json.loads(data).get("added_tokens_decoder") or {}
      found = {int(i): t for i, t in entries.items()}
    else:
      found = {i: {"content": content} for content, i in json.loads(data).items()}
    for i, t in found.items():
      if type(i) is not int or i < 0 or not t["content"].encode():
        raise ValueError(f"id {i!r} is {t['content']!r}")
    return found
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
    raise errors.UserError(
      f"{where} is damaged ({len(data)} bytes, {e!r}); fetch the file again"
    ) from None


def image_id(added: dict[int, Added], default: int | None = None) -> int | None:
  """The id of `<image>`, or `default`."""
  return next((i for i, token in added.items() if token.content == IMAGE), default)


def behind(added: dict[int, Added]) -> list[Added]:
  """The tokens behind `<image>`, in the order of their ids."""
  image = image_id(added, max(added, default=0))
  return [added[i] for i in sorted(added) if i > image]


def fits(model: bytes, added: dict[int, Added]) -> bool:
  """Whether the pieces of a serialised model have the ids that the files give to added tokens."""
  pieces = proto.ModelProto.FromString(model).pieces
  inside = {i: token for i, token in added.items() if i < len(pieces)}
  return all(pieces[i].piece in (token.piece, token.content) for i, token in inside.items())


def extended(model: bytes, added: dict[int, Added], name: str) -> bytes:
  """A serialised model with `<image>` and the tokens behind it as its last pieces.

  Without tokens behind `<image>` the model stays as it is: `<image>` alone is no token of ours.

  Args:
    model: with loc and seg tokens.
    added: from `read`; tokens among the model's own are looked for before anything is joined.
    name: what an error calls it.

  Raises:
    errors.UserError: ids are missing, or a token stands at two of them.
  """
  spec = proto.ModelProto.FromString(model)
  size, last = len(spec.pieces), max(added, default=0)
  plain = [i for i in added if i < size and spec.pieces[i].type == _PIECE.NORMAL]
  for i in plain:
    spec.pieces[i].type, spec.pieces[i].score = _PIECE.USER_DEFINED, 0.0
  if last > size or last == size and added[last].content != IMAGE:
    known = {p.piece for p in spec.pieces}
    for i in range(size, last + 1):
      if i not in added:
        raise errors.UserError(f"{name}: no token has id {i}, the last one is {last}")
      piece = added[i].piece
      if piece in known:
        raise errors.UserError(
          f"{name}: the added token {added[i].content!r} ({i}) stands there twice"
        )
      _check_whole(added[i], added, name)
      known.add(piece)
      kind = _PIECE.CONTROL if piece == IMAGE else _PIECE.USER_DEFINED
      spec.pieces.add(piece=piece, score=0.0, type=kind)
  elif not plain:
    return model
  spec.trainer_spec.vocab_size = len(spec.pieces)
  return spec.SerializeToString(deterministic=True)


def _check_whole(token: Added, added: dict[int, Added], name: str):
  # What is not normalised is looked for first: a newline would cut a token that holds one.
  for other in added.values() if token.normalized else ():
    if not other.normalized and other.content in token.content:
      raise errors.UserError(
        f"{name}: the added token {token.content!r} holds {other.content!r}, at which transformers "
        "cuts it; such tokens are not supported"
      )
