"""The Gemma vocabulary with location and segmentation tokens.

Layout of the ids (PaliGemma, arXiv:2407.07726, section 3.1; big_vision `pp/ops_text.py`):

    0 <pad>   1 <eos>   2 <bos>   3 <unk>   …   V: <loc0000> … <loc1023>, <seg000> … <seg127>

V is 256,000 for the published Gemma model. `<image>` of Hugging Face follows at V + 1152; it is no
token of ours unless users added others behind it, which are.
"""

import functools
import io
import os
import pathlib
from collections.abc import Collection, Iterable, Sequence

import sentencepiece
from google.protobuf import message
from sentencepiece import sentencepiece_model_pb2 as proto

from paligemma_jax import errors
from paligemma_jax.processing import added_tokens, hub_files, tokenizer_json

FILES = ("tokenizer.model", "paligemma_tokenizer.model", "tokenizer.json")  # in order of preference
LOC = tuple(f"<loc{i:04d}>" for i in range(1024))
SEG = tuple(f"<seg{i:03d}>" for i in range(128))
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")  # their ids are their positions
_PIECE = proto.ModelProto.SentencePiece


class Tokenizer:
  """Text to token ids and back. Immutable and picklable.

  Attributes:
    pad, eos, bos: 0, 1 and 2, checked when a model is loaded.
    vocab_size: number of ids, loc and seg tokens included, `<image>` only if there are added tokens.
    added: tokens behind `<image>`, in the order of their ids.
    loc0, seg0: ids of `<loc0000>` and `<seg000>`; the others follow in order.
    newline: list[int], the ids of "\\n" on its own, which separates prefix and suffix.
  """

  pad, eos, bos = 0, 1, 2

  def __init__(self, model: bytes, name: str = "tokenizer", special: Collection[str] = ()):
    """Takes a serialised SentencePiece model; see `from_files`.

    Args:
      model: with `<image>` and what stands behind it only if there are added tokens.
      name: what an error calls it.
      special: added tokens that transformers leaves out of what it decodes. They are shown here.
    """
    self._name, self._special = name, frozenset(special)
    self._model = _extended(model, name)
    try:
      self._sp = sentencepiece.SentencePieceProcessor(model_proto=self._model)
    except RuntimeError as e:
      raise errors.UserError(f"{name}: not a usable SentencePiece model ({e})") from None
    self.vocab_size = self._sp.vocab_size()
    self.loc0, self.seg0 = self._sp.piece_to_id(LOC[0]), self._sp.piece_to_id(SEG[0])
    self.newline = self._sp.encode("\n")
    image = self._sp.piece_to_id(added_tokens.IMAGE)  # that of <unk> when it is no piece
    behind = range(image + 1, self.vocab_size) if image >= self.seg0 else ()
    self.added = tuple(self._sp.id_to_piece(i).replace(added_tokens.SPACE, " ") for i in behind)

  @classmethod
  def from_files(cls, files: dict[str, bytes], place: str = "") -> "Tokenizer":
    """Reads the first of `FILES` and, from the files beside it, the tokens that users added.

    A plain Gemma model gets the 1024 loc and 128 seg tokens appended; one that has them is left
    as it is.

    Args:
      files: name -> content, one of `FILES` at least; files of other names are ignored.
      place: the folder, for errors.

    Raises:
      errors.UserError: a file is truncated, of another kind, or of another tokenizer than the
        others, or pad/eos/bos/unk are not 0/1/2/3.
    """
    name = next(n for n in FILES if n in files)
    full = f"{place}/{name}" if place else name
    if made := cls._made(files[name], full, files, place):
      return made
    if name == "tokenizer.json" or "tokenizer.json" not in files:
      raise errors.UserError(f"{full}: the files beside it are of another tokenizer")
    # The one that counts for transformers.
    return cls.from_files({n: d for n, d in files.items() if n not in FILES[:-1]}, place)

  @classmethod
  def from_bytes(cls, data: bytes, name: str = "tokenizer") -> "Tokenizer":
    """Reads a SentencePiece model or a `tokenizer.json`, whichever the bytes are.

    Args:
      data: content of the file.
      name: what an error calls it.

    Raises:
      errors.UserError: as `from_files`.
    """
    files = {"tokenizer.json": data} if data.lstrip()[:1] == b"{" else {}
    return cls._made(data, name, files)

  @classmethod
  def _made(cls, data: bytes, name: str, files: dict[str, bytes], place: str = ""):
    """None when `files` give other ids than the vocabulary to tokens."""
    is_json = data.lstrip()[:1] == b"{"
    model = _extended(tokenizer_json.to_model(data, name) if is_json else data, name)
    added = added_tokens.read(files, place)
    if not added_tokens.fits(model, added):
      return None
    special = [token.content for token in added_tokens.behind(added) if token.special]
    return cls(added_tokens.extended(model, added, name), name, special)

  @classmethod
  def from_path(cls, path: str | os.PathLike) -> "Tokenizer":
    """Reads a file alone, or the first of `FILES` in a directory with those that go with it.

    Raises:
      errors.UserError: nothing there, or not a tokenizer; says what was looked for.
    """
    path = pathlib.Path(path)
    if path.is_dir():
      found = {name: path / name for name in (*FILES, *added_tokens.FILES)}
      files = {name: file.read_bytes() for name, file in found.items() if file.is_file()}
      if not any(name in files for name in FILES):
        raise errors.UserError(
          f"{path}: no tokenizer in this directory (any of {', '.join(FILES)})"
        )
      return cls.from_files(files, str(path))
    try:
      data = path.read_bytes()
    except OSError as e:
      raise errors.UserError(f"{path}: cannot read the tokenizer ({e.strerror})") from None
    return cls.from_bytes(data, str(path))

  @classmethod
  def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Trains a small BPE model with Gemma's special layout; the same texts give the same model.

    Args:
      texts: the corpus.
      vocab_size: upper bound on `vocab_size`, loc and seg tokens included. A corpus that yields
        fewer pieces gives a smaller vocabulary.

    Raises:
      ValueError: vocab_size does not hold the special tokens, the bytes and the letters.
    """
    out = io.BytesIO()
    try:
      sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size - len(LOC) - len(SEG),
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        user_defined_symbols=["<mask>", "\n", "\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁"],
        num_threads=1,
        minloglevel=2,
        **{f"{s[1:-1]}_id": i for i, s in enumerate(SPECIALS)},
        **{f"{s[1:-1]}_piece": s for s in SPECIALS},
      )
    except RuntimeError as e:
      raise ValueError(f"vocab_size {vocab_size} does not fit the corpus: {e}") from None
    return cls(out.getvalue(), "trained tokenizer")

  def encode(self, text: str) -> list[int]:
    """Ids of `text`, without BOS and EOS.

    Loc and seg tokens are recognised; control tokens are not: "<bos>" typed by a user is five
    letters, so that a prompt cannot forge the mask's structure.

    Raises:
      errors.UserError: half of a character (a lone surrogate, as in JSON's "\\ud83d").
    """
    try:
      return self._sp.encode(text)
    except (RuntimeError, UnicodeEncodeError):
      shown = text.encode("utf-8", "backslashreplace").decode()[:60]
      raise errors.UserError(f'"{shown}" holds half of a character; write it whole') from None

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids` up to the first EOS. Pad, BOS, unknown and ids beyond the vocabulary vanish."""
    kept = []
    for i in ids:
      if i == self.eos:
        break
      if len(SPECIALS) <= i < self.vocab_size:
        kept.append(int(i))
    return self._sp.decode(kept)

  def check_rows(self, rows: int) -> None:
    """Raises a UserError when the table of a model, of `rows`, does not hold every token."""
    if self.vocab_size > rows:
      shown = f" ({', '.join(self.added[:3])}, …)" if self.added else ""
      raise errors.UserError(
        f"the tokenizer has {self.vocab_size} tokens, {len(self.added)} of them added{shown}; the "
        f"model's table has {rows} rows, so {self.vocab_size - rows} would be lost. Use the "
        "tokenizer that the model was trained with"
      )

  def encode_between(self, text: str) -> list[int]:
    """Ids of `text` where it stands between loc tokens, which are borders to the tokeniser."""
    return self.encode(f"<loc0000>{text}<loc0000>")[1:-1]

  def spans(self, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The letters [first, last) of `decode(ids)` that each id up to the first EOS wrote.

    A letter of several tokens belongs to the last of them.
    """
    ends, done, part = [], 0, []
    for i in ids:
      if i == self.eos:
        break
      part.append(i)
      ends.append(done + len(self.decode(part)))
      if self.loc0 <= i < self.vocab_size:  # loc and seg tokens stand alone: what follows is new
        done, part = ends[-1], []
    for k in reversed(range(len(ends) - 1)):  # half a letter is shown as another one
      ends[k] = min(ends[k], ends[k + 1])
    return list(zip([0, *ends], ends))

  def to_files(self) -> dict[str, bytes]:
    """File name -> content: the model (extended), and its equivalent for transformers."""
    return {"tokenizer.model": self._model, **self._hub_files}

  @functools.cached_property
  def _hub_files(self) -> dict[str, bytes]:
    added = tokenizer_json.added_tokens(self._model, self._special)
    settings = hub_files.write_tokenizer_settings(added)
    return {"tokenizer.json": tokenizer_json.from_model(self._model, self._special), **settings}

  def __getstate__(self):
    return {"model": self._model, "name": self._name, "special": self._special}

  def __setstate__(self, state):
    self.__init__(**state)

  def __eq__(self, other):
    return isinstance(other, Tokenizer) and self._model == other._model

  def __hash__(self):
    return hash(self._model)

  def __repr__(self):
    return f"Tokenizer({self._name}, vocab_size={self.vocab_size})"


def _extended(data: bytes, name: str) -> bytes:
  """Checks a serialised model and appends the loc and seg pieces that it lacks."""
  model = proto.ModelProto()
  try:
    model.ParseFromString(data)
  except message.DecodeError:
    model.Clear()
  # The settings follow the pieces in the file: without them the end of it is missing.
  if (
    not model.pieces or not model.HasField("trainer_spec") or not model.HasField("normalizer_spec")
  ):
    raise errors.UserError(
      f"{name}: not a SentencePiece model, or truncated ({len(data)} bytes); fetch the file again"
    )
  found = [p.piece for p in model.pieces[: len(SPECIALS)]]
  wrong = [f"id {i} is {f!r}, not {s}" for i, (f, s) in enumerate(zip(found, SPECIALS)) if f != s]
  if wrong or len(found) < len(SPECIALS):
    raise errors.UserError(
      f"{name}: not a Gemma tokenizer: {', '.join(wrong) or 'too few pieces'}; "
      "use the tokenizer.model of Gemma or PaliGemma"
    )
  index = {p.piece: i for i, p in enumerate(model.pieces)}
  changed = [_extend(model, index, LOC, name), _extend(model, index, SEG, name)]
  return model.SerializeToString(deterministic=True) if any(changed) else data


def _extend(model, index: dict[str, int], pieces: tuple[str, ...], name: str) -> bool:
  """Makes `pieces` consecutive user-defined pieces of the model; returns whether it changed."""
  ids = [index[p] for p in pieces if p in index]
  if not ids:
    for piece in pieces:
      model.pieces.add(piece=piece, score=0.0, type=_PIECE.USER_DEFINED)
    return True
  if ids != list(range(ids[0], ids[0] + len(pieces))):
    raise errors.UserError(
      f"{name}: has {len(ids)} of the {len(pieces)} tokens {pieces[0]}…{pieces[-1]}, or not in "
      "order; use the published tokenizer.model of PaliGemma, or a plain Gemma one"
    )
  others = [i for i in ids if model.pieces[i].type != _PIECE.USER_DEFINED]
  for i in others:
    model.pieces[i].type, model.pieces[i].score = _PIECE.USER_DEFINED, 0.0
  return bool(others)
