"""Batches for `pg.evaluate`, from rows in memory or a file, without a config and without threads."""

import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import examples as records
from paligemma_jax.data import prepare, sources, tasks
from paligemma_jax.processing import image

Pairs = Iterable[tuple[list[np.ndarray], dict]]


def examples(
  rows: list[dict] | str | os.PathLike, task: str, codec: dict | None = None
) -> Iterator[tuple[list[np.ndarray], dict]]:
  """Pairs (pictures uint8[H, W, 3], row with "height" and "width") of every example.

  Args:
    rows: as `runner.evaluate` takes them.
    task: what the records of a file become: "text", "detect" or "segment".
    codec: parameters of `models.vqvae`, for the truths of "segment".

  Raises:
    errors.UserError: no such file, a missing key, a picture or mask that cannot be read.
  """
  if not isinstance(rows, str | os.PathLike):
    yield from (_in_memory(i, row) for i, row in enumerate(rows))
    return
  source = sources.open_source({"path": os.fspath(rows)}, "rows")
  if not any("objects" in source[i] for i in range(len(source))):
    task = "text"  # its prompts and answers are written out, boxes with <loc> tokens
  rules = tasks.Rules(task)
  codes = prepare.mask_codes(source, codec) if task == "segment" and codec is not None else None
  for i in range(len(source)):
    example = records.make(source, i, rules, codes=codes[i] if codes else None, extras=True)
    yield example.images, example.extras


def batches(
  pairs: Pairs, processor, batch_size: int, with_suffix: bool
) -> Iterator[tuple[structs.Batch, list[dict]]]:
  """Pairs (Batch of `batch_size` rows, rows of its real examples); the last batch is filled up.

  Args:
    pairs: as `examples` gives them.
    processor: `processing.processor.Processor`.
    batch_size: examples at a time.
    with_suffix: training layout, for the likelihood of the suffix.
  """
  pairs = iter(pairs)
  while chunk := list(itertools.islice(pairs, batch_size)):
    filled = chunk + [chunk[-1]] * (batch_size - len(chunk))
    batch = processor(
      images=[pictures for pictures, _ in filled],
      prompts=[row["prefix"] for _, row in filled],
      suffixes=[_first(row) for _, row in filled] if with_suffix else None,
    )
    yield batch._replace(valid=np.arange(batch_size) < len(chunk)), [row for _, row in chunk]


def _in_memory(i: int, row: dict) -> tuple[list[np.ndarray], dict]:
  place = f"rows[{i}]"
  for key in ("image", "prefix"):
    if key not in row:
      raise errors.UserError(f'{place}: no key "{key}" (found: {", ".join(map(str, row))})')
  given = row["image"] if isinstance(row["image"], list | tuple) else [row["image"]]
  pictures = [image.decode(one) for one in given]
  height, width = pictures[-1].shape[:2]
  row = {"id": i, "height": height, "width": width, **row}
  if "objects" in row:
    row["objects"] = [_opened(o, place) for o in row["objects"]]
  row = tasks.with_objects(row, tasks.Rules(), (height, width))
  return pictures, row


def _opened(item: dict, place: str) -> dict:
  """The object with its mask as bool[H, W], which may be given so, as COCO RLE or as a path."""
  mask = item.get("mask")
  return (
    {**item, "mask": records.read_mask(mask, "", place)} if isinstance(mask, str | dict) else item
  )


def _first(row: dict) -> str:
  suffix = row.get("suffix")
  return suffix if isinstance(suffix, str) else (suffix or [""])[0]
