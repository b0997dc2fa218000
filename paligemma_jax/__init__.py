"""PaliGemma and PaliGemma 2 in JAX: load, fine-tune, evaluate, generate and convert.

The public names below are imported on first use, so that `import paligemma_jax` stays fast and
starts no JAX backend.
"""

import importlib
import pathlib

__version__ = "0.1.0"

# In a checkout `configs/` and `transfers/` lie beside the package, in a wheel inside it; with this
# line `from paligemma_jax.transfers import common` means the same in both.
_root = pathlib.Path(__file__).resolve().parent.parent
if (_root / "transfers" / "forkme.py").exists():
  __path__.append(str(_root))

_PUBLIC = {
  "Batch": "structs",
  "Box": "structs",
  "Example": "structs",
  "Output": "structs",
  "Scored": "structs",
  "UserError": "errors",
  "VLM": "vlm",
  "load": "vlm",
  "with_adapter": "vlm",
  "generate": "vlm",
  "score": "vlm",
  "save": "vlm",
  "parse_boxes": "processing.boxes",
  "format_boxes": "processing.boxes",
  "evaluate": "evals.runner",
  "train": "train.loop",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *_PUBLIC})
