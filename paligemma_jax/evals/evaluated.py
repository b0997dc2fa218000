"""evaluated.json of a folder: the evaluations that are done there, so that a killed command goes on.

{"evaluations": {NAME: {"settings", "predictions", "scores"}}, "page"}: what an evaluation was made
with, the CRC-32 of its predictions and its scores with their intervals; and the lines of the table
that results.html shows. Each is put in, the file written whole, after all that it speaks of.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from paligemma_jax import storage
from paligemma_jax.evals import predictions, results

FILE = "evaluated.json"


def find(folder: storage.Path, settings: Mapping[str, Any]) -> dict[str, results.Values]:
  """Scores of the evaluations that were done with the same settings and left their predictions.

  Args:
    folder: with the predictions.
    settings: evaluation -> what its result depends on, as JSON holds it.
  """
  found = {}
  for name, one in _read(folder)["evaluations"].items():
    same = name in settings and one["settings"] == settings[name]
    if same and one["predictions"] == _checksum(predictions.path(folder, name)):
      found[name] = {score: tuple(ends) for score, ends in one["scores"].items()}
  return found


def add(folder: storage.Path, name: str, settings: Any, scores: results.Values) -> None:
  """Notes that an evaluation is done; its predictions are written, the page is not yet.

  Args:
    folder: with the predictions.
    name: of the evaluation.
    settings, scores: as in `find`.
  """
  done = {
    "settings": settings,
    "predictions": _checksum(predictions.path(folder, name)),
    "scores": scores,
  }
  _write(folder, _read(folder)["evaluations"] | {name: done}, None)


def is_shown(folder: storage.Path, lines: Sequence[results.Score]) -> bool:
  """Whether results.html shows these lines, with the predictions that are there."""
  return _read(folder)["page"] == results.to_json(lines) and (folder / results.PAGE).exists()


def show(folder: storage.Path, lines: Sequence[results.Score]) -> None:
  """Notes that results.html shows these lines."""
  _write(folder, _read(folder)["evaluations"], results.to_json(lines))


def _read(folder: storage.Path) -> dict[str, Any]:
  try:
    found = json.loads((folder / FILE).read_text())
    return {"evaluations": dict(found["evaluations"]), "page": found["page"]}
  except (OSError, ValueError, KeyError, TypeError):  # of nobody's writing, or none
    return {"evaluations": {}, "page": None}


def _write(folder: storage.Path, evaluations: Mapping, page: list | None) -> None:
  text = json.dumps({"evaluations": evaluations, "page": page}, indent=1, ensure_ascii=False)
  storage.write_whole(folder / FILE, text + "\n")


def _checksum(path: storage.Path) -> int | None:
  """CRC-32 of a file, None where there is none."""
  try:
    return zlib.crc32(path.read_bytes())
  except FileNotFoundError:
    return None
