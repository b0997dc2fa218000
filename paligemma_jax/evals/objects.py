"""Boxes and masks of answers: from strings to pixels of the row's picture."""

from collections.abc import Sequence

import jax
import numpy as np

from paligemma_jax.models import vqvae
from paligemma_jax.processing import boxes, masks

_CHUNK = 64  # masks decoded at a time; a fixed number, so that the codec is compiled once


def parse(
  text: str,
  height: int,
  width: int,
  spans: Sequence[tuple[int, int]] = (),
  logprobs: Sequence[float] = (),
) -> list[dict]:
  """The objects that a text names, duplicates left out.

  Args:
    text, height, width, spans, logprobs: as `boxes.parse_boxes`.

  Returns:
    {"label", "box": [x0, y0, x1, y1] in pixels, "codes": 16 or None}, with "score" 0..1 where
    `spans` and `logprobs` are given.
  """
  found = boxes.suppress(boxes.parse_boxes(text, height, width, spans=spans, logprobs=logprobs))
  rows = [{"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1], "codes": b.codes} for b in found]
  return [r if b.score is None else {**r, "score": b.score} for r, b in zip(rows, found)]


def with_masks(rows: list[dict], key: str, codec: dict | None) -> list[dict]:
  """The rows with "mask" in every object that has "codes": bool[H, W] of the picture, else None.

  The mask is None where the text has no codes, where the box has no pixel, and without a codec.

  Args:
    rows: each with "height" and "width" of its picture in pixels.
    key: which of a row's lists to complete, "pred_objects".
    codec: parameters of `models.vqvae`, or None.
  """
  codes = [o["codes"] for row in rows for o in row[key] if o.get("codes") is not None]
  decoded = iter(decode(codec, codes) if codec is not None else [None] * len(codes))
  out = []
  for row in rows:
    size = row["height"], row["width"]
    found = []
    for o in row[key]:
      if "codes" not in o:  # a truth with a mask of its own, or none
        found.append(o)
        continue
      small = None if o["codes"] is None else next(decoded)
      found.append({**o, "mask": None if small is None else _paste(small, o["box"], size)})
    out.append({**row, key: found})
  return out


def decode(codec: dict, codes: list[tuple[int, ...]]) -> np.ndarray:
  """Masks of the codes, float32[len(codes), 64, 64], about -1..1 and above 0 inside."""
  parts = []
  for start in range(0, len(codes), _CHUNK):
    chunk = np.asarray(codes[start : start + _CHUNK], np.int32)
    padded = np.pad(chunk, ((0, _CHUNK - len(chunk)), (0, 0)))
    parts.append(np.asarray(_decode(codec, padded))[: len(chunk)])
  return np.concatenate(parts) if parts else np.zeros((0, 64, 64), np.float32)


_decode = jax.jit(vqvae.decode)


def _paste(small: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray | None:
  x0, y0, x1, y1 = (int(v) for v in box)
  if x1 <= x0 or y1 <= y0:
    return None  # the reference counts it as invalid
  return masks.paste(small, box, *size)
