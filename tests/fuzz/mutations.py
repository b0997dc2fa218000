"""Valid files made invalid: pure functions of a random generator and what is there.

Each takes `random.Random` first and gives the same result for the same state of it. `by_name` picks
the one that knows the format; any file may also be damaged as plain bytes.
"""

import io
import json
import math
import random
import re
import struct
import warnings
import zipfile
import zlib
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto

ODD_INTS = (
  -1,
  0,
  1,
  2,
  3,
  255,
  256,
  65_535,
  2**31 - 1,
  2**31,
  -(2**31),
  2**53 + 1,
  2**63,
  10**30,
  10**400,
)
ODD_FLOATS = (0.5, -0.5, -0.0, 1e-320, 1e308, math.inf, -math.inf, math.nan)
ODD_TEXTS = (
  "", " ", "\n", "0", "-1", "1e400", "nan", "x", "a;b", "no/such.png", "é", "日本語", "\u202e",
  "\x00", "a\x00b", "\ud83d", "<loc0000>", "{", "{x}", "%s", "data:", "data:;base64,AA==", "x" * 5000,
)  # fmt: skip
ODD_WORDS = (
  *map(str, ODD_INTS), *map(str, ODD_FLOATS), "1e3", "0x10", "1_000", "٣", "½", "+1", "1,5", "true",
  "none", "()", "(1,)", "('a',)", "(('a',1),)", "[", "'", '"', ".", "--", "-", "=", ",", "(?",
  *(text for text in ODD_TEXTS if not {"\x00", "\ud83d", "\n"} & set(text)),
)  # fmt: skip


def odd(rng: random.Random) -> Any:
  """A value that JSON can hold and few keys want."""
  nested: Any = rng.choice(("x", 1, None))
  for _ in range(rng.choice((1, 2, 20, 400))):
    nested = [nested] if rng.random() < 0.7 else {"a": nested}
  plain = (None, True, False, [], {}, [[]], [None], {"": None}, nested)
  return rng.choice(rng.choice((ODD_INTS, ODD_FLOATS, ODD_TEXTS, plain)))


