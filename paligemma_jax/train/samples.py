"""The miniatures that `:debug` runs on: prepared data sets, a tokenizer that can write anything, a codec.

They lie in one folder of the user's cache; what is there is used as it is.

  data/NAME/VERSION/   as `paligemma data build` writes them, of datasets/samples
  tokenizer.model      Gemma's layout; what no piece covers is written in bytes
  codec.npz            a mask codec of random parameters
"""

import pathlib
import tempfile
from collections.abc import Iterable

import numpy as np

from paligemma_jax import cache, errors, storage
from paligemma_jax.datasets import samples, tasks, write
from paligemma_jax.models import vqvae
from paligemma_jax.processing import tokenizer
from paligemma_jax.train import codec

VERSION = 1  # of what the folder holds, as transfers/common.py names it
_CODEC = dict(hidden=2, embedding=8)
_TEXTS = (
  "caption en", "answer en what colour is the square on the left?", "answer en how many circles?",
  "detect all classes", "choose from: red \t blue \t green", "The answer is A.", "yes", "no",
  "red circle", "blue square", "green triangle", "a yellow circle and a black square", "True",
  "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;?!()<>/='\"-_", " ; ",
)  # fmt: skip


def directory() -> pathlib.Path:
  """Where they lie, or will."""
  return cache.directory(f"samples-{VERSION}")


def prepare(names: Iterable[str]) -> pathlib.Path:
  """Builds the miniatures of tasks, unless they are there; returns the folder.

  Args:
    names: as `tasks.TASKS` has them.

  Raises:
    errors.UserError: a task has no builder, or the cache cannot be written.
  """
  folder = directory()
  modules = {name: tasks.module(name) for name in names}
  try:
    (folder / "data").mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f"{folder}: the cache cannot be written ({e.strerror}); set PALIGEMMA_CACHE"
    ) from None
  for name, module in modules.items():
    _build(name, module.TASK, folder / "data")
  if not (folder / "codec.npz").exists():
    _codec(folder / "codec.npz")
  if not (folder / "tokenizer.model").exists():
    made = tokenizer.Tokenizer.train(_TEXTS * 4, 1536)
    storage.write_whole(
      storage.path(folder / "tokenizer.model"), made.to_files()["tokenizer.model"]
    )
  return folder


def _build(name, task, data_dir) -> None:
  used = [data for data in task.datasets if not data.is_optional]
  missing = [data for data in used if not (data_dir / data.name / data.version).is_dir()]
  if not missing:
    return
  with tempfile.TemporaryDirectory() as raw:
    samples.write(name, raw)
    for data in missing:
      write.build(data, task, raw, data_dir, say=lambda line: None)


def _codec(path: pathlib.Path) -> None:
  rng, shapes = np.random.default_rng(0), vqvae.param_shapes(**_CODEC)
  params = {key: rng.normal(size=shape).astype(np.float32) * 0.3 for key, shape in shapes.items()}
  codec.save(path, params)
