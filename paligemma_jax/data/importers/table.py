"""CSV: a picture, a prefix and a suffix a row, or boxes (`box_table`). Format: RFC 4180.

Commas, semicolons, tabs or bars, whichever the header holds most. Quoted fields may hold line ends.
Excel's line "sep=;" is passed over. All other columns are kept under their names, for templates and
filters.
"""

import csv
import io
import itertools
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping

from paligemma_jax import errors
from paligemma_jax.data import files
from paligemma_jax.data.importers import annotations, box_table, pictures, texts


def read(
  src: str | os.PathLike,
  notes: annotations.Notes,
  *,
  images: str = "",
  columns: Mapping[str, str] | None = None,
  prefix: str = "",
) -> Iterator[dict]:
  """Records of a CSV file, one a row, in its order; of boxes, one a picture.

  Args:
    src: the file, UTF-8.
    notes: gets empty suffixes, and of boxes what was left out.
    images: folder that the names of pictures start from; "": the one that `src` lies in.
    columns: key of the record -> name of the column, for "image", "prefix", "suffix" and, of boxes,
      "label", where they differ.
    prefix: one prompt for all rows, instead of a column.

  Raises:
    errors.UserError: a column that is not there, a row of another length, a missing picture.
  """
  folder = images or os.path.dirname(os.path.abspath(src))
  text, finder = texts.read_text(pathlib.Path(src)), pictures.Folder(folder, notes)
  rows = _rows(text, src)
  first = next(rows, (1, []))
  header, columns = [name.strip() for name in first[1]], dict(columns or {})
  if "suffix" not in (*header, *columns) and not prefix:
    boxes = box_table.columns_of(header, columns)
    if boxes is None and (boxes := box_table.without_header(header)):
      rows = itertools.chain([first], rows)
    if boxes is not None:
      yield from box_table.records(rows, boxes, finder, src, notes)
      return
  names = _names(header, columns, prefix, src)
  for number, row in rows:
    place = f"{src}:{number}"
    if len(row) != len(header):
      raise errors.UserError(
        f"{place}: {len(row)} fields, the header has {len(header)}; quote fields that hold the"
        " separator"
      )
    record = dict(zip(names, row))
    path = files.join(folder, record["image"])
    if not files.is_url(path):
      path = finder.find(record["image"], place)
      annotations.frame_of(path, place)
    if not record["suffix"].strip():
      notes.add("empty suffixes, kept", place)
    fixed = {"prefix": prefix} if prefix else {}
    yield {"image": path, **{k: v for k, v in record.items() if k != "image"}, **fixed}


def _rows(text: str, src) -> Iterator[tuple[int, list[str]]]:
  """(line that it begins on, fields) of every row that is not blank."""
  csv.field_size_limit(sys.maxsize)
  head = re.sub('"[^"]*"', "", text.partition("\n")[0])  # separators in quotes are none
  delimiter = max(",;\t|", key=head.count)
  reader = csv.reader(
    io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
  )
  while True:
    start = reader.line_num + 1
    try:
      row = next(reader, None)
    except csv.Error as e:
      raise errors.UserError(f"{src}:{start}: broken CSV ({e}); check the quotes") from None
    if row is None:
      return
    if any(field.strip() for field in row) and row[0].lower() != "sep=":
      yield start, row


def _names(header: list[str], columns: dict[str, str], prefix: str, src) -> list[str]:
  """The record's key of every column."""
  for key, name in columns.items():
    if header.count(name) != 1:
      raise errors.UserError(
        f'{src}:1: {header.count(name)} columns are named "{name}", wanted one for "{key}"'
        f"{errors.did_you_mean(name, header)}"
      )
  keys = {name: key for key, name in columns.items()}
  names = [keys.get(name, name) for name in header]
  for key in ("image", "suffix") if prefix else ("image", "prefix", "suffix"):
    if names.count(key) != 1:
      other = " or --prefix TEXT" if key == "prefix" else ""
      raise errors.UserError(
        f'{src}:1: {names.count(key) or "no"} columns for "{key}" (found: {", ".join(header)});'
        f" give --columns {key}=NAME{other}"
      )
  if "objects" in names:
    raise errors.UserError(
      f'{src}:1: a column is named "objects", the key of boxes; give it another name'
    )
  return names