def blob(rng: random.Random, data: bytes) -> bytes:
  """Bytes flipped, overwritten, cut, repeated, moved or torn off, mostly near the beginning."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 5))):
    end = rng.choice((16, 64, 512, len(data)))
    at = rng.randrange(max(1, min(len(data), end)))
    piece = data[at : at + rng.choice((1, 4, 16, 100))]
    kind = rng.randrange(7)
    if kind == 0 and data:
      data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
      code = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
      number = rng.choice(ODD_INTS) % 256 ** struct.calcsize(code)
      data[at : at + struct.calcsize(code)] = struct.pack(code, number)
    elif kind == 2:
      del data[at : at + len(piece)]
    elif kind == 3:
      data[at:at] = piece * rng.choice((1, 1, 100))
    elif kind == 4:
      data[at : at + len(piece)] = rng.randbytes(len(piece))
    elif kind == 5:
      where = rng.randrange(len(data) + 1)
      data[where : where + len(piece)] = piece
    else:
      del data[rng.randrange(len(data) + 1) :]
  return bytes(data)


def tree(rng: random.Random, value: Any) -> Any:
  """A copy of a JSON value with some of its parts replaced, dropped, renamed, nested or repeated."""
  value = json.loads(json.dumps(value))
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    holders = list(_holders(value))
    if not holders:
      return odd(rng)
    holder = rng.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    key, kind = rng.choice(keys), rng.randrange(7)
    if kind <= 2:
      holder[key] = odd(rng)
    elif kind == 3:
      del holder[key]
    elif kind == 4:
      holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, [holder[key]] * 300))
    elif kind == 5:
      other = rng.choice(holders)
      holder[key] = json.loads(json.dumps(rng.choice(list(_values(other)))))
    elif isinstance(holder, dict):
      holder[rng.choice((key.upper(), f"{key} ", f"_{key}", "", "日本"))] = holder.pop(key)
    else:
      holder.insert(key, odd(rng))
  return value


def _holders(value):
  if isinstance(value, (dict, list)) and value:
    yield value
    for part in _values(value):
      yield from _holders(part)


def _values(holder):
  return holder.values() if isinstance(holder, dict) else holder


def json_file(rng: random.Random, data: bytes) -> bytes:
  """A JSON document with odd values, keys given twice, or torn as text."""
  try:
    value = json.loads(data)
  except (ValueError, RecursionError):
    return text_file(rng, data)  # of a line that was damaged before
  if rng.random() < 0.15:
    return text_file(rng, data)
  text = json.dumps(tree(rng, value), ensure_ascii=rng.random() < 0.9)
  pairs = re.findall(r'"\w+": (?:-?\d+|"\w*"|true|null)', text)
  if pairs and rng.random() < 0.1:
    text = text.replace("{", "{" + rng.choice(pairs) + ", ", 1)
  if rng.random() < 0.03:
    text = text.replace("{", '{"deep": ' + "[" * 50_000 + "]" * 50_000 + ", ", 1)
  return _encoded(rng, text)


def jsonl_file(rng: random.Random, data: bytes) -> bytes:
  """JSON Lines of which one or two are no longer what they were."""
  if rng.random() < 0.1:
    return rng.choice((blob, text_file))(rng, data)
  lines = data.splitlines(keepends=True)
  for _ in range(rng.choice((1, 1, 2))):
    i = rng.randrange(len(lines))
    lines[i] = json_file(rng, lines[i]).replace(b"\n", b" ") + b"\n"
  return b"".join(lines)


_TOKENS = re.compile(r"[-+]?\d+(?:\.\d+)?|\w+|[^\w\s]|\n")


def text_file(rng: random.Random, data: bytes) -> bytes:
  """XML, CSV, YAML, Python, or lines of numbers: tokens replaced, dropped, doubled; lines as well."""
  text = data.decode(errors="replace")
  for _ in range(rng.choice((1, 1, 2, 3))):
    kind, found = rng.randrange(6), list(_TOKENS.finditer(text))
    if not found:
      break
    one, two = rng.choice(found), rng.choice(found)
    if kind <= 1:
      text = text[: one.start()] + str(rng.choice(ODD_WORDS)) + text[one.end() :]
    elif kind == 2:
      text = text[: one.start()] + text[one.end() :]
    elif kind == 3:
      text = text[: one.start()] + two[0] + text[one.end() :]
    elif kind == 4:
      lines = text.splitlines(keepends=True)
      i = rng.randrange(len(lines))
      lines[i : i + 1] = lines[i : i + 1] * rng.choice((0, 2, 50))
      text = "".join(lines)
    else:
      text = (
        text[: one.start()]
        + rng.choice("\x00\x0b\ufeff\u2028\t\r'\"<>&;,:{}[]\\")
        + text[one.start() :]
      )
  return _encoded(rng, text)


def _encoded(rng, text: str) -> bytes:
  encoding = "utf-8" if rng.random() < 0.95 else rng.choice(("utf-8-sig", "utf-16", "latin-1"))
  return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


def png(rng: random.Random, data: bytes) -> bytes:
  """Chunks of a PNG changed, with the right checksums, so that a decoder reads on."""
  chunks, at = [], 8
  while at < len(data):
    size = int.from_bytes(data[at : at + 4])
    chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
    at += 12 + size
  i = rng.randrange(len(chunks))
  kind, body = chunks[i]
  how = rng.randrange(4)
  if how <= 1:
    chunks[i] = kind, blob(rng, body)
  elif how == 2:
    chunks[i : i + 1] = [chunks[i]] * rng.choice((0, 2))
  else:
    chunks[i] = rng.choice((b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tRNS", b"acTL")), body
  join = lambda kind, body: (
    len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
  )
  return data[:8] + b"".join(join(*chunk) for chunk in chunks)


def npz(rng: random.Random, data: bytes) -> bytes:
  """Members of a zip renamed, dropped, doubled; headers of their arrays rewritten."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = [(name, archive.read(name)) for name in archive.namelist()]
  for _ in range(rng.choice((1, 1, 2))):
    i = rng.randrange(len(members))
    name, body = members[i]
    kind = rng.randrange(6)
    if kind <= 2:
      members[i] = name, _npy(rng, body)
    elif kind == 3:
      members[i] = name, blob(rng, body)
    elif kind == 4:
      members[i : i + 1] = [members[i]] * rng.choice((0, 2))
    else:
      members[i] = rng.choice((name[1:], f"{name}/", "é.npy", members[0][0], "a/../b.npy")), body
    if not members:
      break
  out, method = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
  with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", method) as archive:
    for name, body in members:
      archive.writestr(zipfile.ZipInfo(name), body)
  return out.getvalue()


