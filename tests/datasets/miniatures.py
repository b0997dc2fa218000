"""Data sets built of their miniatures, each once, and how tests look at them."""

import io
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from paligemma_jax.data import stores
from paligemma_jax.datasets import samples, tasks, write

DATASETS = {
  data.name: (task, data) for task in tasks.TASKS for data in tasks.module(task).TASK.datasets
}
FRAMES = dict(fields=(("image", "frames"),), max_images=9)  # how records of videos are read


class Made:
  """made(name) -> the line of its build; made.read(name, split) -> its records by key feature."""

  def __init__(self, folder: Callable[[str], pathlib.Path]):
    """`folder(name)` makes an empty folder."""
    self.out, self._folder = folder("made"), folder
    self._raws, self._lines = {}, {}

  def raw(self, task: str) -> pathlib.Path:
    """The folder of the miniature of a task."""
    if task not in self._raws:
      self._raws[task] = self._folder("raw")
      samples.write(task, self._raws[task])
    return self._raws[task]

  def __call__(self, name: str) -> str:
    task, data = DATASETS[name]
    if name not in self._lines:
      about, raw = tasks.module(task).TASK, self.raw(task)
      self._lines[name] = write.build(data, about, raw, self.out, say=lambda line: None)
    return self._lines[name]

  def read(self, name: str, split: str, **settings) -> list[dict]:
    self(name)
    return [*stores.Tfds(name, split, data_dir=str(self.out), **settings)]


def pixels(data: bytes) -> np.ndarray:
  """uint8[H, W, 3] of an encoded picture."""
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
