"""Reading the official files of a data set: streamed, checked, and with the place of every fault.

Annotation files can be larger than memory, so JSON is walked through one value at a time, and what
two files say about one question is joined through byte offsets. Pictures are named first and read
when they are written.
"""

import bz2
import collections
import contextlib
import csv
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import pictures, walk

_ROW = 2**12  # bytes read at a time where one row is looked up


class MissingFile(errors.UserError):
  """An official file, `path`, is not below the raw folder."""

  def __init__(self, text: str, path: pathlib.Path):
    super().__init__(text)
    self.path = path


class Folder:
  """What the user has downloaded.

  Attributes:
    root: the folder.
    place: where the row that was read last stands, for errors: "questions.json: questions[3]".
  """

  def __init__(self, root: str | os.PathLike):
    self.root, self.place = pathlib.Path(root), str(root)
    self._tables = {}

  def path(self, name: str) -> pathlib.Path:
    """An annotation file; raises MissingFile if it is not there."""
    path = self.root / name
    if not path.is_file():
      text = f"{path}: no such file; --help of the task says what must lie where"
      raise MissingFile(text, path)
    return path

  @contextlib.contextmanager
  def partner(self) -> Iterator[None]:
    """For reading a file that the last row names: that row stays the place, also of its absence."""
    place = self.place
    try:
      yield
    except MissingFile as e:
      raise MissingFile(f"{place}: {e}", e.path) from None
    self.place = place

  def json(self, name: str) -> Any:
    """A JSON file that is small enough to be read whole; packed as in `text`."""
    path = self.path(name)
    self.place = str(path)
    try:
      return json.loads("\n".join(self.text(name)))
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
    if (name, key) not in self._tables:
      path, offsets = self.path(name), {}
      for i, (_, offset, row) in enumerate(self._walk(name, key)):
        self.place = f"{path}: {key}[{i}]"
        offsets[row[by]] = offset
      self._tables[name, key] = Table(self, path, by, offsets)
    return self._tables[name, key]

  def groups(self, name: str, key: str, by: str) -> "Groups":
    """The same where several rows have one value, a whole number."""
    if (name, key) not in self._tables:
      path, keys, offsets = self.path(name), array("q"), array("q")
      for i, (_, offset, row) in enumerate(self._walk(name, key)):
        self.place = f"{path}: {key}[{i}]"
        keys.append(row[by])
        offsets.append(offset)
      self._tables[name, key] = Groups(path, keys, offsets)
    return self._tables[name, key]

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
    try:
      with opener(path, "rt", encoding="utf-8-sig", newline="\n") as f:
        for line in f:
          yield line.rstrip("\r\n")
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as e:
      raise errors.UserError(f"{path}: cannot be read ({e}); download it again") from None

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

  def picture(self, name: str, quarter_turns: int = 0) -> pictures.Picture:
    """A picture, by its path below the root; it is looked for when the record is collected.

    Args:
      name: its path.
      quarter_turns: how often it is turned counter-clockwise by 90 degrees.
    """
    return pictures.Picture(str(self.root / name), self.place, quarter_turns % 4)

  def frames(self, name: str, first: int = 0, last: int | None = None) -> pictures.Frames:
    """The pictures in a folder, in the order of their names: the frames of a video.

    Args:
      name: path of the folder below the root.
      first, last: which of them, as a slice.
    """
    return pictures.Frames(str(self.root / name), self.place, first, last)

  def _walk(self, name, key):
    path = self.path(name)
    with open(path, "rb") as f:
      found = walk.Walk(f, path).entries(key)
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

  def __iter__(self) -> Iterator[Any]:
    return iter(self._rows)

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
    return walk.Walk(self._file, self._path, _ROW).value()[1]

  def check_all_used(self, partner: str) -> None:
    """Raises a UserError unless every row has been looked up; `partner` names the other file."""
    if not all(self._used):
      key = next(k for k, i in self._rows.items() if not self._used[i])
      raise errors.UserError(
        f"{self._path}: {self._by} {key} has no row in {self._folder.root / partner};"
        " the two files do not belong together"
      )


class Groups:
  """Rows of a JSON file, several by one whole number. In memory are 16 bytes a row."""

  def __init__(self, path: pathlib.Path, keys: array, offsets: array):
    keys = np.frombuffer(keys, np.int64)
    order = np.argsort(keys, kind="stable")
    self._path, self._file = path, open(path, "rb")
    self._keys, self._offsets = keys[order], np.frombuffer(offsets, np.int64)[order]

  def __getitem__(self, key: int) -> list[Any]:
    """The rows with this key, in the order of the file; none if there are none."""
    first, end = np.searchsorted(self._keys, (key, key + 1))
    found = []
    for offset in self._offsets[first:end]:
      self._file.seek(offset)
      found.append(walk.Walk(self._file, self._path, _ROW).value()[1])
    return found


def is_held_out(name: str) -> bool:
  """Whether a name is among one in ten, by its hash: for a split that is not published."""
  return hashlib.md5(name.encode()).digest()[0] < 26  # of 256


def texts(rows: Iterable[dict], key: str) -> list[str]:
  """The value of one key of every row."""
  return [row[key] for row in rows]


class _Unpickler(pickle.Unpickler):
  """Builds no objects of any class, so that a file from the network cannot run code."""

  def find_class(self, module, name):
    raise errors.UserError(
      f"the pickle asks for {module}.{name}; only plain lists, dicts, strings and numbers are read"
    )
