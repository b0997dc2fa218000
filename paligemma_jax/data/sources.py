"""Where records come from: random access, length, and the place of each record for messages."""

import functools
import os
from collections.abc import Mapping
from typing import Any, Protocol

from paligemma_jax import errors
from paligemma_jax.data import files, stores
from paligemma_jax.data.jsonl import Jsonl

SOURCES = {  # the "kind" of a source config
  "jsonl": Jsonl,
  "tfds": stores.Tfds,
  "hf": stores.HuggingFace,
  "arrayrecord": stores.ArrayRecord,
}


class Source(Protocol):
  """What `SOURCES` have in common.

  Picklable (worker processes get a copy), opens its files on first use and has a repr that depends
  on its content alone, as grain asks. `KEYS` are the keys of its config, besides "path".
  """

  path: str  # as the user gave it
  folder: str  # local folder or URL that relative paths in the records start from
  max_images: int  # most images that one record has
  holds_pictures: bool  # in the records: reading one reads its pictures
  changed: dict[str, str]  # key of the records -> the type that its library made of its texts

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> dict:
    """Record i: strings, numbers, lists and dicts of them; a picture is its path or its bytes.

    Raises:
      errors.UserError: it is broken; names its place.
    """

  def place(self, i: int) -> str:
    """Where record i stands, e.g. "data.jsonl:17"."""

  def mended(self, i: int) -> list[tuple[str, str]]:
    """What reading record i changes, as (kind, sentence)."""

  def content_hash(self) -> str:
    """Hex digest that changes when the records do."""


def open_source(config: Mapping[str, Any], name: str = "data") -> Source:
  """The source that a config describes. It is kept while its file does not change.

  Args:
    config: mapping with "kind" (default "jsonl"), "path" and what else the kind takes.
    name: config path that errors name; one without a dot is of no config.

  Raises:
    errors.UserError: unknown kind, no path, or the source cannot be read.
  """
  kind, path = config.get("kind", "jsonl"), str(config.get("path") or "")
  if kind not in SOURCES:
    hint = errors.did_you_mean(kind, SOURCES)
    raise errors.UserError(f'{name}.kind: "{kind}" is unknown{hint}')
  if not path:
    raise errors.UserError(f"{name}.path is empty; set --config.{name}.path={_EXAMPLES[kind]}")
  settings = tuple((k, _hashable(config[k])) for k in SOURCES[kind].KEYS if config.get(k))
  version = _version(path, name) if kind == "jsonl" else ""
  return _opened(kind, path, settings, os.getcwd(), version)


_EXAMPLES = {"jsonl": "FILE.jsonl", "tfds": "NAME", "hf": "NAME", "arrayrecord": "FILES"}


def _version(path: str, name: str) -> str:
  """What changes when the JSONL file does."""
  if files.is_url(path):
    return files.stamp(path)
  if os.path.isdir(path):
    raise errors.UserError(f"{path}: a folder; {_correct(name)} to the JSONL file in it")
  try:
    return files.stamp(path)
  except errors.UserError:
    raise errors.UserError(f"{path}: No such file or directory; {_correct(name)}") from None


def _correct(name: str) -> str:
  return "correct " + (f"--config.{name}.path" if "." in name else "the path")


def _hashable(value: Any) -> Any:
  return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=64)
def _opened(kind, path, settings, _directory, _version):
  return SOURCES[kind](path, **dict(settings))
