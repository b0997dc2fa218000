"""The tasks that have a builder, by name."""

import importlib
import types

from paligemma_jax import errors

# Task, as transfers/ and the command line call it -> module of the builder, function that writes
# its miniature.
TASKS = {
  "vqav2": ("vqa", "vqa.vqav2"),
}


def module(task: str) -> types.ModuleType:
  """The builder of a task: its docstring says what it is, its TASK what is made of what.

  Args:
    task: its name in `TASKS`, or that of its builder.

  Raises:
    errors.UserError: no such task.
  """
  return importlib.import_module(f"paligemma_jax.datasets.{TASKS[_known(task)][0]}")


def sample(task: str):
  """The function folder -> None that writes the miniature of a task; errors as `module`."""
  name, _, function = TASKS[_known(task)][1].partition(".")
  return getattr(importlib.import_module(f"paligemma_jax.datasets.samples.{name}"), function)


def _known(task: str) -> str:
  by_builder = {builder: name for name, (builder, _) in TASKS.items()}
  found = task if task in TASKS else by_builder.get(task)
  if found is None:
    raise errors.UserError(f'task "{task}" is unknown{errors.did_you_mean(task, TASKS, 100)}')
  return found
