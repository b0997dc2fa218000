"""What the embedded default trains on, made once: scenes of digits, a tokenizer and a mask codec.

Everything lies in one folder of the user's cache, which appears when it is complete:

  train_caption.jsonl … val_segment.jsonl, train/, val/   see datasets/digits.py
  tokenizer.model                                         Gemma's layout of special tokens
  codec.npz                                               published names, narrower than published
"""

import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import numpy as np

from paligemma_jax import cache, errors
from paligemma_jax.datasets import digits
from paligemma_jax.processing import masks, tokenizer
from paligemma_jax.train import codec

VOCAB_SIZE = 1536  # at most; 1152 of them loc and seg tokens
# A sixteenth of the published widths: seconds a hundred steps on two cores.
CODEC = dict(hidden=4, embedding=32, steps=700, batch_size=32, lr=3e-3)


def directory() -> pathlib.Path:
  """Where the embedded data lies, or will."""
  return cache.directory(f"digits-{digits.VERSION}")


def prepare(
  folder: str | os.PathLike | None = None,
  *,
  seed: int = 0,
  sizes: dict[str, int] | None = None,
  codec_steps: int | None = None,
  progress: Callable[[str], None] = lambda line: print(line, flush=True),
) -> pathlib.Path:
  """Builds the folder unless it is there; returns its path.

  Args:
    folder: where; None for `directory()`.
    seed: everything follows from it.
    sizes: scenes per split; None for `digits.SIZES`.
    codec_steps: updates of the codec; None for those of `CODEC`.
    progress: called with a line now and then.

  Raises:
    errors.UserError: scikit-learn is missing, or the cache cannot be written.
  """
  folder = pathlib.Path(folder) if folder else directory()
  if folder.is_dir():
    return folder
  start = time.monotonic()
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
  except OSError as e:
    raise errors.UserError(
      f"{folder.parent}: the cache cannot be written ({e.strerror}); set PALIGEMMA_CACHE"
    ) from None
  try:
    progress(f"embedded data: building {folder} (once)")
    digits.build(temp, seed, sizes, progress)
    _tokenizer(temp)
    _codec(temp, seed, codec_steps, progress)
    temp.chmod(0o755)
    _publish(temp, folder)
  finally:
    shutil.rmtree(temp, ignore_errors=True)
  progress(f"embedded data: ready after {time.monotonic() - start:.0f} s")
  return folder


def _publish(temp, folder):
  try:
    os.rename(temp, folder)
  except OSError:
    if not folder.is_dir():  # else another process was faster, with the same result
      raise


def _tokenizer(folder):
  """Learns the pieces from what is said in training about the scenes."""
  texts = []
  for task in ("caption", "count", "question"):
    for r in _lines(folder / f"train_{task}.jsonl"):
      texts += [r["prefix"], r["suffix"]]
  texts += [f"{task} {label}" for label in range(10) for task in ("detect", "segment")]
  made = tokenizer.Tokenizer.train([*texts, " ; "], VOCAB_SIZE)
  (folder / "tokenizer.model").write_bytes(made.to_files()["tokenizer.model"])


def _codec(folder, seed, steps, progress):
  """Trains the codec on training masks and says how well it does on those of validation."""
  settings = CODEC if steps is None else {**CODEC, "steps": steps}
  params = codec.train(
    crops(folder / "train_segment.jsonl"), seed=seed, progress=progress, **settings
  )
  codec.save(folder / "codec.npz", params)
  unseen = codec.iou(params, crops(folder / "val_segment.jsonl"))
  progress(f"codec: mean IoU {unseen.mean():.3f} on {len(unseen)} masks of validation")


def crops(path: pathlib.Path) -> np.ndarray:
  """uint8[N, 64, 64]: the mask of every object of a JSONL file, cropped to its box."""
  found = [
    masks.crop_for_codec(masks.decode_rle(o["mask"]), o["box"])
    for r in _lines(path)
    for o in r["objects"]
  ]
  return np.round(np.stack(found) * 255).astype(np.uint8)


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]
