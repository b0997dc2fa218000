"""A JSON file one value at a time, however large it is."""

import json
from collections.abc import Iterator
from typing import Any

from paligemma_jax import errors

_PIECE = 2**18  # bytes read at a time
_LONGEST = 2**20  # bytes of a string; a longer one may be taken for damage


class Walk:
  """Walks through a JSON file.

  The bytes are read as latin-1, so that positions in the text are those in the file; a value with
  other than ASCII characters is parsed anew from its own bytes.
  """

  _DECODER = json.JSONDecoder()

  def __init__(self, file, path, piece: int = _PIECE):
    """Begins where the file stands: `path` is for errors, `piece` bytes are read at a time."""
    self._file, self._path, self._piece = file, path, piece
    self._first = file.tell()  # place in the file where the text begins
    self._text, self._at, self._is_end = "", 0, False
    if self._first == 0:
      self._more()
      self._at = 3 if self._text.startswith("\xef\xbb\xbf") else 0

  def entries(self, key: str) -> Iterator[tuple[str | None, int, Any]] | None:
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
        if end + 2 < len(self._text) or self._is_end:  # else a number may go on: 1e+5
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
