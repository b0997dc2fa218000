"""Miniatures of the official files: a handful of records each, with every quirk of the real ones.

They are made here, in code: scenes of coloured shapes, about which the questions and answers are
true. Configs run on them with the argument `:debug`, and so do the tests of the builders.
"""

import os
import pathlib

from paligemma_jax.datasets import tasks


def write(task: str, raw_dir: str | os.PathLike) -> None:
  """Writes the miniature of a task's official files into a folder, which is made.

  Args:
    task: a name in `tasks.TASKS`, or another name of it.
    raw_dir: where to; files that are there are overwritten.

  Raises:
    errors.UserError: no such task.
  """
  folder = pathlib.Path(raw_dir)
  folder.mkdir(parents=True, exist_ok=True)
  tasks.sample(task)(folder)
