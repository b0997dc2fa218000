"""Where things that are computed once are kept: $PALIGEMMA_CACHE, else the user's XDG cache."""

import os
import pathlib


def directory(*parts: str) -> pathlib.Path:
  """Path of a folder (or file) in the cache; nothing is created.

  Args:
    *parts: below the cache's root, e.g. "digits-1", "train_count.jsonl".
  """
  root = os.environ.get("PALIGEMMA_CACHE")
  if not root:
    xdg = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    root = pathlib.Path(xdg) / "paligemma_jax"
  return pathlib.Path(root).expanduser().absolute().joinpath(*parts)
