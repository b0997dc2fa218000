"""Reading the official files of a data set: streamed, checked, and with the place of every fault.

Annotation files can be larger than memory, so JSON is walked through one value at a time, and what
two files say about one question is joined through byte offsets. Pictures are named first and read
when they are written.
"""

import bz2
import collections
import csv
import dataclasses
import gzip
import io
import json
import os
import pathlib
import pickle
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.processing import image

_PIECE = 2**18  # bytes of a JSON file read at a time
_ROW = 2**12  # where one row is looked up
_LONGEST = 2**20  # bytes of a string in it; longer ones may be taken for damage
_MARKS = (b"Exif", b"eXIf", b"EXIF", b"tiff:Orientation")  # what may turn a picture
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # what a whole file of the kind ends with


class MissingFile(errors.UserError):
  """An official file is not below the raw folder."""


class BadPicture(errors.UserError):
  """A picture is missing or cannot be read."""


class Folder:
  """What the user has downloaded.

  Attributes:
    root: the folder.
    place: where the row that was read last stands, for errors: "questions.json: questions[3]".
  """

  def __init__(self, root: str | os.PathLike):
    self.root, self.place = pathlib.Path(root), str(root)

  def path(self, name: str) -> pathlib.Path:
    """An annotation file; raises MissingFile if it is not there."""
    path = self.root / name
    if not path.is_file():
      raise MissingFile(f"{path}: no such file; --help of the task says what must lie where")
    return path

  def json(self, name: str) -> Any:
    """A JSON file that is small enough to be read whole."""
    path = self.path(name)
    self.place = str(path)
    try:
      return json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as e:
      raise errors.UserError(f"{path}: broken JSON ({e}); download it again") from None

  def rows(self, name: str, key: str = "") -> Iterator[Any]:
    """The values of a JSON array, one after the other.

    Args:
      name: of the file, below the root.
      key: of the array in the file's object; "": the file is the array.
    """
    for i, (_, _, value) in enumerate(self._walk(name, key)):
      self.place = f"{self.root / name}: {key}[{i}]"
      yield value

  def items(self, name: str, key: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of every entry of a JSON object; otherwise as `rows`."""
    for inner, _, value in self._walk(name, key):
      self.place = f'{self.root / name}: {key}["{inner}"]'
      yield inner, value

  def table(self, name: str, key: str, by: str) -> "Table":
    """The rows of a JSON array, to be looked up by the value of their key `by`."""
    path, offsets = self.path(name), {}
    for i, (_, offset, row) in enumerate(self._walk(name, key)):
      self.place = f"{path}: {key}[{i}]"
      offsets[row[by]] = offset
    return Table(self, path, by, offsets)

  def lines(self, name: str) -> Iterator[Any]:
    """The values of a file with one JSON value a line; .bz2 and .gz are unpacked on the way."""
    for i, line in enumerate(self.text(name), 1):
      if line.strip():
        self.place = f"{self.root / name}:{i}"
        try:
          yield json.loads(line)
        except ValueError:
          raise errors.UserError(f"{self.place}: broken JSON; download the file again") from None

  def text(self, name: str) -> Iterator[str]:
    """The lines of a text file, without their ends; .bz2 and .gz are unpacked on the way."""
    path = self.path(name)
    opener = {".bz2": bz2.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8-sig", newline="\n") as f:
      for line in f:
        yield line.rstrip("\r\n")

  def csv(self, name: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header."""
    path = self.path(name)
    with open(path, encoding="utf-8-sig", newline="") as f:
      for i, row in enumerate(csv.DictReader(f), 1):
        self.place = f"{path}: row {i}"
        yield row

  def pickled(self, name: str) -> Any:
    """A pickle of plain containers, strings and numbers; anything else in it is refused."""
    path = self.path(name)
    self.place = str(path)
    try:
      with open(path, "rb") as f:
        return _Unpickler(f).load()
    except errors.UserError:
      raise
    except Exception as e:  # a damaged pickle can raise anything
      raise errors.UserError(f"{path}: not a pickle ({e}); download it again") from None

  def grouped(self, name: str, key: str, by: str) -> Iterator[tuple[Any, list[Any]]]:
    """The rows of a JSON array that agree in their key `by`, in the order of their first ones."""
    groups = collections.defaultdict(list)
    for row in self.rows(name, key):
      groups[row[by]].append(row)
    for value, rows in groups.items():
      self.place = f"{self.root / name}: {by} {value}"
      yield value, rows

  def picture(self, name: str, quarter_turns: int = 0) -> "Picture":
    """A picture, by its path below the root; it is looked for when the record is collected.

    Args:
      name: its path.
      quarter_turns: how often it is turned counter-clockwise by 90 degrees.
    """
    return Picture(str(self.root / name), self.place, quarter_turns % 4)

  def frames(self, name: str, first: int = 0, last: int | None = None) -> "Frames":
    """The pictures in a folder, in the order of their names: the frames of a video.

    Args:
      name: path of the folder below the root.
      first, last: which of them, as a slice.
    """
    return Frames(str(self.root / name), self.place, first, last)

  def _walk(self, name, key):
    path = self.path(name)
    with open(path, "rb") as f:
      found = _Json(f, path).entries(key)
      if found is None:
        raise errors.UserError(f'{path}: no key "{key}"; is it the right file?')
      yield from found


class Table:
  """Rows of a JSON file by key. In memory are the keys and where the rows begin."""

  def __init__(self, folder: Folder, path: pathlib.Path, by: str, offsets: dict[Any, int]):
    self._folder, self._path, self._by = folder, path, by
    self._rows = {key: i for i, key in enumerate(offsets)}
    self._offsets, self._used = array("q", offsets.values()), bytearray(len(offsets))
    self._file = open(path, "rb")

  def __len__(self) -> int:
    return len(self._rows)

  def __contains__(self, key: Any) -> bool:
    return key in self._rows

  def __getitem__(self, key: Any) -> Any:
    """The row; raises a UserError that names both files when there is none."""
    if key not in self._rows:
      raise errors.UserError(
        f"{self._folder.place}: {self._path} has no row with {self._by} {key};"
        " the two files do not belong together"
      )
    i = self._rows[key]
    self._used[i] = True
    self._file.seek(self._offsets[i])
    return _Json(self._file, self._path, _ROW).value()[1]

  def check_all_used(self, partner: str) -> None:
    """Raises a UserError unless every row has been looked up; `partner` names the other file."""
    if not all(self._used):
      key = next(k for k, i in self._rows.items() if not self._used[i])
      raise errors.UserError(
        f"{self._path}: {self._by} {key} has no row in {self._folder.root / partner};"
        " the two files do not belong together"
      )


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture file, stored as it is unless it must be turned.

  EXIF orientation is not applied, as the reference does not; a file that has one is stored without
  it, so that readers that do apply it show the same.
  """

  path: str
  place: str  # what names it
  quarter_turns: int = 0  # counter-clockwise

  def probe(self) -> int:
    """Size of the file in bytes; raises BadPicture if it is missing, cut off or no picture."""
    try:
      with open(self.path, "rb") as f:
        with Image.open(f) as found:
          kind = found.format
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - 16))
        end = f.read().rstrip(b"\0")
    except FileNotFoundError:
      raise BadPicture(f"{self.place}: no picture {self.path}; put it there") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
      raise BadPicture(f"{self.place}: {self.path} is no picture; download it again") from None
    if not end.endswith(_ENDS.get(kind, b"?")):
      self._decoded()  # cut off, or something follows the picture, which does no harm
    return size

  def read(self) -> bytes:
    """The bytes to store."""
    with open(self.path, "rb") as f:
      data = f.read()
    if self.quarter_turns:
      return encode(np.rot90(self._decoded(), self.quarter_turns), "JPEG", quality=100)
    return without_orientation(data)

  def _decoded(self) -> np.ndarray:
    """uint8[H, W, 3]."""
    try:
      with Image.open(self.path) as found:
        return np.asarray(found.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
      raise BadPicture(f"{self.place}: {self.path} is damaged ({e}); download it again") from None


@dataclasses.dataclass(frozen=True)
class Frames:
  """The frames of a video, extracted into a folder."""

  path: str
  place: str
  first: int = 0
  last: int | None = None

  def probe(self) -> int:
    """Size of the frames in bytes; raises BadPicture if one cannot be read or there are none."""
    pictures = self._pictures()
    if not pictures:
      raise BadPicture(f"{self.place}: no frames in {self.path}; extract them there")
    return sum(picture.probe() for picture in pictures)

  def read(self) -> list[bytes]:
    """The bytes to store, frame by frame."""
    return [picture.read() for picture in self._pictures()]

  def _pictures(self):
    names = sorted(os.listdir(self.path)) if os.path.isdir(self.path) else []
    return [Picture(f"{self.path}/{n}", self.place) for n in names[self.first : self.last]]


@dataclasses.dataclass(frozen=True)
class Mask:
  """A mask, made when it is written: PNG of 0 and 255."""

  shape: tuple[int, int]  # height, width
  segmentation: Any  # COCO's: polygons, or run lengths

  def probe(self) -> int:
    """A guess at its size in bytes."""
    return 1000

  def read(self) -> bytes:
    """The bytes to store."""
    from paligemma_jax.processing import masks

    if isinstance(self.segmentation, dict):
      found = masks.decode_rle(self.segmentation)
    else:
      found = masks.fill(self.segmentation, *self.shape)
    return encode(found, "PNG")


def encode(pixels: np.ndarray, kind: str, **options) -> bytes:
  """Pixels, uint8[H, W, 3], uint8[H, W] or bool[H, W], as the bytes of a file."""
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, kind, **options)
  return out.getvalue()


def without_orientation(data: bytes) -> bytes:
  """A picture without the EXIF data that would turn it; its pixels stay as they are stored.

  Where the orientation stands elsewhere than in the EXIF segment of a JPEG or the chunk of a PNG,
  the picture is stored as a PNG.
  """
  if not any(mark in data for mark in _MARKS):
    return data
  try:
    if image.read_header(data).orientation == 1:
      return data
    plain = _without_segment(data)
    if image.read_header(plain).orientation == 1:
      return plain
  except errors.UserError:
    return data
  with Image.open(io.BytesIO(data)) as found:
    return encode(np.asarray(found.convert("RGB")), "PNG")


def _without_segment(data: bytes) -> bytes:
  """The file without its EXIF segments (JPEG) or chunk (PNG)."""
  if data.startswith(b"\xff\xd8"):
    at, kept = 2, [data[:2]]
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # until the scan begins
      end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
      if not (data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0"):
        kept.append(data[at:end])
      at = end
    return b"".join([*kept, data[at:]])
  if data.startswith(b"\x89PNG"):
    at = data.find(b"eXIf")
    return data[: at - 4] + data[at + 8 + int.from_bytes(data[at - 4 : at]) :]
  return data


def texts(rows: Iterable[dict], key: str) -> list[str]:
  """The value of one key of every row."""
  return [row[key] for row in rows]


class _Unpickler(pickle.Unpickler):
  """Builds no objects of any class, so that a file from the network cannot run code."""

  def find_class(self, module, name):
    raise errors.UserError(
      f"the pickle asks for {module}.{name}; only plain lists, dicts, strings and numbers are read"
    )


class _Json:
  """Walks through a JSON file.

  The bytes are read as latin-1, so that positions in the text are those in the file; a value with
  other than ASCII characters is parsed anew from its own bytes.
  """

  _DECODER = json.JSONDecoder()

  def __init__(self, file, path, piece=_PIECE):
    self._file, self._path, self._piece = file, path, piece
    self._first = file.tell()  # place in the file where the text begins
    self._text, self._at, self._is_end = "", 0, False
    if self._first == 0:
      self._more()
      self._at = 3 if self._text.startswith("\xef\xbb\xbf") else 0

  def entries(self, key: str):
    """(key or None, offset in the file, value) of a container's entries; None: there is no such.

    Args:
      key: of the container in the outermost object; "": the outermost itself.
    """
    if not key:
      return self._entries()
    for name in self._names():
      if name == key:
        return self._entries()
      self._skip()
    return None

  def value(self) -> tuple[int, Any]:
    """The value at the cursor and where it begins in the file."""
    self._space()
    while True:
      try:
        found, end = self._DECODER.raw_decode(self._text, self._at)
        if end < len(self._text) or self._is_end:  # else a number may go on
          break
      except ValueError as e:
        if self._is_end or e.pos + _LONGEST < len(self._text):
          self._broken()
      self._more()
    start, self._at = self._at, end
    written = self._text[start:end]
    if not written.isascii():
      found = json.loads(written.encode("latin-1"))
    return self._first + start, found

  def _entries(self):
    if self._space() == "{":
      for name in self._names():
        yield name, *self.value()
    else:
      for _ in self._list("[", "]"):
        yield None, *self.value()

  def _names(self):
    for _ in self._list("{", "}"):
      name = self.value()[1]
      self._take(":")
      yield name

  def _list(self, opening, closing):
    """One turn for every entry, the cursor before it; the caller moves it behind."""
    self._take(opening)
    if self._space() == closing:
      self._at += 1
      return
    while True:
      yield
      if self._space() == closing:
        self._at += 1
        return
      self._take(",")

  def _skip(self):
    if self._space() in ("{", "["):
      for _ in self._entries():
        pass
    else:
      self.value()

  def _space(self) -> str:
    """Moves to the next character that is no white space, and gives it."""
    while True:
      while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
        self._at += 1
      if self._at < len(self._text):
        return self._text[self._at]
      if self._is_end:
        self._broken()
      self._more()

  def _take(self, character):
    if self._space() != character:
      self._broken()
    self._at += 1

  def _more(self):
    piece = self._file.read(self._piece)
    self._is_end = not piece
    self._first += self._at
    self._text, self._at = self._text[self._at :] + piece.decode("latin-1"), 0

  def _broken(self):
    raise errors.UserError(
      f"{self._path}: broken JSON at byte {self._first + self._at}; download it again"
    )
