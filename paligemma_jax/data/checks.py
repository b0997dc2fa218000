"""What is wrong with a source, found before JAX starts and told all at once, with file and line.

Every line is read and checked for its keys and their types, every local picture and mask for being
there. The headers of at most `HEADERS` pictures a source (spread evenly; `REMOTE` where they lie
behind URLs) are read to see that they are pictures and that the boxes lie inside; where records
hold their pictures, as many records are read. A picture that breaks further in is found when it is
read, see `pipeline`.
"""

from collections.abc import Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.data import examples, files, prepare, problems, sources, tasks
from paligemma_jax.processing import image

HEADERS = 20_000  # 2 to 8 s from a warm cache, the most for PNGs in many chunks
REMOTE = 32


def check(
  configs: Mapping[str, Mapping], processor=None, text_len: int = 0, train: bool = True
) -> None:
  """Raises one errors.UserError that lists the findings of all sources; silent if there is none.

  Args:
    configs: config path ("train.data.cats", "evals.val.data") -> source config. The path is what
      messages tell the user to set.
    processor: with a tokenizer, to measure lengths; None skips that.
    text_len: longest text that fits, in tokens of BOS, prefix, newline and suffix.
    train: whether prefix and suffix together must fit, and there must be a suffix; else the prefix
      alone, as when answering.
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
    rules = tasks.Rules.of(config, name)
    source = sources.open_source(config, name)
  except errors.UserError as e:
    return [str(e)]
  report = problems.Report(source)
  for kind, text in problems.of_source(source, rules):
    report.add(kind, 0, text)
  pictures = {}  # path -> (first record, records that use it with objects)
  for i in _spread(range(len(source)), HEADERS if source.holds_pictures else len(source)):
    try:
      record = source[i]
    except errors.UserError as e:
      report.add(getattr(e, "kind", "json"), i, str(e).removeprefix(f"{source.place(i)}: "))
      continue
    # A few records of a prepared data set may lack answers: they are counted when they are met.
    answered = train and not source.holds_pictures
    found = list(problems.of_record(record, rules, name, answered))
    for kind, text in found:
      report.add(kind, i, text)
    if not found:
      _collect(record, source, i, pictures, report)
  _pictures(source, pictures, report)
  lines = list(report.lines().values())
  if processor is not None and text_len and processor.tokenizer is not None:
    lines += _lengths(source, rules, processor, text_len, train, name)
  return lines


def needed_lengths(source, rules: tasks.Rules, processor, train: bool) -> np.ndarray:
  """int32[N]: tokens of text that every record needs at most; 0 of what cannot be read.

  Args:
    source, rules: where records lie and how they become examples.
    processor: with a tokenizer.
    train: whether the suffix is laid out too; its EOS is only a target, never an input.
  """
  prompt, _, whole = prepare.token_lengths(source, rules, processor)
  return np.maximum(prompt, whole - 1) if train else prompt


def _collect(record, source, i, pictures, report) -> None:
  """Notes which pictures the record needs; tells which masks are missing."""
  given = examples.image_list(record)
  paths = [p if isinstance(p, bytes) else files.join(source.folder, p) for p in given]
  for path in paths:
    if isinstance(path, bytes):
      _header_of_bytes(path, [], i, report)
    else:
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
  if isinstance(target, bytes):
    _header_of_bytes(target, shown, i, report)
  else:
    pictures[target].append((i, shown))
  for item in shown:
    mask = item.get("mask")
    path = files.join(source.folder, mask) if isinstance(mask, str) else ""
    if path and (missing := problems.no_file("mask", path)):
      report.add(missing[0], i, missing[1])


def _header_of_bytes(data, objects, i, report) -> None:
  try:
    height, width, _ = image.read_header(data)
  except image.BadPicture as e:
    report.add(e.kind, i, str(e))
    return
  for kind, text in problems.of_objects(objects, height, width):
    report.add(kind, i, text)


def _pictures(source, pictures, report) -> None:
  local = [path for path in pictures if not files.is_url(path)]
  remote = [path for path in pictures if files.is_url(path)]
  there = []
  for path in local:
    missing = problems.no_file("image", path)
    if missing is None:
      there.append(path)
      continue
    for i, _ in pictures[path]:
      report.add(missing[0], i, missing[1])
  for path in _spread(there, HEADERS) + _spread(remote, REMOTE):
    first = pictures[path][0][0]
    try:
      height, width, _ = _header(path, source.place(first))
    except errors.UserError as e:
      kind = getattr(e, "kind", "image file")
      report.add(kind, first, str(e).removeprefix(f"{source.place(first)}: "))
      continue
    for i, objects in pictures[path]:
      for kind, text in problems.of_objects(objects or [], height, width):
        report.add(kind, i, text)


def _spread(items: list, limit: int) -> list:
  if len(items) <= limit:
    return items
  return [items[k] for k in np.linspace(0, len(items) - 1, limit).astype(int)]


def _header(path: str, place: str) -> image.Header:
  return image.read_header(files.read_bytes(path, place) if files.is_url(path) else path, path)


def _lengths(source, rules, processor, text_len, train, name) -> list[str]:
  needs = needed_lengths(source, rules, processor, train)
  cut = int((needs > text_len).sum())
  if not cut:
    return []
  i = int(np.argmax(needs))
  return [
    f"{source.path}: text_len {text_len} would cut {cut} of {len(needs)} examples ({name}); the"
    f" longest, {source.place(i)}, needs {needs[i]} tokens. Set --config.input.text_len={needs[i]}"
    " or shorten them"
  ]
