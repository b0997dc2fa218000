"""What is computed once per source, in the main process, and kept in the cache by content hash.

Mask codes need the codec's encoder, hence JAX, which worker processes never touch: they get the
finished codes. Token lengths need only the tokenizer and are kept because a large file takes a
while.
"""

import dataclasses
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from paligemma_jax import cache, errors
from paligemma_jax.data import examples, files, problems, sources, tasks
from paligemma_jax.processing import boxes, masks

_VERSION = 3  # of what the cache holds; raise it when the computation changes
CHUNK = 256  # masks encoded at a time
_NO_MASK = -1
_BORDER = re.compile(  # a loc or seg token
  r"<loc(?:0\d{3}|10[01]\d|102[0-3])>|<seg(?:0\d{2}|1[01]\d|12[0-7])>"
)
_ORDERS = 6  # of the objects or options of a record, measured for `draw="shuffle"`


@dataclasses.dataclass(frozen=True)
class MaskCodes:
  """The 16 codes of every mask of a source. Picklable: 32 bytes per mask."""

  first: np.ndarray  # int64[N + 1]: the objects of record i have the rows first[i]:first[i + 1]
  codes: np.ndarray  # int16[M, 16], 0..127; `_NO_MASK` of an object without mask

  def __getitem__(self, i: int) -> list[tuple[int, ...] | None]:
    """Codes of record i, one tuple per object, None of one without mask."""
    rows = self.codes[self.first[i] : self.first[i + 1]]
    return [None if row[0] == _NO_MASK else tuple(int(code) for code in row) for row in rows]


def mask_codes(
  source: sources.Source, codec: str | dict[str, np.ndarray], mirrored: bool = False
) -> MaskCodes:
  """Codes of all masks of a source whose answers hold masks, from the cache if they are there.

  Every object is cropped to its box, resized to 64 x 64 with soft edges and encoded.

  Args:
    source: its records have "objects" with "box" and mostly "mask".
    codec: path of the codec's npz, or its parameters as `vqvae.load` returns them.
    mirrored: of the pictures mirrored left to right.

  Raises:
    errors.UserError: an unreadable mask, or an unusable codec.
  """
  params = _codec(codec)
  name = _codes_key(source, params) + ("-mirrored" if mirrored else "")
  path = cache.directory("codes", f"{name}.npz")
  found = _read(path, ("first", "codes"))
  if found is None:
    found = _encode_all(source, params, mirrored)
    files.write_whole(path, _npz(found))
  return MaskCodes(**found)


