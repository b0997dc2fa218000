"""How fast one core turns pictures into what the model reads, beside the plain use of Pillow."""

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from paligemma_jax.processing import image

SIZES = (224, 448, 896)  # pixels a side, of the published checkpoints
WIDTH, HEIGHT = 640, 480  # of the picture: what COCO's mostly have


def run(
  sizes: Sequence[int] = SIZES, rounds: int = 9, repeats: int = 10, clock=time.thread_time
) -> dict[str, Any]:
  """Measures decoding and resizing of a JPEG in one thread, in turns with the peer.

  The peer is what transformers' Pillow processor of SigLIP does up to the uint8 picture: open,
  convert to RGB, resize bicubic. Its scaling to floats is left out on both sides.

  Args:
    sizes: pixels a side of the results.
    rounds: how often all are measured in turn; medians are taken over these.
    repeats: pictures in one measurement.
    clock: seconds. That of the thread does not count what other programs of the machine do.

  Returns:
    {"picture": words, "sizes": {size: {method: {"images_per_second": median, "lowest", "highest",
    "of_peer": median of the ratios of a round}, …, "peer": {… without "of_peer"}}}}.
  """
  data = picture()
  results = {}
  for size in sizes:
    tasks = {"peer": lambda size=size: peer(data, size)}
    for method in image.METHODS:
      tasks[method] = lambda size=size, m=method: image.resize(image.decode(data), size, m)
    results[size] = _measured(tasks, rounds, repeats, clock)
  words = f"JPEG of {WIDTH} x {HEIGHT} pixels, {len(data)} bytes"
  return {"picture": words, "sizes": results}


def table(found: dict[str, Any]) -> list[tuple[str, ...]]:
  """Rows of words, the head first: pictures a second of one core by size and method."""
  methods = ("peer", *image.METHODS)
  rows = [("pictures/s of one core", *methods)]
  for size, by_method in found["sizes"].items():
    cells = []
    for method in methods:
      m = by_method[method]
      ratio = f", {m['of_peer']:.2f} x" if "of_peer" in m else ""
      spread = f"{m['lowest']:.0f}-{m['highest']:.0f}"
      cells.append(f"{m['images_per_second']:.0f} ({spread}{ratio})")
    rows.append((f"{size} px", *cells))
  return rows


def picture() -> bytes:
  """A synthetic JPEG with edges and texture, of the size in bytes that a photo has."""
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8))
  smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
  noisy = smooth + rng.normal(0, 6, smooth.shape)
  out = io.BytesIO()
  pixels = np.clip(noisy, 0, 255).astype(np.uint8)
  Image.fromarray(pixels).save(out, "JPEG", quality=88)
  return out.getvalue()


def peer(data: bytes, size: int) -> np.ndarray:
  """The uint8[size, size, 3] picture that plain Pillow makes of a file, resized bicubic."""
  with Image.open(io.BytesIO(data)) as opened:
    resized = opened.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
  return np.asarray(resized)


def _measured(
  tasks: dict[str, Callable[[], Any]], rounds: int, repeats: int, clock
) -> dict[str, dict[str, float]]:
  rates = {name: [] for name in tasks}
  for task in tasks.values():
    task()  # tables of weights are made once
  for _ in range(rounds):
    for name, task in tasks.items():
      start = clock()
      for _ in range(repeats):
        task()
      rates[name].append(repeats / (clock() - start))
  found = {}
  for name, values in rates.items():
    found[name] = {
      "images_per_second": statistics.median(values), "lowest": min(values), "highest": max(values)
    }  # fmt: skip
    if name != "peer":
      ratios = [ours / theirs for ours, theirs in zip(values, rates["peer"], strict=True)]
      found[name]["of_peer"] = statistics.median(ratios)
  return found
