"""Data sets of other libraries as sources: TFDS, Hugging Face `datasets`, ArrayRecord files.

Their pictures are read as the bytes of a file, their class numbers as names; `layout` says which
feature becomes which key of a record. Nothing here needs TensorFlow.
"""

import fnmatch
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from paligemma_jax import errors
from paligemma_jax.data import files, jsonl, layout, plain

_SAMPLE = 2**16  # bytes at both ends of a file that stand for its content
_SPREAD = 64  # rows of a data set of `datasets` that are read for its hash (chosen)


class _Store:
  """What the three have in common. A copy in another process opens its files anew."""

  holds_pictures = True
  changed: dict[str, str] = {}  # key, or "objects/key" -> what its values became that were texts

  def __init__(self, path: str, split: str, **settings):
    self.path, self.split = path, split
    self.folder = path if os.path.isdir(path) else files.folder(path)
    self._layout, self._data = layout.Layout(**settings), None
    self.max_images = self._layout.most_images()
    self._length = len(self._opened())
    if not self._length:
      raise errors.UserError(f"{self}: no examples")

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> dict:
    """Record i; raises errors.UserError with its place when it cannot be read."""
    if not 0 <= i < self._length:
      raise IndexError(i)  # ends a loop over the source
    return self._record(int(i), [])

  def mended(self, i: int) -> list[tuple[str, str]]:
    """What reading record i changes, as (kind, sentence): boxes that are cut or left out."""
    told = []
    self._record(int(i), told)
    return told

  def _record(self, i: int, told: list[tuple[str, str]]) -> dict:
    try:
      record = self._layout.record(self._features(i), self.place(i), self.folder, told)
      return jsonl.with_bytes(record)
    except errors.UserError:
      raise
    except Exception as e:  # every library has its own for a damaged file
      raise errors.UserError(f"{self.place(i)}: cannot be read ({e})") from None

  def place(self, i: int) -> str:
    """Where record i stands: path, split and its number from 0, e.g. "coco_captions train:17"."""
    return f"{self}:{i}"

  def content_hash(self) -> str:
    """Hex digest that changes when the records do."""
    parts = (*self._fingerprint(), self._length, *map(str, vars(self._layout).values()))
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

  def _opened(self):
    if self._data is None:
      self._data = self._open()
    return self._data

  def __getstate__(self):
    return {**self.__dict__, "_data": None}

  def __str__(self):
    return f"{self.path} {self.split}".rstrip()

  def __repr__(self):
    return f"{type(self).__name__}({str(self)!r}, {self._layout}, {self._length} examples)"


class Tfds(_Store):
  """A data set that TFDS has prepared as array_record files.

  Attributes as `sources.Source`.
  """

  KEYS = ("split", "data_dir", "fields", "boxes", "max_images")

  def __init__(self, path: str, split: str = "train", data_dir: str = "", **settings):
    """Finds the prepared files; the code that made them is not needed.

    Args:
      path: its name, "coco_captions" or "ref_coco/unc:1.4.0", or the folder of one version.
      split: TFDS's notation, "train[:90%]+validation".
      data_dir: where named data sets lie; "" for TFDS's own choice, $TFDS_DATA_DIR or
        ~/tensorflow_datasets.
      **settings: as `layout.Layout`; boxes are as TFDS stores them unless said.

    Raises:
      errors.UserError: no such data set or split, prepared in another format, or files of it are
        missing.
    """
    self._data_dir = data_dir
    super().__init__(path, split, **{"boxes": "yxyx_unit", **settings})

  def _open(self):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    try:
      if files.is_url(self.path) or os.path.isdir(self.path):
        builder = tfds.builder_from_directory(_version_folder(self.path, self.split))
      else:
        folder = self._data_dir or None
        builder = read_only_builder.builder_from_files(self.path, data_dir=folder)
    except (ValueError, OSError) as e:
      where = self._data_dir or "$TFDS_DATA_DIR or ~/tensorflow_datasets"
      reason = str(e).splitlines()[0].split(". ")[0]
      raise errors.UserError(
        f"{self.path}: no data set prepared by TFDS in {where} ({reason});"
        " make it with paligemma data build, give the folder of its version, or set data_dir"
      ) from None
    self._types = builder.info.features
    try:
      self._paths = [
        f"{builder.data_dir}/{name}" for name in builder.info.splits[self.split].filenames
      ]
      _check_complete(str(self), self._paths, files.glob(f"{glob.escape(str(builder.data_dir))}/*"))
      return builder.as_data_source(self.split, decoders=plain.undecoded_tfds(self._types))
    except NotImplementedError:
      raise errors.UserError(
        f"{self}: prepared as {builder.info.file_format.value}; prepare it again with"
        ' file_format="array_record"'
      ) from None
    except ValueError as e:
      raise errors.UserError(f"{self}: {str(e).splitlines()[0]}") from None

  def _features(self, i):
    return plain.tfds_value(self._opened()[i], self._types)

  def _fingerprint(self):
    self._opened()
    return [str(self), *map(_file_print, self._paths)]