def token_lengths(
  source: sources.Source, rules: tasks.Rules, processor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tokens that every record needs at most, over all its drafts.

  Args:
    source: well-formed records; a malformed one counts as 0.
    rules: how to read them.
    processor: a `processing.processor.Processor` with a tokenizer.

  Returns:
    int32[N] each of the prompt (BOS, prefix, newline), of suffix and EOS, and of all together.
  """
  tokenizer = hashlib.blake2b(digest_size=16)
  for name, data in sorted(processor.tokenizer.to_files().items()):
    tokenizer.update(name.encode() + data)
  parts = (
    source.content_hash(),
    tokenizer.hexdigest(),
    (rules.task, rules.prefix, rules.suffix, rules.lower, rules.draw == "shuffle"),
    _VERSION,
  )
  path = cache.directory("lengths", _digest(json.dumps(parts)) + ".npz")
  found = _read(path, ("prompt", "answer", "whole"))
  if found is None:
    found = _measure(source, rules, processor.tokenizer)
    files.write_whole(path, _npz(found))
  noise = _noise(rules, processor.tokenizer)
  return found["prompt"], found["answer"] + noise, found["whole"] + noise


def draw_order(
  record: dict,
  rules: tasks.Rules,
  processor,
  measured: tuple[int, int, int],
  rng: np.random.Generator,
) -> list[int] | None:
  """An order of the record's objects or options for `draw="shuffle"`; None: as they stand.

  Pieces of text may join across a border, so that one order is longer than another. Not all of
  them are measured beforehand; one that needs more than was measured is not taken.

  Args:
    record, rules: as in `tasks.drafts`.
    processor: as in `token_lengths`.
    measured: what `token_lengths` found for the record.
    rng: draws it.
  """
  order = rng.permutation(tasks.num_shuffled(record, rules)).tolist()
  tokenizer = processor.tokenizer
  count = lambda text: len(tokenizer.encode(text))
  prompt, answer, whole = _longest(record, rules, order, count, len(tokenizer.newline))
  noise = _noise(rules, tokenizer)
  needed = prompt, answer + noise, whole + noise
  return order if all(n <= m for n, m in zip(needed, measured)) else None


def decode_codes(codes: list[tuple[int, ...]], codec: str | dict[str, np.ndarray]) -> np.ndarray:
  """float32[len(codes), 64, 64], about -1..1 and above 0 inside: the masks that codes stand for."""
  import jax
  import jax.numpy as jnp

  from paligemma_jax.models import vqvae

  rows = jnp.asarray(codes, jnp.int32).reshape(-1, 16)
  return np.asarray(jax.jit(vqvae.decode)(_codec(codec), rows))


def round_trip(
  crops: Sequence[np.ndarray], codec: str | dict[str, np.ndarray]
) -> tuple[list[tuple[int, ...]], np.ndarray]:
  """Masks through the codec and back.

  Args:
    crops: at most `CHUNK`, float32[64, 64] in 0..1 each, as `masks.crop_for_codec` makes them.
    codec: path or parameters.

  Returns:
    The 16 codes of each, and float32[N, 64, 64], what they stand for: above 0 inside.
  """
  import jax

  from paligemma_jax.models import vqvae

  params = _codec(codec)
  codes = _encode(crops, params)
  decoded = jax.jit(vqvae.decode)(params, codes)
  found = np.asarray(codes)[: len(crops)].tolist()
  return [tuple(row) for row in found], np.asarray(decoded)[: len(crops)]


def record_codes(
  record: dict, folder: str, codec: str | dict[str, np.ndarray], place: str = ""
) -> list[tuple[int, ...] | None]:
  """Codes of the masks of one record, one tuple per object, None of one without mask.

  Raises:
    errors.UserError: a mask cannot be read.
  """
  objects = record.get("objects") or []
  crops = [_crop(item, folder, place) for item in objects if _has_mask(item)]
  found = []
  for start in range(0, len(crops), CHUNK):
    found += round_trip(crops[start : start + CHUNK], codec)[0]
  codes = iter(found)
  return [next(codes) if _has_mask(item) else None for item in objects]


def has_masks(source: sources.Source) -> bool:
  """Whether any object of a source has a mask."""
  return any(_has_mask(item) for i in range(len(source)) for item in _objects(source, i))


def _measure(source, rules, tokenizer) -> dict[str, np.ndarray]:
  count, newline = _counter(tokenizer), len(tokenizer.newline)
  found = np.zeros((len(source), 3), np.int32)
  for i in range(len(source)):
    try:
      record = source[i]
      orders = _orders(tasks.num_shuffled(record, rules))
      found[i] = np.max([_longest(record, rules, o, count, newline) for o in orders], axis=0)
    except tasks.UNFIT:
      continue  # `problems` tells what is wrong with it
  return dict(zip(("prompt", "answer", "whole"), found.T))


def _counter(tokenizer) -> Callable[[str], int]:
  """A function text -> number of its tokens that remembers what stands between loc and seg tokens.

  These are borders to the tokeniser, and what stands between them repeats: labels, and prompts.
  """
  memo = {}

  def piece(text):
    if text not in memo:
      if len(memo) > 100_000:
        memo.clear()
      memo[text] = len(tokenizer.encode(text))
    return memo[text]

  def count(text):
    first, *others = _BORDER.split(text)
    return piece(first) + sum(piece(f"<loc0000>{other}") if other else 1 for other in others)

  return count


def _orders(n: int) -> list[list[int] | None]:
  """Orders of n things, in which each of them (of the first few) stands last, and at every place."""
  rotated = [[(k + shift) % n for k in range(n)] for shift in range(1, min(n, _ORDERS))]
  return [None, *rotated]


def _longest(record, rules, order, count, newline: int) -> tuple[int, int, int]:
  """Most tokens of the prompt, of the answer and of both, over the drafts of a record."""
  options = tasks.drafts(record, rules, order=order)
  prompts = [1 + count(d.prefix) + newline for d in options]
  answers = [count(d.suffix) + 1 if d.suffix is not None else 0 for d in options]
  return max(prompts), max(answers), max(p + a for p, a in zip(prompts, answers))


def _noise(rules, tokenizer) -> int:
  """Tokens of the boxes that training adds to an answer."""
  return rules.noise * (4 + len(tokenizer.encode_between(f" {boxes.NOISE} ; ")))


def _codec(codec):
  if not isinstance(codec, str):
    return codec
  from paligemma_jax.models import vqvae  # imports JAX, which reading text does not need

  return vqvae.load(codec)


def _codes_key(source, params) -> str:
  """Digest of the records, the files of their masks and the codec."""
  digest = hashlib.blake2b(f"{_VERSION} {source.content_hash()}".encode(), digest_size=16)
  for i in range(len(source)):
    for item in _objects(source, i):
      if isinstance(item.get("mask"), str):
        digest.update(files.read_bytes(files.join(source.folder, item["mask"]), source.place(i)))
  for name in sorted(params):
    digest.update(name.encode() + np.ascontiguousarray(params[name]).tobytes())
  return digest.hexdigest()


def _encode(crops, params):
  """int[CHUNK, 16]: codes of at most `CHUNK` crops, and of nothing after them."""
  import jax

  from paligemma_jax.models import vqvae

  padded = np.zeros((CHUNK, vqvae.SIDE, vqvae.SIDE), np.float32)  # one shape, compiled once
  padded[: len(crops)] = crops
  return jax.jit(vqvae.encode)(params, padded)


def _encode_all(source, params, mirrored) -> dict[str, np.ndarray]:
  crops, codes, masked, first = [], [], [], [0]

  def flush():
    codes.append(np.asarray(_encode(crops, params))[: len(crops)].astype(np.int16))
    crops.clear()

  for i in range(len(source)):
    objects = _objects(source, i)
    for item in objects:
      masked.append(_has_mask(item))
      if not masked[-1]:
        continue
      crop = _crop(item, source.folder, source.place(i))
      crops.append(crop[:, ::-1] if mirrored else crop)
      if len(crops) == CHUNK:
        flush()
    first.append(first[-1] + len(objects))
  if crops:
    flush()
  rows = np.full((len(masked), 16), _NO_MASK, np.int16)
  rows[masked] = np.concatenate(codes) if codes else 0
  return {"first": np.array(first, np.int64), "codes": rows}


def _has_mask(item: dict) -> bool:
  return item.get("mask") is not None


def _objects(source, i) -> list[dict]:
  return source[i].get("objects") or []


def _crop(item, folder, place) -> np.ndarray:
  if not problems.is_box(item.get("box")):
    raise errors.UserError(
      f"{place}: the box of an object is {item.get('box')}; wanted [x0, y0, x1, y1] in pixels"
    )
  try:
    mask = examples.read_mask(item["mask"], folder, place)
    return masks.crop_for_codec(mask, item["box"])
  except errors.UserError as e:
    text = str(e)
    raise errors.UserError(text if text.startswith(place) else f"{place}: {text}") from None


def _digest(text: str) -> str:
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
  out = io.BytesIO()
  np.savez(out, **arrays)
  return out.getvalue()


def _read(path, names) -> dict[str, np.ndarray] | None:
  """The arrays of a cache file; None if it is missing or damaged."""
  try:
    with np.load(path) as f:
      return {name: f[name] for name in names}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
