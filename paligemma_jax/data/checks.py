"""What is wrong with a source, found before JAX starts and told all at once, with file and line.

Every line is read and checked for its keys and their types, every local picture and mask for being
there. The headers of at most `HEADERS` pictures a source (spread evenly; `REMOTE` where they lie
behind URLs) are read to see that they are pictures and that the boxes lie inside; a picture
that breaks further in stops the run when it is read, with its name.
"""

import difflib
import os
from collections.abc import Iterator, Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data import examples, files, prepare, sources
from paligemma_jax.processing import boxes, image

HEADERS = 20_000  # about 3 s
REMOTE = 32
_TYPES = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}


def check(
  configs: Mapping[str, Mapping], processor=None, text_len: int = 0, train: bool = True
) -> None:
  """Raises one errors.UserError that lists the findings of all sources; silent if there is none.

  Args:
    configs: config path ("train.data.cats", "evals.val.data") -> source config. The path is what
      messages tell the user to set.
    processor: with a tokenizer, to measure lengths; None skips that.
    text_len: longest text that fits, in tokens of BOS, prefix, newline and suffix.
    train: whether prefix and suffix together must fit; else the prefix alone, as when answering.
  """
  found = []
  for name, config in configs.items():
    found += [f for f in findings(config, name, processor, text_len, train) if f not in found]
  if found:
    raise errors.UserError("\n".join(found))


def findings(
  config: Mapping, name: str = "data", processor=None, text_len: int = 0, train: bool = True
) -> list[str]:
  """One line per kind of mistake in a source, with the first place and the number of others."""
  try:
    rules = examples.Rules.of(config, name)
    source = sources.open_source(config, name)
  except errors.UserError as e:
    return [str(e)]
  report = _Report(source)
  pictures = {}  # path -> (first record, records that use it with objects)
  for i in range(len(source)):
    try:
      record = source[i]
    except errors.UserError as e:
      report.add("json", i, str(e).removeprefix(f"{source.place(i)}: "))
      continue
    problems = list(_keys(record, rules, name))
    for kind, text in problems:
      report.add(kind, i, text)
    if not problems:
      _collect(record, source, i, pictures, report)
  _pictures(source, pictures, report)
  lines = report.lines()
  if processor is not None and text_len and processor.tokenizer is not None:
    lines += _lengths(source, rules, processor, text_len, train, name)
  return lines


class _Report:
  """Findings by kind: the first with its text, the others by line."""

  def __init__(self, source):
    self._source, self._found = source, {}

  def add(self, kind: str, i: int, text: str) -> None:
    self._found.setdefault(kind, {}).setdefault(i, text)

  def lines(self) -> list[str]:
    return [self._line(found) for found in self._found.values()]

  def _line(self, found: dict[int, str]) -> str:
    (i, text), *others = sorted(found.items())
    if others:
      places = ", ".join(self._source.place(k).rpartition(":")[2] for k, _ in others[:8])
      more = ", …" if len(others) > 8 else ""
      text += f" (the same kind in {len(others)} more: lines {places}{more})"
    return f"{self._source.place(i)}: {text}"


def _keys(record, rules, name) -> Iterator[tuple[str, str]]:
  """(kind, text) for every key of a record that is missing or of another type than it should be."""
  if "image" not in record:
    yield _missing(record, "image", "")
  elif not _strings(record["image"]):
    yield _wrong("image", record["image"], "a path or a list of paths")
  for field in rules.fields():
    if field not in record and not (field == "label" and rules.task != "text"):
      text = f'no key "{field}" for the prefix "{rules.prefix}"'
      yield f"field {field}", text + errors.did_you_mean(field, record)
  if rules.task == "text":
    yield from _text_keys(record, rules, name)
  else:
    yield from _object_keys(record, rules)


def _text_keys(record, rules, name):
  if not rules.prefix:
    if "prefix" not in record:
      yield _missing(record, "prefix", f' or set --config.{name}.prefix="{{{{{{}}}}}}"')
    elif not isinstance(record["prefix"], str):
      yield _wrong("prefix", record["prefix"], "a string")
  key = rules.suffix
  if record.get(key) is None:
    yield _missing(record, key, f" or set --config.{name}.suffix={{}}")
  elif record[key] != "" and not _strings(record[key], allow_empty_string=True):
    yield _wrong(key, record[key], "a string or a list of strings")


def _object_keys(record, rules):
  objects = record.get("objects")
  if objects is None:
    yield _missing(record, "objects", "")
    return
  if not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
    yield _wrong("objects", objects, 'a list of {"label", "box"}')
    return
  if not objects and (rules.task == "segment" or not rules.prefix):
    yield "no objects", f'"objects" is empty; a {rules.task} example needs one'
  for k, item in enumerate(objects):
    for key in ("label", "box", "mask") if rules.task == "segment" else ("label", "box"):
      if item.get(key) is None:
        kind, text = _missing(item, key, "")
        yield kind, f"objects[{k}]: {text}"
    label, box = item.get("label", ""), item.get("box")
    if not isinstance(label, str):
      yield _wrong(f"objects[{k}].label", label, "a string")
    if box is not None and not _is_box(box):
      yield "box", f"objects[{k}].box is {box}; wanted [x0, y0, x1, y1] in pixels, x0 < x1, y0 < y1"


