"""Where the pictures of a data set lie, by names that were written on another machine."""

import collections
import functools
import os
import pathlib
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator

from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data.importers import annotations
from paligemma_jax.processing import image

ANNOTATIONS = ("annotations", "annotation", "annots", "ann", "xmls", "xml")  # names of folders
# Pillow tells these by their header but decodes them with the help of other programs, or never.
_ONLY_TOLD = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "WMF")
_LEFT_BEHIND = ("__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini")  # and ".…"
# What tools put before a name: Label Studio, and COCO of 2014, whose names LVIS 0.5 still has.
_PREFIX = re.compile(r"^([0-9a-f]{8}-|COCO_(train|val|test)201[45]_)(?=.)", re.IGNORECASE)
LEFT_BEHIND = "files that systems and archives leave behind, left out"
_GUESSED = "pictures found by the end of their path"


@functools.cache
def endings() -> frozenset[str]:
  """Ends of names, ".jpg", of the pictures that Pillow decodes."""
  known = Image.registered_extensions()  # loads all plugins
  return frozenset(
    end for end, kind in known.items() if kind in {*Image.OPEN, "MPO"} and kind not in _ONLY_TOLD
  )


def is_picture(path: pathlib.Path) -> bool:
  """Whether a file is one, told by the end of its name, or by its header if the name has none."""
  if path.suffix:
    return path.suffix.lower() in endings()
  try:
    return bool(image.read_header(path))
  except (errors.UserError, OSError):
    return False


def among(
  paths: Iterable[pathlib.Path], notes: annotations.Notes, others: Iterable[str] = ()
) -> Iterator[pathlib.Path]:
  """The pictures among files; what is none is counted by its ending, unless it is one of `others`."""
  for path in paths:
    end = path.suffix.lower()
    if is_picture(path):
      yield path
    elif end not in others:
      kind = end or "without an ending"
      notes.add(f"files that are no pictures, left out ({kind})", str(path))


def is_left_behind(name: str) -> bool:
  """Whether a file or folder of this name is of the system's or an archive's own making."""
  return name.startswith(".") or name.lower() in _LEFT_BEHIND


def below(folder: pathlib.Path, notes: annotations.Notes | None = None) -> list[pathlib.Path]:
  """All files in a folder and its folders, by their paths.

  Args:
    folder: where to look.
    notes: gets what was left behind by systems and archives; None: nobody needs to know.
  """
  found, seen = [], set()
  for where, folders, names in os.walk(folder, followlinks=True):
    for name in filter(is_left_behind, (*folders, *names)):
      if notes is not None:
        notes.add(LEFT_BEHIND, os.path.join(where, name))
    if (real := os.path.realpath(where)) in seen:  # links may lead in a circle
      folders[:], names = [], []
    seen.add(real)
    folders[:] = [name for name in folders if not is_left_behind(name)]
    found += [pathlib.Path(where, name) for name in names if not is_left_behind(name)]
  return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def folder_of(root: pathlib.Path, names: Iterable[str]) -> pathlib.Path | None:
  """The folder in `root` that has one of the names, the first of them first, in any case."""
  there = None
  for name in names:
    if (root / name).is_dir():
      return root / name
    if there is None:
      there = {p.name.lower(): p for p in sorted(root.iterdir(), reverse=True) if p.is_dir()}
    if name in there:
      return there[name]
  return None


