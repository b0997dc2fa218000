"""Batches for `pg.evaluate`, from rows in memory or a file, without a config and without threads."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import examples as records
from paligemma_jax.data import prepare, sources, tasks
from paligemma_jax.evals import checks
from paligemma_jax.processing import image

Pairs = Iterable[tuple[list[np.ndarray], dict]]


def examples(
  rows: list[dict] | str | os.PathLike,
  task: str,
  codec: dict | None = None,
  alpha: str = "drop",
) -> Iterator[tuple[list[np.ndarray], dict]]:
  """Pairs (pictures uint8[H, W, 3], row with "height" and "width") of every example.

  Args:
    rows: as `runner.evaluate` takes them.
    task: what the records of a file become: "text", "detect" or "segment".
    codec: parameters of `models.vqvae`, for the truths of "segment".
    alpha: as `image.decode`.

  Raises:
    errors.UserError: no such file, a missing key, a picture or mask that cannot be read.
  """
  if not isinstance(rows, str | os.PathLike):
    yield from (_in_memory(f"rows[{i}]", i, row, alpha) for i, row in enumerate(rows))
    return
  source, rules = _of_file(rows, task)
  in_masks = rules.task == "segment" and codec is not None
  codes = prepare.mask_codes(source, codec) if in_masks else None
  for i in range(len(source)):
    own = codes[i] if codes else None
    example = records.make(source, i, rules, codes=own, extras=True, alpha=alpha)
    yield example.images, example.extras


def truths(rows: list[dict] | str | os.PathLike, task: str) -> Iterator[tuple[str, dict]]:
  """Pairs (place, row) of the same examples before any picture is read, as `evals.checks` asks.

  Args:
    rows, task: as in `examples`.

  Raises:
    errors.UserError: no such file, or a missing key.
  """
  if not isinstance(rows, str | os.PathLike):
    for i, row in enumerate(rows):
      _need_keys(row, f"rows[{i}]")
      yield f"rows[{i}]", tasks.with_objects(row, tasks.Rules())
    return
  yield from checks.rows_of(*_of_file(rows, task))


def batches(
  pairs: Pairs, processor, batch_size: int, with_suffix: bool, here: Sequence[int]
) -> Iterator[tuple[structs.Batch, list[dict]]]:
  """Pairs (Batch, rows of its real examples); the last batch is filled up.

  Args:
    pairs: as `examples` gives them.
    processor: `processing.processor.Processor`.
    batch_size: examples at a time, over all processes.
    with_suffix: training layout, for the likelihood of the suffix.
    here: which of these rows this process makes, as `sharding.rows_here` names them.
  """
  pairs = iter(pairs)
  while chunk := list(itertools.islice(pairs, batch_size)):
    filled = [chunk[min(row, len(chunk) - 1)] for row in here]
    batch = processor(
      images=[pictures for pictures, _ in filled],
      prompts=[row["prefix"] for _, row in filled],
      suffixes=[_first(row) for _, row in filled] if with_suffix else None,
    )
    valid = np.asarray(here) < len(chunk)
    yield batch._replace(valid=valid), [row for (_, row), v in zip(filled, valid) if v]


def _of_file(path: str | os.PathLike, task: str) -> tuple[sources.Source, tasks.Rules]:
  source = sources.open_source({"path": os.fspath(path)}, "rows")
  if not any("objects" in source[i] for i in range(len(source))):
    task = "text"  # its prompts and answers are written out, boxes with <loc> tokens
  return source, tasks.Rules(task)


def _need_keys(row: dict, place: str) -> None:
  for key in ("image", "prefix"):
    if key not in row:
      raise errors.UserError(f'{place}: no key "{key}" (found: {", ".join(map(str, row))})')


def _in_memory(place: str, i: int, row: dict, alpha: str) -> tuple[list[np.ndarray], dict]:
  _need_keys(row, place)
  given = row["image"] if isinstance(row["image"], list | tuple) else [row["image"]]
  pictures = [image.decode(one, alpha=alpha) for one in given]
  names = [one if isinstance(one, str) else "" for one in given]
  size = pictures[records.object_image({**row, "image": names})].shape[:2]
  row = {"id": i, **row, "height": size[0], "width": size[1]}
  if row.get("objects") is not None:
    row["objects"] = [_opened(o, size, place) for o in row["objects"]]
  return pictures, tasks.with_objects(row, tasks.Rules(), size)


def _opened(item: dict, size: tuple[int, int], place: str) -> dict:
  """The object with its mask as bool[H, W], which may be an array, COCO RLE or a path."""
  mask = item.get("mask")
  if mask is None:
    return item
  mask = (
    records.read_mask(mask, "", place, size)
    if isinstance(mask, str | dict)
    else np.asarray(mask) > 0
  )
  if mask.shape != size:
    raise errors.UserError(
      f"{place}: a mask has the shape {mask.shape}, the picture {size}; give masks of the whole picture"
    )
  return {**item, "mask": mask}


def _first(row: dict) -> str:
  suffix = row.get("suffix")
  return suffix if isinstance(suffix, str) else (suffix or [""])[0]