def _missing(record, key, setting) -> tuple[str, str]:
  """`setting` may hold a {} for the key that was probably meant; without one it is left out."""
  found = ", ".join(map(str, list(record)[:12])) or "nothing"
  near = difflib.get_close_matches(key, [k for k in record if k != key], n=1, cutoff=0.6)
  todo = f"Rename the key{setting.format(near[0])}" if near else f'Add "{key}"'
  if not near and setting and record:
    todo += setting.format("KEY")
  return f"no {key}", f'no key "{key}" (found: {found}). {todo}'


def _wrong(key, value, wanted) -> tuple[str, str]:
  kind = _TYPES.get(type(value), "null" if value is None else "a number")
  empty = "empty " if isinstance(value, str | list | dict) and not value else ""
  return (
    f"type {key}",
    f'"{key}" is {kind if not empty else f"an {empty}{kind[2:].strip()}"}; wanted {wanted}',
  )


def _strings(value, allow_empty_string=False) -> bool:
  values = value if isinstance(value, list) else [value]
  return bool(values) and all(isinstance(v, str) and (v or allow_empty_string) for v in values)


def _is_box(box) -> bool:
  numbers = isinstance(box, list) and len(box) == 4
  if not numbers or not all(isinstance(v, int | float) and np.isfinite(v) for v in box):
    return False
  return box[0] < box[2] and box[1] < box[3]


def _collect(record, source, i, pictures, report) -> None:
  """Notes which pictures the record needs; tells which masks are missing."""
  paths = [files.join(source.folder, path) for path in examples.image_list(record)]
  for path in paths:
    pictures.setdefault(path, []).append((i, None))
  objects = record.get("objects")
  if not isinstance(objects, list) or not objects:
    return
  try:
    target = paths[examples.object_image(record)]
  except errors.UserError as e:
    report.add("object image", i, str(e))
    return
  shown = [o for o in objects if isinstance(o, dict)]
  pictures[target].append((i, shown))
  for item in shown:
    mask = item.get("mask")
    if isinstance(mask, str) and not files.is_url(mask):
      path = files.join(source.folder, mask)
      if not os.path.isfile(path):
        report.add("mask file", i, f"no mask file {path}; correct the path in the record")


def _pictures(source, pictures, report) -> None:
  local = [path for path in pictures if not files.is_url(path)]
  remote = [path for path in pictures if files.is_url(path)]
  there = []
  for path in local:
    if os.path.isfile(path):
      there.append(path)
    else:
      for i, _ in pictures[path]:
        report.add("image file", i, f"no image file {path}; correct the path in the record")
  for path in _spread(there, HEADERS) + _spread(remote, REMOTE):
    first = pictures[path][0][0]
    try:
      height, width, _ = _header(path, source.place(first))
    except errors.UserError as e:
      report.add("image", first, str(e).removeprefix(f"{source.place(first)}: "))
      continue
    for i, objects in pictures[path]:
      for text in _outside(objects or [], width, height):
        report.add("outside", i, text)


def _spread(items: list, limit: int) -> list:
  if len(items) <= limit:
    return items
  return [items[k] for k in np.linspace(0, len(items) - 1, limit).astype(int)]


def _header(path: str, place: str) -> image.Header:
  return image.read_header(files.read_bytes(path, place) if files.is_url(path) else path, path)


def _outside(objects: list[dict], width: int, height: int) -> Iterator[str]:
  for k, item in enumerate(objects):
    if _is_box(item.get("box")):
      try:
        boxes.check_box(item["box"], height, width, f"objects[{k}].box")
      except errors.UserError as e:
        yield str(e)
    mask = item.get("mask")
    if isinstance(mask, dict) and list(mask.get("size", [])) != [height, width]:
      yield (
        f"objects[{k}].mask has the size {mask.get('size')}, the picture [{height}, {width}];"
        ' "size" is [height, width] of the whole picture'
      )


def _lengths(source, rules, processor, text_len, train, name) -> list[str]:
  prompt, _, whole = prepare.token_lengths(source, rules, processor)
  needs = np.maximum(prompt, whole - 1) if train else prompt  # EOS is only a target, never an input
  cut = int((needs > text_len).sum())
  if not cut:
    return []
  i = int(np.argmax(needs))
  return [
    f"{source.path}: text_len {text_len} would cut {cut} of {len(needs)} examples ({name}); the"
    f" longest, {source.place(i)}, needs {needs[i]} tokens. Set --config.input.text_len={needs[i]}"
    " or shorten them"
  ]