class Folder:
  """A folder of pictures, found by whatever path a file of annotations gives them."""

  def __init__(
    self,
    root: str | os.PathLike,
    notes: annotations.Notes,
    todo: str = "give its folder with --images",
  ):
    """Looks at nothing yet.

    Args:
      root: local folder that the paths start from.
      notes: gets the pictures that lie elsewhere than they should.
      todo: what helps if a picture is not there.
    """
    self.root, self._notes, self._todo = pathlib.Path(root), notes, todo

  def find(self, name: str, place: str) -> str:
    """The path of a picture.

    Args:
      name: its path, with any slashes, percent signs or a prefix of the tool that wrote it; or
        its URL.
      place: where that stands.

    Raises:
      errors.UserError: there is none, or several fit equally well.
    """
    if not name.strip():
      raise errors.UserError(f"{place}: the name of the picture is empty; write it")
    found = self.look(name, place)
    if found is None:
      path = os.path.join(self.root, name)
      raise errors.UserError(f"{place}: no picture {path}; put it there, or {self._todo}")
    return found

  def in_any_case(self, path: pathlib.Path) -> pathlib.Path | None:
    """The file of a path, whose letters may be large where it has small ones; None if none is."""
    if path.is_file():
      return path
    alike = self._index[0].get(_folded(path.name), [])
    return next((p for p in alike if _folded(str(p)) == _folded(str(path))), None)

  def look(self, name: str, place: str) -> str | None:
    """As `find`; None if there is none."""
    if not name.strip() or "\0" in name:
      return None
    whole = os.path.join(self.root, name)
    if os.path.isfile(whole):
      return whole
    for way, parts in enumerate(_ways_to_read(name)):
      for k in range(len(parts)):
        path = os.path.join(self.root, *parts[k:])
        if os.path.isfile(path):
          return self._guessed(path, place) if way or k else path
      found = self._nearest(parts, place)
      if found is not None:
        return self._guessed(found, place)
    return None

  def _guessed(self, path: str, place: str) -> str:
    self._notes.add(_GUESSED, f"{place}: {path}")
    return path

  def _nearest(self, parts: list[str], place: str) -> str | None:
    """The file below that shares most of the end of the path; with any case and ending."""
    last = _folded(parts[-1])
    names = last, _stem(last)
    for name, known in zip(names, self._index):
      found = known.get(name, [])
      shared = [_shared(parts, path.relative_to(self.root).parts) for path in found]
      best = [path for path, n in zip(found, shared) if n == max(shared)]
      if len(best) > 1:
        raise errors.UserError(
          f"{place}: {best[0]} and {best[1]} are both called as {'/'.join(parts)} is; {self._todo}"
        )
      if best:
        return str(best[0])
    return None

  @functools.cached_property
  def _index(self) -> tuple[dict[str, list[pathlib.Path]], dict[str, list[pathlib.Path]]]:
    """Files below the root by name, and pictures by name without ending, both `_folded`.

    A picture that has a tool's prefix is known without it, too.
    """
    by_name, by_stem = collections.defaultdict(list), collections.defaultdict(list)
    for path in below(self.root):
      by_name[_folded(path.name)].append(path)
      if path.suffix.lower() in endings():
        by_stem[_stem(_folded(path.name))].append(path)
        if (plain := _PREFIX.sub("", path.name)) != path.name:
          by_stem[_stem(_folded(plain))].append(path)
    return by_name, by_stem


def _ways_to_read(name: str) -> Iterator[list[str]]:
  """Parts of a path as it may be meant, the likeliest first; none twice."""
  path, query = name, ""
  if "://" in name:
    url = urllib.parse.urlsplit(name)
    path, query = url.path, url.query
  elif "?d=" in name:
    path, _, query = name.partition("?")
  local = urllib.parse.parse_qs(query).get("d", [])  # Label Studio's /data/local-files/?d=…
  seen = []
  for way in (path, path.strip(), *local, urllib.parse.unquote(path)):
    parts = [p for p in way.replace("\\", "/").split("/") if p not in ("", ".", "..")]
    if not parts:
      continue
    plain = [*parts[:-1], _PREFIX.sub("", parts[-1])]
    for one in (parts, plain):
      if one not in seen:
        seen.append(one)
        yield one


def _folded(name: str) -> str:
  """A name in small letters, its accents as they are usually written (macOS takes them apart)."""
  return unicodedata.normalize("NFC", name).lower()


def _stem(name: str) -> str:
  """A name without the ending of a picture."""
  stem, end = os.path.splitext(name)
  return stem if end in endings() else name


def _shared(a: Iterable[str], b: Iterable[str]) -> int:
  """How many parts the ends of two paths have in common, but for the last."""
  pairs = zip(reversed(list(a)[:-1]), reversed(list(b)[:-1]))
  count = 0
  for one, other in pairs:
    if _folded(one) != _folded(other):
      break
    count += 1
  return count
