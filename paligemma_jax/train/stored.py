"""The config of a run that is there, read back from its workdir, so that it can be evaluated again."""

import glob
import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from paligemma_jax import errors, storage
from paligemma_jax.train import provenance, settings
from paligemma_jax.transfers import common

_PATHS = ("path", "data_dir")  # of a source


def read(ckpt: str | os.PathLike) -> ml_collections.ConfigDict:
  """The config that a run was started with, for its own checkpoints.

  Relative paths of its data start from the folder that the run was started in, where they are there.
  Tokenizer and mask codec are those that its checkpoints carry. A metric that the config's file added to
  `METRICS` is its name alone.

  Args:
    ckpt: the workdir, its folder of checkpoints, or one of them.

  Raises:
    UserError: it is no workdir, or its config.json is damaged.
  """
  workdir = _workdir(ckpt)
  path = workdir / settings.CONFIG
  try:
    found = json.loads(path.read_text())
    c = common.base()
    c.update(_tuples({**found, "evals": found["evals"]}))  # of another program: no evals
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
    raise errors.UserError(f"{path} is no config of a run, or damaged; give --config") from None
  c.input.update(tokenizer="", codec="")
  started_in = _folder(workdir)
  for source in (*c.train.data.values(), *(e.data for e in c.evals.values())):
    for key in _PATHS:
      if source.get(key):
        source[key] = _from(started_in, source[key])
  return c


def _workdir(ckpt: str | os.PathLike) -> storage.Path:
  """The workdir that a checkpoint is of."""
  path = storage.path(ckpt)
  folders = [path.parent, path.parent.parent] if "checkpoints" in path.parts[-2:] else []
  for workdir in (path, *folders):
    if all((workdir / name).exists() for name in (settings.CONFIG, "checkpoints")):
      return workdir
  raise errors.UserError(f"{ckpt} is no workdir with a config of its own; give --config FILE.py")


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples they were."""
  if isinstance(value, Mapping):
    return {key: _tuples(one) for key, one in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _folder(workdir: storage.Path) -> str:
  """Where the run was started last; "" where that is not known."""
  lines = storage.read_lines(workdir / provenance.RUNS)
  try:
    return str(json.loads(lines[-1])["folder"]) if lines else ""
  except (ValueError, LookupError, TypeError):
    return ""


def _from(folder: str, place: str) -> str:
  """A relative path from the folder; as it is where nothing is there, as of names of data sets."""
  if not isinstance(place, str) or storage.is_remote(place) or os.path.isabs(place):
    return place
  there = os.path.join(folder, place)
  return there if os.path.exists(there) or glob.glob(there) else place
