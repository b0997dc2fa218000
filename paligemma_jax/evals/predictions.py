"""predictions/NAME.jsonl of a workdir: what a model answered, one example a line.

A line holds "id", "image" (path as the data gives it), "prefix", "prediction", "suffix" (the
truth), "scores" of this row alone, and where there are boxes "height", "width", "pred_objects" and
"objects": lists of {"label", "box": [x0, y0, x1, y1] in pixels, "mask": COCO RLE}. Other keys of
the data follow.
"""

import json
import os
from typing import Any

import numpy as np

from paligemma_jax import storage
from paligemma_jax.processing import masks

FOLDER = "predictions"
_FEW, _SHOWN = 4, 60  # rows from which equal answers are no chance; letters of a long one (chosen)
_FIRST = ("id", "image", "prefix", "prediction", "suffix", "scores")


def path(workdir: str | os.PathLike, name: str) -> storage.Path:
  """Where the predictions of an evaluation lie in a workdir."""
  return storage.path(workdir) / FOLDER / f"{name}.jsonl"


def write(workdir: str | os.PathLike, name: str, rows: list[dict]) -> storage.Path:
  """Writes WORKDIR/predictions/NAME.jsonl, whole or not at all, and returns its path.

  Args:
    workdir: made if it does not exist.
    name: of the evaluation.
    rows: as `runner.run` returns them, masks as bool[H, W]. Pictures held in memory instead of
      read from a path are left out.
  """
  target = path(workdir, name)
  storage.write_whole(target, "".join(_line(row) + "\n" for row in rows))
  return target


def read(file: str | os.PathLike) -> list[dict]:
  """The rows of one such file, masks as bool[H, W]."""
  lines = storage.path(file).read_bytes().split(b"\n")
  rows = [json.loads(line) for line in lines if line.strip()]
  return [
    {**row, **{k: _opened(row[k]) for k in ("pred_objects", "objects") if row.get(k)}}
    for row in rows
  ]


def read_all(workdir: str | os.PathLike) -> dict[str, list[dict]]:
  """The rows of all evaluations of a workdir, by name."""
  folder = storage.path(workdir) / FOLDER
  return {path.stem: read(path) for path in sorted(folder.glob("*.jsonl"))}


def monotony(rows: list[dict]) -> str:
  """A sentence where all answers are the same string and the true ones are not; else "".

  So answers a model that has not learnt to look, or one whose decoding is broken; some scores do not
  tell it from one that is often wrong.
  """
  answers = {row.get("prediction") for row in rows}
  truths = [row["suffix"] for row in rows if row.get("suffix")]
  truths = [set(found if isinstance(found, list) else [found]) for found in truths]
  if len(rows) < _FEW or len(answers) > 1 or None in answers or not truths:
    return ""
  if set.intersection(*truths):  # one answer is right for all
    return ""
  (answer,) = answers
  shown = f"{answer[:_SHOWN]}…" if len(answer) > _SHOWN else answer
  return f'all {len(rows)} answers are "{shown}", though the true ones differ'


def _line(row: dict) -> str:
  keys = [k for k in _FIRST if k in row] + [k for k in row if k not in _FIRST]
  return json.dumps({k: _plain(row[k]) for k in keys}, ensure_ascii=False)


def _plain(value: Any) -> Any:
  """The value in JSON's types; masks as RLE, what has no such form as None."""
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(v) for v in value]
  if isinstance(value, np.ndarray) and value.dtype == bool and value.ndim == 2:
    return masks.encode_rle(value)
  if isinstance(value, np.ndarray):
    return value.tolist() if value.ndim < 2 else None
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  return value if isinstance(value, str | int | float | bool | None) else None


def _opened(objects: list[dict]) -> list[dict]:
  return [
    {**o, "mask": masks.decode_rle(o["mask"])} if isinstance(o.get("mask"), dict) else o
    for o in objects
  ]
