"""Writes a data set in the form that TFDS reads: array_record shards and their metadata.

TFDS's own writer needs TensorFlow for splits beyond 1 GB and holds that much in memory. Here the
records are collected first, without their pictures, in a temporary file: counts, missing files and
the disk space are checked before anything large is written. Then they are written in TFDS's order,
by the hash of their keys, so that `train[:5%]` means the same records as in the reference's builds.
A data set appears under its name when it is complete.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import pathlib
import pickle
import shutil
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tqdm

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_SHARD = 2**28  # bytes of a shard, about


def build(
  data: dataset.Dataset,
  about: dataset.Task,
  raw_dir: str | os.PathLike,
  data_dir: str | os.PathLike,
  splits: Sequence[str] = (),
  strict: bool = False,
  say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> str:
  """Makes a data set of its official files; one that is there already is left alone.

  Args:
    data: which.
    about: its task, for the metadata.
    raw_dir: folder of the official files.
    data_dir: folder of prepared data sets; DATA_DIR/NAME/VERSION is made.
    splits: only these; empty: all.
    strict: whether counts other than the published ones are an error.
    say: told in a line what was left out and which counts differ.

  Returns:
    A line that says what was done.

  Raises:
    errors.UserError: a file is missing or broken, files contradict each other, too little disk
      space, another process builds the same. Nothing is left behind.
  """
  final = pathlib.Path(data_dir).absolute() / data.name / data.version
  for name in splits:
    if name not in data.sizes:
      hint = errors.did_you_mean(name, data.sizes)
      raise errors.UserError(f'{data.name}: no split "{name}"{hint}')
  if final.exists():
    return f"{final} is there already; remove it to build it again"
  with _parents(final), _own(final.parent / f".{data.version}.building") as temporary:
    folder = raw.Folder(raw_dir)
    spools = _collect_all(data, folder, splits or tuple(data.sizes), temporary, say)
    _check_counts(data, spools, strict, say)
    _check_space(data, spools, temporary)
    _write(data, about, spools, temporary)
    os.replace(temporary, final)
  counts = ", ".join(f"{name} {len(spool)}" for name, spool in spools.items())
  return f"{final}: {counts}"


@contextlib.contextmanager
def _parents(path: pathlib.Path) -> Iterator[None]:
  """Makes the folders above a path, and removes them if there is nothing at the path at the end."""
  made = [parent for parent in path.parents if not parent.exists()]
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    yield
  finally:
    for parent in made:
      with contextlib.suppress(OSError):  # not empty
        parent.rmdir()


@contextlib.contextmanager
def _own(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """An empty folder that no other process builds in; it is removed at the end if it is still there.

  What a killed process left in it is removed first. The lock is the system's, which ends with the
  process.
  """
  folder.mkdir(exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise errors.UserError(f"{folder}: another process is building here; wait for it") from None
    _empty(folder)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)
  finally:
    os.close(handle)


def _empty(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Spool:
  """The records of a split on disk, without their pictures, in the order of their hashed keys."""

  def __init__(self, path: pathlib.Path, split: str):
    self.split, self.left_out, self.num_bytes = split, 0, 0
    self._path, self._salt = path, hashlib.md5(split.encode())
    self._file, self._hashes, self._offsets = open(path, "w+b"), bytearray(), array("Q")

  def __len__(self) -> int:
    return len(self._offsets)

  def add(self, key: int | str, record: dict, num_bytes: int) -> None:
    """Keeps a record whose pictures have `num_bytes`."""
    md5 = self._salt.copy()
    md5.update(str(key).replace("\\", "/").encode())  # as `tfds.core.hashing.Hasher`
    self._hashes += md5.digest()
    self._offsets.append(self._file.tell())
    data = pickle.dumps((key, record), pickle.HIGHEST_PROTOCOL)
    self._file.write(data)
    self.num_bytes += num_bytes + len(data)

  def __iter__(self) -> Iterator[tuple[int | str, dict]]:
    """Keys and records; raises a UserError where two of them have the same key."""
    hashes = np.frombuffer(self._hashes, ">u8").reshape(-1, 2)
    last = None
    for i in np.lexsort((hashes[:, 1], hashes[:, 0])):
      self._file.seek(self._offsets[i])
      key, record = pickle.load(self._file)
      digest = hashes[i].tobytes()
      if digest == last:
        raise errors.UserError(f"{self.split}: two records have the key {key}; remove one of them")
      last = digest
      yield key, record

  def check_keys(self) -> None:
    """Raises a UserError when two records have the same key."""
    hashes = np.frombuffer(self._hashes, "V16")
    if len(np.unique(hashes)) < len(hashes):
      for _ in self:  # finds which
        pass

  def close(self) -> None:
    """Removes the file."""
    self._file.close()
    self._path.unlink()


class _NoPictures(errors.UserError):
  """No record of a split has its picture, which some may lack."""


def _collect_all(data, folder, splits, temporary, say) -> dict[str, _Spool]:
  """The records of the splits, in their order; some may lack their files, as long as one has them."""
  spools, missing = {}, {}
  for split in splits:
    spool = _Spool(temporary / f"{split}.spool", split)
    try:
      _collect(data, folder, spool, say)
      spools[split] = spool
    except (raw.MissingFile, _NoPictures) as e:
      spool.close()
      if not _may_lack(data, split, e):
        raise
      missing[split] = e
  if not spools:
    raise next(iter(missing.values()))
  if missing:
    first = next(iter(missing.values()))
    say(f"{data.name}: without their files, left out: {', '.join(missing)} ({first})")
  return spools


def _may_lack(data, split: str, error: errors.UserError) -> bool:
  """Whether a split may be left out for this: its annotations, or the whole folder of its pictures."""
  if isinstance(error, _NoPictures):
    return True
  return data.is_partial or (split in data.lenient and not error.path.parent.exists())


def _collect(data, folder, spool, say) -> None:
  """Puts the records of a split into its spool, all that they refer to looked at."""
  split, sizes, first = spool.split, {}, None
  bar = tqdm.tqdm(unit="record", desc=f"{data.name} {split}: collect", disable=None, leave=False)
  with bar:
    try:
      for key, record in data.records(folder, split):
        try:
          spool.add(key, record, sum(_probed(file, sizes) for file in _files(record)))
        except pictures.BadPicture as e:
          if split not in data.lenient:
            raise
          spool.left_out, first = spool.left_out + 1, first or str(e)
        bar.update()
    except (LookupError, TypeError, ValueError, AttributeError, SyntaxError) as e:
      what = f"no key {e}" if isinstance(e, KeyError) else str(e)
      raise errors.UserError(f"{folder.place}: not as it should be ({what})") from e
  if first and not len(spool):
    raise _NoPictures(f"none of its {spool.left_out} records has its picture ({first})")
  if not len(spool):
    raise errors.UserError(f"{data.name}: no records of {split} in {folder.root}")
  if spool.left_out:
    say(f"{data.name}: {spool.left_out} records of {split} left out, no picture")
  spool.check_keys()


def _files(value) -> Iterator:
  """Everything in a record that is read when it is written."""
  if hasattr(value, "probe"):
    yield value
  elif isinstance(value, dict):
    for inner in value.values():
      yield from _files(inner)
  elif isinstance(value, (list, tuple)):
    for inner in value:
      yield from _files(inner)


def _probed(file, sizes: dict[int, int]) -> int:
  """Size in bytes; a file is looked at once."""
  if not isinstance(file, pictures.Picture):
    return file.probe()
  key = hash(file.path)  # the paths of millions would fill the memory
  if key not in sizes:
    sizes[key] = file.probe()
  return sizes[key]


def _check_counts(data, spools, strict, say) -> None:
  for split, spool in spools.items():
    wanted = data.sizes[split]
    if wanted is not None and len(spool) != wanted:
      line = f"{data.name}: {split} has {len(spool)} records, {wanted} are published"
      if strict:
        raise errors.UserError(f"{line}; complete the files or leave out --strict")
      say(f"warning: {line}")


def _check_space(data, spools, temporary) -> None:
  needed = sum(spool.num_bytes for spool in spools.values())
  free = shutil.disk_usage(temporary).free
  if needed > free:
    sizes = ", ".join(f"{name} {spool.num_bytes / 1e9:.1f}" for name, spool in spools.items())
    raise errors.UserError(
      f"{data.name} needs {needed / 1e9:.1f} GB ({sizes}), {temporary.parent} has"
      f" {free / 1e9:.1f}; choose another --data-dir or name the --splits you need"
    )


def _write(data, about, spools, temporary) -> None:
  """The shards of all splits, then what TFDS needs to know about them."""
  import tensorflow_datasets as tfds

  name, _, config = data.name.partition("/")
  features = tfds.features.FeaturesDict(data.features(tfds.features))
  identity = tfds.core.DatasetIdentity(
    name=name, version=tfds.core.Version(data.version), data_dir=str(temporary),
    module_name=__name__, config_name=config or None,
  )  # fmt: skip
  info = tfds.core.DatasetInfo(
    builder=identity, features=features, homepage=about.source.split()[0], license=about.licence
  )  # fmt: skip
  info.set_file_format("array_record")
  splits = []
  for split, spool in spools.items():
    template = tfds.core.ShardedFileTemplate(
      data_dir=temporary, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    lengths, num_bytes = _write_split(data.name, spool, features, template)
    spool.close()
    splits.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
      )
    )
  info.set_splits(tfds.core.SplitDict(splits))
  info.write_to_directory(temporary)


def _write_split(name, spool, features, template) -> tuple[list[int], int]:
  """The shards of a split; how many records are in each, and all their bytes."""
  from array_record.python import array_record_module as array_record
  from tensorflow_datasets.core import example_serializer, utils

  specs = features.get_serialized_info()
  for info in utils.flatten_nest_dict(specs).values():
    # Of lists in lists TFDS asks for it, and would import TensorFlow.
    info._tf_dtype = info.np_dtype
  serializer = example_serializer.ExampleSerializer(specs)
  count = min(len(spool), max(1, math.ceil(spool.num_bytes / _SHARD)))
  ends = [round(len(spool) * (i + 1) / count) for i in range(count)]
  lengths = np.diff([0, *ends]).tolist()
  num_bytes, records = 0, iter(spool)
  bar = tqdm.tqdm(
    total=len(spool), unit="record", desc=f"{name} {spool.split}: write", disable=None, leave=False
  )
  with bar:
    for i, length in enumerate(lengths):
      path = template.sharded_filepath(shard_index=i, num_shards=count)
      writer = array_record.ArrayRecordWriter(os.fspath(path), "group_size:1")  # random access
      for _ in range(length):
        key, record = next(records)
        try:
          data = serializer.serialize_example(features.encode_example(_read(record)))
        except errors.UserError:
          raise
        except Exception as e:  # every feature has its own
          words = " ".join(str(e).split())
          raise errors.UserError(f"{name} {spool.split}: record {key}: {words}") from e
        num_bytes += len(data)
        writer.write(data)
        bar.update()
      writer.close()
  return lengths, num_bytes


def _read(value):
  """The record with its files read."""
  if hasattr(value, "probe"):
    return value.read()
  if isinstance(value, dict):
    return {k: _read(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_read(v) for v in value]
  return value
