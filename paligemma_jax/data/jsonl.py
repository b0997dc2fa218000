"""A JSONL file as a source: one object per line, read by byte offset."""

import functools
import hashlib
import json
import os
import re

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data import files
from paligemma_jax.processing import image

_KINDS = {
  list: "a list",
  str: "a string",
  bool: "true or false",
  int: "a number",
  float: "a number",
}


class Jsonl:
  """A JSONL file: one object per line, read by byte offset. Blank lines are skipped.

  Pictures and masks lie beside the file or, as `data:` URLs, in its lines: those become bytes.
  Attributes as `sources.Source`.
  """

  KEYS = ("where",)  # of the config, besides "path"
  holds_pictures = False
  changed: dict[str, str] = {}

  def __init__(self, path: str, where: str = ""):
    """Builds the index in one pass over the file.

    Args:
      path: of the file, local or URL (which is copied into the cache first).
      where: "key=value" keeps only the records whose key has that value (numbers, true, false and
        null as JSON writes them); "" keeps all.

    Raises:
      errors.UserError: no such file, nothing in it, nothing kept, or a line that must be read to
        decide is broken.
    """
    self.path, self.folder, self._where = str(path), files.folder(str(path)), where
    self._local = files.fetched(self.path)
    self._fd = None
    keep = _filter(where, self.path)
    rows, self.max_images, seen, values = [], 1, 0, {}
    with open(self._local, "rb") as f:
      end = 0
      for number, line in enumerate(f, 1):
        start, end = end, end + len(line)
        if not line.strip():
          continue
        seen += 1
        if keep is not None and not keep(self._parse(line, number), values):
          continue
        if b"[" in line:  # only such a line can list images
          self.max_images = max(self.max_images, _num_images(line))
        rows.append((start, end - start, number))
    self._table = np.array(rows, np.int64).reshape(-1, 3)  # offset, bytes, line number
    if not rows:
      self._complain(seen, values)

  def _complain(self, seen: int, values: dict):
    if not seen:
      raise errors.UserError(f"{self.path}: no examples (the file is empty)")
    key, _, value = self._where.partition("=")
    if not values:
      raise errors.UserError(
        f'{self.path}: where="{self._where}": none of the {seen} examples has the key "{key}"'
      )
    hint = errors.did_you_mean(value, values)
    raise errors.UserError(
      f'{self.path}: where="{self._where}" keeps none of {seen} examples{hint}'
    )

  def __len__(self) -> int:
    return len(self._table)

  def __getitem__(self, i: int) -> dict:
    """Record i, as its line says; raises errors.UserError with file:line when it is broken."""
    offset, length, number = (int(v) for v in self._table[i])
    if self._fd is None:
      self._fd = os.open(self._local, os.O_RDONLY)
    return self._parse(os.pread(self._fd, length, offset), number)

  def place(self, i: int) -> str:
    """Where record i stands, e.g. "data.jsonl:17"."""
    return f"{self.path}:{self._table[i, 2]}"

  def mended(self, i: int) -> list[tuple[str, str]]:
    """Nothing: its owner can edit it."""
    return []

  def content_hash(self) -> str:
    """Hex digest of the file's bytes and of the filter."""
    with open(self._local, "rb") as f:
      digest = hashlib.file_digest(f, functools.partial(hashlib.blake2b, digest_size=16))
    digest.update(self._where.encode())
    return digest.hexdigest()

  def _parse(self, line: bytes, number: int) -> dict:
    try:
      record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
    except UnicodeDecodeError as e:
      raise errors.UserError(
        f"{self.path}:{number}: not UTF-8 (byte {e.start}); save the file as UTF-8"
      ) from None
    except json.JSONDecodeError as e:
      raise errors.UserError(
        f"{self.path}:{number}: broken JSON, {e.msg} at column {e.colno}: "
        f"{_excerpt(e.doc, e.pos)}; each line must hold one complete object"
      ) from None
    except (ValueError, RecursionError) as e:  # thousands of digits, or of brackets
      raise errors.UserError(
        f"{self.path}:{number}: JSON that cannot be read ({str(e).partition(';')[0]})"
      ) from None
    if not isinstance(record, dict):
      raise errors.UserError(
        f"{self.path}:{number}: found {_KINDS.get(type(record), 'null')}, wanted an object {{…}}"
      )
    return with_bytes(record) if b'"data:' in line else record

  def __getstate__(self):
    return {**self.__dict__, "_fd": None}  # a descriptor means nothing in another process

  def __del__(self, close=os.close):  # bound here: at exit the module may already be gone
    if getattr(self, "_fd", None) is not None:
      close(self._fd)

  def __repr__(self):
    return f"Jsonl({self.path!r}, where={self._where!r}, {len(self)} examples)"


def _filter(where: str, path: str):
  if not where:
    return None
  key, equals, value = where.partition("=")
  if not equals or not key:
    raise errors.UserError(f'{path}: where="{where}" is no filter; write key=value')

  def keep(record, values):
    if key not in record:
      return False
    found = record[key]
    found = found if isinstance(found, str) else json.dumps(found)
    if len(values) < 100:  # for the message when nothing is kept
      values[found] = True
    return found == value

  return keep


def _num_images(line: bytes) -> int:
  try:
    images = json.loads(line).get("image")
  except (ValueError, AttributeError, RecursionError):
    return 1  # told with its line when it is read
  return len(images) if isinstance(images, list) else 1


def _excerpt(text: str, at: int) -> str:
  text = text.rstrip()
  start = max(0, at - 20)
  piece = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text[start : at + 20])  # stays one line
  return ("…" if start else "") + piece + ("…" if at + 20 < len(text) else "")


def with_bytes(record: dict) -> dict:
  """The record with its data URLs, of pictures and masks, as the bytes they hold."""
  read = lambda value: image.from_data_url(value) if image.is_data_url(value) else value
  if "image" in record:
    given = record["image"]
    record["image"] = [read(v) for v in given] if isinstance(given, list) else read(given)
  objects = record.get("objects")
  for item in objects if isinstance(objects, list) else ():
    if isinstance(item, dict) and "mask" in item:
      item["mask"] = read(item["mask"])
  return record