class HuggingFace(_Store):
  """A data set of the Hub, or one saved on disk, read by `datasets`. Attributes as `sources.Source`."""

  KEYS = ("split", "name", "fields", "boxes", "max_images")

  def __init__(self, path: str, split: str = "train", name: str = "", **settings):
    """Opens it; from the Hub it is downloaded once.

    Args:
      path: "user/name" on the Hub, a folder as `Dataset.save_to_disk` leaves it, a folder of files
        that `datasets.load_dataset` understands, or a .parquet file.
      split: its name; from the Hub also "train[:10%]".
      name: which of its configurations; "": the default.
      **settings: as `layout.Layout`; boxes are as COCO stores them unless said.

    Raises:
      errors.UserError: `datasets` is not installed, or cannot open it.
    """
    self._name = name
    super().__init__(path, split, **{"boxes": "xywh", **settings})

  def _open(self):
    try:
      import datasets
    except ImportError:
      raise errors.UserError(
        f"{self.path}: reading it needs `pip install paligemma_jax[hf]`"
      ) from None
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error says it, too
    try:
      data = self._loaded(datasets)
    except errors.UserError:
      raise
    except Exception as e:  # of the Hub, of the network, of the files
      e = e.__cause__ or e  # what it says itself is that something went wrong
      first = (str(e) or type(e).__name__).splitlines()[0]
      raise errors.UserError(f"{self}: `datasets` cannot open it ({first})") from None
    finally:
      datasets.logging.set_verbosity(level)
    for column, feature in data.features.items():
      kept = plain.undecoded_hf(feature, datasets.Image)
      data = data.cast_column(column, kept) if kept != feature else data
    ours = {theirs: key for key, theirs in self._layout.fields}
    self.changed = {ours.get(k, k): kind for k, kind in plain.hf_times(data.features).items()}
    return data

  def _loaded(self, datasets):
    saved = [n for n in ("state.json", "dataset_dict.json") if files.exists(f"{self.path}/{n}")]
    if saved:
      data = datasets.load_from_disk(self.path)
      if isinstance(data, dict) and self.split not in data:
        hint = errors.did_you_mean(self.split, data)
        raise errors.UserError(f'{self.path}: no split "{self.split}"{hint}')
      return data[self.split] if isinstance(data, dict) else data
    if self.path.lower().endswith(".parquet"):
      return datasets.load_dataset("parquet", data_files=self.path, split="train")
    return datasets.load_dataset(self.path, self._name or None, split=self.split)

  def _features(self, i):
    data = self._opened()
    return {k: plain.hf_value(v, data.features[k]) for k, v in data[i].items()}

  def _fingerprint(self):
    # The library's own fingerprint has place and time of its cache in it: another machine's differs.
    data, last = self._opened(), max(self._length - 1, 0)
    rows = sorted({last * k // (_SPREAD - 1) for k in range(_SPREAD)})[: self._length]
    digest = hashlib.blake2b(digest_size=16)
    for i in rows:
      digest.update(repr(_without_folders(data[i])).encode())
    return [str(self), digest.hexdigest()]


class ArrayRecord(_Store):
  """ArrayRecord files whose records are JSON objects or `tf.train.Example`s.

  A JSON object is what a line of a JSONL file would be, its pictures `data:` URLs or paths from the
  files' folder. An Example's lists of one value become that value, its bytes text where they are
  not a picture. Attributes as `sources.Source`.
  """

  KEYS = ("fields", "boxes", "max_images")

  def __init__(self, path: str, **settings):
    """Counts the records.

    Args:
      path: a file or a pattern such as "data/train.array_record-*". gs:// is read in place, other
        URLs are copied into the cache. Writing with `group_size:1` makes reading fast.
      **settings: as `layout.Layout`.

    Raises:
      errors.UserError: no such file, not an ArrayRecord file, or the pattern stands for files
        NAME-00000-of-00003 of which some are missing.
    """
    super().__init__(path, "", **settings)

  def _open(self):
    from array_record.python import array_record_data_source as array_record

    found = files.glob(self.path)
    if not found:
      raise errors.UserError(f"{self.path}: no such files")
    _check_complete(str(self), _shards(self.path, found), found)
    self._paths = [p if p.startswith("gs://") else files.fetched(p) for p in found]
    try:
      return array_record.ArrayRecordDataSource(self._paths)
    except (RuntimeError, ValueError, OSError) as e:
      raise errors.UserError(f"{self.path}: not ArrayRecord files ({e})") from None

  def _features(self, i):
    data = self._opened()[i]
    if data[:1] == b"{":
      return jsonl.with_bytes(json.loads(data))
    masks = [theirs for ours, theirs in self._layout.fields if ours == "objects/mask"]
    return plain.example_values(data, {*self._layout.image_features, *masks})

  def _fingerprint(self):
    self._opened()
    return [_file_print(path) for path in self._paths]


def _without_folders(value: Any) -> Any:
  """A row of `datasets` with the names of its pictures' files alone, wherever they were put."""
  if isinstance(value, Mapping):
    place = {"path": os.path.basename(value["path"])} if isinstance(value.get("path"), str) else {}
    return {key: _without_folders(x) for key, x in value.items()} | place
  return [_without_folders(x) for x in value] if isinstance(value, list) else value


def _shards(pattern: str, found: Iterable[str]) -> list[str]:
  """All files of the form NAME-00000-of-00003 that a pattern stands for, by those that were found."""
  kinds = {m.groups() for m in (re.fullmatch(r"(.*-)\d+(-of-(\d+).*)", p) for p in found) if m}
  names = [f"{a}{i:0{len(n)}}{b}" for a, b, n in sorted(kinds) for i in range(int(n))]
  return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _check_complete(source: str, wanted: Iterable[str], found: Iterable[str]) -> None:
  """Raises a UserError unless all files are there, going by their names."""
  names = sorted({os.path.basename(path) for path in wanted})
  missing = sorted({*names} - {os.path.basename(path) for path in found})
  if missing:
    raise errors.UserError(
      f"{source}: {len(missing)} of {len(names)} files are missing, {missing[0]}"
      + (" the first of them" if len(missing) > 1 else "")
      + "; copy them again, or prepare the data again"
    )


def _file_print(path: str) -> str:
  """Name, size and a digest of both ends of a file; of one in a bucket, what the bucket says."""
  name = os.path.basename(path)
  if files.is_url(path):
    return f"{name} {files.stamp(path)}"
  with open(path, "rb") as f:
    size = os.fstat(f.fileno()).st_size
    digest = hashlib.blake2b(f.read(_SAMPLE), digest_size=16)
    f.seek(max(0, size - _SAMPLE))
    digest.update(f.read(_SAMPLE))
  return f"{name} {size} {digest.hexdigest()}"


def _version_folder(path: str, split: str) -> str:
  """The folder of a version as TFDS can read it: gs:// itself, other URLs copied into the cache."""
  if not files.is_url(path) or path.startswith("gs://"):
    return path
  splits = re.findall(r"[A-Za-z][\w-]*", split)  # "train[:50%]+val": only their files
  wanted = lambda n: "array_record" not in n or any(f"-{s}." in n for s in splits)
  return files.fetched_folder(path, wanted) or path
