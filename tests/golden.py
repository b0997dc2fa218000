"""Where the golden data lies, and readers for it. Another set of the same format: $PALIGEMMA_GOLDEN."""

import json
import os
import pathlib

import ml_dtypes
import numpy as np

DIR = pathlib.Path(
  os.environ.get("PALIGEMMA_GOLDEN") or pathlib.Path(__file__).parent / "data/golden"
)
TAGS = ("pg1_tiny", "pg2_tiny")


def io(name: str) -> dict[str, np.ndarray]:
  """All arrays of `NAME_io.npz`."""
  with np.load(DIR / f"{name}_io.npz") as f:
    return dict(f)


def config(tag: str) -> dict:
  """The sizes and settings of a golden model, as its json says."""
  return json.loads((DIR / f"{tag}_config.json").read_text())


def weights_path(tag: str) -> pathlib.Path:
  """The npz of a golden model, float32 (`TAG.npz`) or bfloat16 (`TAG.bf16.npz`)."""
  return next(p for p in (DIR / f"{tag}.npz", DIR / f"{tag}.bf16.npz") if p.exists())


def weights(tag: str) -> dict[str, np.ndarray]:
  """Flat name -> float32 array. Read without the package, to be a reference of its own."""
  with np.load(weights_path(tag)) as f:
    raw = {k.removeprefix("params/"): f[k] for k in f.files}
  wide = {k: v.view(ml_dtypes.bfloat16) if v.dtype.kind == "V" else v for k, v in raw.items()}
  return {k: v.astype(np.float32) for k, v in wide.items()}
