"""From other formats to our JSONL: the list of formats, and how their records are written."""

import json
import os
import pathlib
from collections.abc import Iterator

import tqdm

from paligemma_jax import errors
from paligemma_jax.data import files, problems
from paligemma_jax.data.importers import annotations, coco, folders, table, voc, yolo

FORMATS = {  # name -> function(src, notes, **options) that yields records, paths of images absolute
  "coco": coco.read,
  "csv": table.read,
  "folders": folders.read,
  "voc": voc.read,
  "yolo": yolo.read,
}


def convert(name: str, src: str | os.PathLike, dst: str | os.PathLike, **options) -> str:
  """Writes DST, one record a line, whole or not at all.

  Args:
    name: of the format.
    src: file or folder in it.
    dst: where the JSONL file shall be; nothing may be there. Pictures stay where they are: their
      paths become relative to it, absolute if they share no folder with it.
    **options: of the format's function.

  Returns:
    Examples, objects and labels written; then a line for each thing that was left out or mended,
    with the first three places.

  Raises:
    errors.UserError: what is wrong with the data, with its place, or that there is none.
  """
  dst = pathlib.Path(dst).absolute()
  if dst.exists():
    raise errors.UserError(f"{dst} exists already; choose another name or remove it first")
  notes, labels, largest = annotations.Notes(), set(), 0.0
  counts = {"examples": 0, "objects": 0, "labels": 0}

  def lines() -> Iterator[bytes]:
    nonlocal largest
    records = FORMATS[name](src, notes, **options)
    for record in tqdm.tqdm(records, desc=f"import {name}", unit="example", disable=None):
      objects = record.get("objects") or []
      counts["examples"] += 1
      counts["objects"] += len(objects)
      labels.update(o["label"] for o in objects)
      largest = max([largest, *(max(o["box"]) for o in objects)])
      record["image"] = _seen_from(record["image"], dst.parent)
      line = json.dumps(record, ensure_ascii=False)
      try:
        yield line.encode() + b"\n"
      except UnicodeEncodeError as e:
        raise errors.UserError(
          f"{src}: a text about {record['image']} holds {ascii(line[e.start])}, half of a character;"
          " write it whole"
        ) from None
    if not counts["examples"]:
      left = "; ".join(notes.lines())
      raise errors.UserError(f"{src}: nothing to import ({left or 'it is empty'})")

  files.write_whole(dst, lines())
  counts["labels"] = len(labels)
  odd = sorted(label for label in labels if problems.LABEL_END.search(label))
  if odd:
    notes.hint(
      f'{len(odd)} {"classes hold" if odd[1:] else "class holds"} ";", "<" or ">", which end a label'
      f' in answers, as "{odd[0]}": training refuses that; rename and import again'
    )
  if counts["objects"] and largest <= 1:
    notes.hint("all boxes lie between 0 and 1: fractions of the picture? They were taken as pixels")
  said = [f"{n} {what if n > 1 else what[:-1]}" for what, n in counts.items() if n]
  return "\n".join([", ".join(said), *notes.lines()])


def _seen_from(path: str, folder: pathlib.Path) -> str:
  """The path relative to the folder, unless only the root is common to both; "/" between parts."""
  if files.is_url(path):
    return path
  path = os.path.abspath(path)
  if os.path.commonpath([path, folder]) == os.path.abspath(os.sep):
    return path
  return pathlib.Path(os.path.relpath(path, folder)).as_posix()
