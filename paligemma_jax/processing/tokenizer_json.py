"""SentencePiece model <-> the `tokenizer.json` of Hugging Face, for BPE models with byte fallback.

SentencePiece joins the neighbours whose union has the best score, `tokenizers` the pair with the
lowest rank. So the pairs of a piece's halves, ordered by the piece's score, are the same tokenizer.
"""

import json
import re
from collections.abc import Collection

from sentencepiece import sentencepiece_model_pb2 as proto

from paligemma_jax import errors
from paligemma_jax.processing.added_tokens import IMAGE
from paligemma_jax.processing.added_tokens import SPACE as _SPACE

_PIECE = proto.ModelProto.SentencePiece
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def added_tokens(data: bytes, special: Collection[str] = ()) -> list[dict]:
  """The tokens of a serialised SentencePiece model that are looked for before the merging starts.

  Control tokens, user-defined ones, `<image>` and what users added behind it; in the form of
  `tokenizer.json`.

  Args:
    data: the model. `<image>` is put behind it unless it is one of its pieces.
    special: those that users added and transformers leaves out of what it decodes.
  """
  model = proto.ModelProto.FromString(data)
  added, behind = [], False
  for i, p in enumerate(model.pieces):
    control = p.type in (_PIECE.CONTROL, _PIECE.UNKNOWN)
    if behind:
      content = p.piece.replace(_SPACE, " ")
      added.append(_added(i, content, content in special, normalized=content not in special))
    elif control or p.type == _PIECE.USER_DEFINED:
      # Runs of the space mark exist only after normalisation, so they are looked for there.
      added.append(_added(i, p.piece, control, normalized=_SPACE in p.piece and not control))
    behind |= p.piece == IMAGE
  if not behind:
    added.append(_added(len(model.pieces), IMAGE, special=True, normalized=False))
  return added


def from_model(data: bytes, special: Collection[str] = ()) -> bytes:
  """Writes a serialised SentencePiece BPE model as `tokenizer.json`; arguments as `added_tokens`.

  BOS and EOS are not added by the tokenizer: the layout of the prompt does it.
  """
  model = proto.ModelProto.FromString(data)
  added = added_tokens(data, special)
  image = next(t["id"] for t in added if t["content"] == IMAGE)
  vocab = {p.piece: i for i, p in enumerate(model.pieces[:image])}
  return json.dumps(
    {
      "version": "1.0",
      "truncation": None,
      "padding": None,
      "added_tokens": added,
      "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
      "pre_tokenizer": None,
      "post_processor": None,
      "decoder": {
        "type": "Sequence",
        "decoders": [
          {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
          {"type": "ByteFallback"},
          {"type": "Fuse"},
        ],
      },
      "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": [f"{left} {right}" for left, right in _merges(model)],
      },
    },
    ensure_ascii=False,
  ).encode()


def to_model(data: bytes, name: str) -> bytes:
  """Reads a `tokenizer.json` of Gemma or PaliGemma into a serialised SentencePiece model.

  Tokens from `<image>` on are left out; see `added_tokens.extended`.

  Args:
    data: content of the file.
    name: what an error calls it.

  Raises:
    errors.UserError: not JSON (truncated?), or not a BPE with byte fallback.
  """
  try:
    spec = json.loads(data)
    core, added = spec["model"], {t["id"]: t["content"] for t in spec["added_tokens"]}
    pieces = {i: piece for piece, i in core["vocab"].items()} | added
    merges = [m.split(" ") if isinstance(m, str) else m for m in core["merges"]]
    merged = [left + right for left, right in merges]
    if not all(isinstance(text, str) for text in (*pieces.values(), *merged)):
      raise TypeError
    if not all(type(i) is int for i in pieces):
      raise TypeError
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise errors.UserError(
      f"{name}: not a complete tokenizer.json ({len(data)} bytes); fetch the file again"
    ) from None
  if core.get("type") != "BPE" or not core.get("byte_fallback"):
    raise errors.UserError(
      f"{name}: a {core.get('type')} tokenizer without byte fallback is not Gemma's; "
      "use the tokenizer.json of Gemma or PaliGemma"
    )
  size = next((i for i, piece in added.items() if piece == IMAGE), len(pieces))
  _check_ids(pieces, size, name)

  rank = {}
  for piece in merged:
    rank.setdefault(piece, len(rank))
  model = proto.ModelProto()
  for i in range(size):
    piece, kind = _typed(pieces, i, i in added)
    score = -float(rank.get(piece, len(rank) + i)) if kind == _PIECE.NORMAL else 0.0
    model.pieces.add(piece=piece, score=score, type=kind)
  _settings(model)
  return model.SerializeToString(deterministic=True)


def _added(i: int, content: str, special: bool, normalized: bool) -> dict:
  return {
    "id": i,
    "content": content,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": normalized,
    "special": special,
  }


def _merges(model) -> list[tuple[str, str]]:
  """Pairs of pieces in the order of joining: score first, then the longer left half."""
  known = {p.piece for p in model.pieces if p.type == _PIECE.NORMAL}
  pairs = []
  for p in model.pieces:
    if p.type == _PIECE.NORMAL:
      halves = ((p.piece[:k], p.piece[k:]) for k in range(len(p.piece) - 1, 0, -1))
      pairs += [
        (-p.score, left, right) for left, right in halves if left in known and right in known
      ]
  pairs.sort(key=lambda pair: pair[0])  # stable: equal scores keep the order of ids
  return [(left, right) for _, left, right in pairs]


def _check_ids(pieces: dict[int, str], size: int, name: str):
  missing = [i for i in range(size) if i not in pieces]
  behind = sorted(i for i, p in pieces.items() if i >= size and p.startswith(("<loc", "<seg")))
  if behind:
    raise errors.UserError(
      f"{name}: {IMAGE} is id {size}, before {pieces[behind[0]]} ({behind[0]}): made from a model "
      "without loc and seg tokens, no published checkpoint fits; use the published tokenizer"
    )
  if missing:
    raise errors.UserError(f"{name}: no token has id {missing[0]} ({len(missing)} are missing)")


def _typed(pieces: dict[int, str], i: int, added: bool):
  """The piece of id i and its SentencePiece type."""
  piece = pieces[i]
  if i < 4:
    return piece, _PIECE.UNKNOWN if piece == "<unk>" else _PIECE.CONTROL
  # Converters of Gemma 1 renamed the byte 0x09 to the tab itself.
  before = _BYTE.fullmatch(pieces[i - 1])
  if piece == "\t" and before and before[1] == "08":
    return "<0x09>", _PIECE.BYTE
  if _BYTE.fullmatch(piece):
    return piece, _PIECE.BYTE
  return piece, _PIECE.USER_DEFINED if added else _PIECE.NORMAL


def _settings(model):
  """What Gemma's SentencePiece model says of itself: BPE, nothing normalised."""
  t, n = model.trainer_spec, model.normalizer_spec
  t.model_type, t.byte_fallback, t.vocab_size = t.BPE, True, len(model.pieces)
  t.pad_id, t.eos_id, t.bos_id, t.unk_id = range(4)
  t.pad_piece, t.eos_piece, t.bos_piece, t.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
  n.name, n.add_dummy_prefix, n.remove_extra_whitespaces = "identity", False, False
