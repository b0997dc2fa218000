"""Text that other tools wrote: encodings, JSON, XML, numbers and ids in any notation."""

import codecs
import json
import math
import os
import pathlib
import re
import xml.etree.ElementTree as ET
from typing import Any

from paligemma_jax import errors

_ARCHIVES = (b"PK\3\4", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")  # what they begin with
_DECLARED = re.compile(rb"""<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""")
# What is written under these names is usually of the larger set (WHATWG Encoding, section 4.2).
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
_COMMA = re.compile(
  r"\s*[+-]?(?![1-9]\d{0,2},\d{3}\s*$)\d+,\d+\s*"
)  # of decimals, not of thousands
_LONGEST = 60  # characters of a number
_TRUE = ("true", "yes")


def read_text(path: pathlib.Path) -> str:
  """A text file in UTF-8, or in another form of Unicode that its first bytes tell.

  Raises:
    errors.UserError: another encoding, with the line, or no text at all.
  """
  data = _bytes(path)
  return _decoded(data, path, json.detect_encoding(data))


def read_json(path: pathlib.Path) -> Any:
  """What a JSON file holds.

  Raises:
    errors.UserError: broken JSON, nested too deeply, or a number of thousands of digits.
  """
  text = read_text(path)
  if not text.strip():
    raise errors.UserError(f"{path}: an empty file; fetch it again")
  try:
    return json.loads(text)
  except json.JSONDecodeError as e:
    raise errors.UserError(f"{path}:{e.lineno}: broken JSON, {e.msg} at column {e.colno}") from None
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f"{path}: JSON that cannot be read ({_first_line(e)})") from None


def read_xml(path: pathlib.Path) -> ET.Element:
  """The root of an XML file in the encoding that it declares, which may be any that Python knows.

  Raises:
    errors.UserError: broken XML, an unknown encoding, or bytes that are not of it.
  """
  data = _bytes(path)
  declared, name = _DECLARED.search(data[:400]), json.detect_encoding(data)
  if declared and name == "utf-8":
    name = declared[1].decode("latin-1")
  if declared and name.lower().startswith(("utf-16", "utf-32")):
    name = "utf-8"  # in those the declaration could not have been found
  try:
    known = codecs.lookup(name).name
    "".encode(known)  # some of Python's codecs are not of text
  except (LookupError, ValueError, TypeError):
    raise errors.UserError(
      f'{path}: the declared encoding "{name}" is unknown; save the file as UTF-8'
    ) from None
  text = _decoded(data, path, _LARGER.get(known, known))
  try:
    return ET.fromstring(text)
  except ET.ParseError as e:
    raise errors.UserError(
      f"{path}:{e.position[0]}: broken XML ({e}); fetch the file again"
    ) from None


def number(value: Any) -> float | None:
  """A finite number, which may be written as text in any notation; None if it is none.

  "0,5" is a half; "1,250", which may be a thousand or one, is none.
  """
  if isinstance(value, bool) or (isinstance(value, str) and len(value) > _LONGEST):
    return None
  if isinstance(value, str) and _COMMA.fullmatch(value):
    value = value.replace(",", ".")
  try:
    found = float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
  """A whole number in any notation, 3, "3", 3.0 or "3.0e+00"; None if it is none."""
  found = number(value)
  return int(found) if found is not None and found.is_integer() else None


def flag(value: Any) -> bool:
  """Whether a value says yes: true or a number that is not 0, as text too."""
  if isinstance(value, str) and value.strip().lower() in _TRUE:
    return True
  return value is True or bool(number(value))


def identity(value: Any) -> str | None:
  """An id as text, so that 7, 7.0 and "7" are the same; None if it is none."""
  if isinstance(value, str):
    return value.strip()
  found = whole(value)
  return str(value if isinstance(value, int) else found) if found is not None else None


def _bytes(path: pathlib.Path) -> bytes:
  try:
    data = path.read_bytes()
  except IsADirectoryError:
    raise errors.UserError(f"{path}: a folder; give the file in it") from None
  except ValueError:  # a zero byte: the name is of a list that is no text
    raise errors.UserError(f"{ascii(str(path))} is no name of a file; save the list anew") from None
  if data.startswith(_ARCHIVES):
    raise errors.UserError(f"{path}: an archive or a workbook; unpack it, or save it as text")
  return data


def _decoded(data: bytes, path: str | os.PathLike, encoding: str) -> str:
  try:
    return data.decode(encoding).removeprefix("\ufeff")
  except UnicodeError as e:
    line = data[: getattr(e, "start", 0)].count(b"\n") + 1
    raise errors.UserError(
      f"{path}:{line}: not {encoding.upper().removesuffix('-SIG')}; save the file as UTF-8"
    ) from None


def _first_line(error: BaseException) -> str:
  return str(error).splitlines()[0].split(";")[0] if str(error) else type(error).__name__
