"""Where the golden adapters and quantised folders lie, and readers for them.

Another set of the same layout: $PALIGEMMA_GOLDEN_ADAPTERS. Its README.md says what is in it.
"""

import json
import os
import pathlib

import ml_dtypes  # noqa: F401  (without it safetensors knows no bfloat16)
import numpy as np
import safetensors.numpy

DIR = pathlib.Path(
  os.environ.get("PALIGEMMA_GOLDEN_ADAPTERS")
  or pathlib.Path(__file__).parent / "data/golden_adapters"
)
INDEX = json.loads((DIR / "index.json").read_text())
# Name of an adapter -> its entry of the index; those over a quantised base lie in `quant/`.
ADAPTERS, QLORA, QUANT, BASES = (INDEX[k] for k in ("adapters", "qlora", "quant", "bases"))
# (name, folder) of every spelling of every adapter.
SPELLINGS = [(name, folder) for name, entry in ADAPTERS.items() for folder in entry["folders"]]

# Largest difference to what is stored, from the table in README.md; absolute, but for gradients:
# per tensor, norm of the difference over the norm.
TOLERANCE = {
  "logits": 4e-4,
  "loss": 3e-5,
  "grad": 2e-4,
  "train/loss": 5e-5,
  "train/final": 3e-4,
  "quant/logits": 2e-4,
  "int8/codes": 1e-3,  # share of codes that are off by one
  "adam8bit/codes": 1e-3,  # share of codes that differ
  "adam8bit/parameters": 1e-5,
}


def arrays(path: str) -> dict[str, np.ndarray]:
  """All arrays of an npz, e.g. `adapters/NAME`, `quant/NAME` or `TAG_inputs`."""
  with np.load(DIR / f"{path}.npz") as f:
    return dict(f)


def below(found: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """The arrays whose name begins with `prefix`, without it: `below(x, "grad/")`."""
  return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def inputs(entry: dict) -> dict[str, np.ndarray]:
  """The batch of an entry of the index."""
  return arrays(entry["inputs"].removesuffix(".npz"))


def base(entry: dict) -> pathlib.Path:
  """The folder of the model that an entry of the index is over."""
  return DIR / entry["base"]


def vocab_size(entry: dict) -> int:
  """The rows of its table that are no padding."""
  return next(b["vocab_size"] for b in BASES.values() if b["folder"] == entry["base"])


def folder(entry: dict, name: str) -> pathlib.Path:
  """The folder of an adapter: a spelling of one, or the only one over a quantised base."""
  return DIR / entry["folder"] if "folder" in entry else DIR / "adapters" / name


def tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of all shards of a folder, by the names that transformers 5 has in memory."""
  found = {}
  for path in sorted(folder.glob("*.safetensors")):
    found |= safetensors.numpy.load_file(path)
  return {_in_memory(name): x for name, x in found.items()}


def adapter_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of an adapter, by the names that transformers 5 has in memory."""
  found = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
  return {in_memory(name): x for name, x in found.items()}


def in_memory(tensor: str) -> str:
  """The name of an adapter's tensor, whatever release spelled it."""
  return _in_memory(tensor.removeprefix("base_model.model."))


def _in_memory(name: str) -> str:
  name = name.removeprefix("model.")
  name = name.replace("language_model.model.", "language_model.")
  return "model." + name.replace("vision_tower.vision_model.", "vision_tower.")


def quantised(stored: dict[str, np.ndarray]) -> dict[str, tuple[dict, tuple[str, int, bool]]]:
  """Module -> (its tensors by the ends of their names, (kind, block, double)), as bitsandbytes has them.

  The JSON of a state is under "state".
  """
  found = {}
  for name in stored:
    if name.endswith(".SCB"):
      module = name.removesuffix(".SCB")
      parts = {"weight": stored[f"{module}.weight"], "SCB": stored[name]}
      found[module] = parts, ("int8", 64, False)
    elif name.endswith(".weight.absmax"):
      module = name.removesuffix(".weight.absmax")
      parts = {"weight": stored[f"{module}.weight"], **below(stored, f"{module}.weight.")}
      state = next(k for k in parts if k.startswith("quant_state."))
      parts["state"] = json.loads(bytes(parts.pop(state)))
      kind, block = parts["state"]["quant_type"], parts["state"]["blocksize"]
      found[module] = parts, (kind, block, "nested_absmax" in parts)
  return found