def _npy(rng, data: bytes) -> bytes:
  size = int.from_bytes(data[8:10], "little")
  header = text_file(rng, data[10 : 10 + size])
  if rng.random() < 0.5:
    dtype = rng.choice(("|O", "<U4", "<f8", ">f4", "|V2", "<c8", "<M8[s]", "|b1", "|S0", "bad"))
    header = re.sub(rb"'descr': '[^']*'", f"'descr': '{dtype}'".encode(), header)
  return data[:8] + (len(header) % 65_536).to_bytes(2, "little") + header + data[10 + size :]


def safetensors(rng: random.Random, data: bytes) -> bytes:
  """The header of a safetensors file rewritten, its length right or wrong."""
  size = int.from_bytes(data[:8], "little")
  header = json_file(rng, data[8 : 8 + size])
  length = len(header) if rng.random() < 0.9 else rng.choice(ODD_INTS) % 2**64
  return length.to_bytes(8, "little") + header + data[8 + size :]


def sentencepiece(rng: random.Random, data: bytes) -> bytes:
  """A SentencePiece model with pieces, scores, types or settings changed."""
  model = proto.ModelProto.FromString(data)
  for _ in range(rng.choice((1, 1, 5, 50))):
    piece, kind = rng.choice(model.pieces), rng.randrange(6)
    if kind == 0:
      piece.score = rng.choice(ODD_FLOATS)
    elif kind == 1:
      piece.type = rng.choice((1, 2, 3, 4, 5, 6))
    elif kind == 2:
      piece.piece = rng.choice(("", " ", "<pad>", "<image>", "<0x41>", "é", "x" * 5000))
    elif kind == 3:
      del model.pieces[rng.randrange(len(model.pieces))]
    elif kind == 4:
      part = rng.choice((model.trainer_spec, model.normalizer_spec))
      fields = [*part.ListFields(), (part.DESCRIPTOR.fields[0], "")]
      field, value = rng.choice(fields)
      if isinstance(value, (bool, str, bytes)):
        part.ClearField(field.name)
      elif isinstance(value, int) and field.enum_type is None:
        setattr(part, field.name, rng.choice((-1, 0, 1, 2, 2**31 - 1)))
    else:
      model.pieces.add(piece=rng.choice(("x", "<loc0000>", "<seg127>", "\n")), type=4)
  return model.SerializeToString()


def argv(rng: random.Random, words: list[str], others: list[str]) -> list[str]:
  """A command line with words dropped, doubled, exchanged, misspelt or of another command.

  Args:
    rng: of what is drawn.
    words: a valid command line.
    others: words of all command lines.
  """
  words = list(words)
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    i, kind = rng.randrange(len(words)), rng.randrange(8)
    if kind <= 1:
      words[i] = rng.choice(ODD_WORDS)
    elif kind == 2:
      words[i] = rng.choice(others)
    elif kind == 3:
      del words[i]
    elif kind == 4:
      words[i:i] = [rng.choice((words[i], rng.choice(others), rng.choice(ODD_WORDS)))]
    elif kind == 5:
      words[i] = words[i][: rng.randrange(len(words[i]) + 1)] + rng.choice("=:,.- é")
    elif kind == 6:
      j = rng.randrange(len(words))
      words[i], words[j] = words[j], words[i]
    elif words[i].startswith("--"):
      words[i] = f"{words[i].partition('=')[0]}={rng.choice(ODD_WORDS)}"
    if not words:
      break
  return words


_FORMATS = {
  ".json": json_file, ".jsonl": jsonl_file, ".png": png, ".npz": npz, ".safetensors": safetensors,
  ".model": sentencepiece, ".xml": text_file, ".csv": text_file, ".yaml": text_file,
  ".txt": text_file, ".py": text_file,
}  # fmt: skip


def by_name(rng: random.Random, name: str, data: bytes) -> bytes:
  """The file mutated as its format allows, one in four as plain bytes."""
  ending = name[name.rfind(".") :]
  known = _FORMATS.get(ending, blob)
  return (known if rng.random() < 0.75 else blob)(rng, data)
