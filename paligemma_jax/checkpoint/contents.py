"""What a folder or file of weights is: the one set that can be read, or a line that says what is there.

A folder may hold what several tools left in it. Two sets of weights are refused with both names, since
tools disagree about which of them counts.
"""

import json
import pathlib
import re
from typing import NamedTuple

from paligemma_jax import errors

INDEX = (
  ".safetensors.index.json"  # end of the name of a file that says which shard has which tensor
)
_SHARD = re.compile(r"(.*)-\d+-of-(\d+)\.safetensors")
_PICKLE = (
  "are not read, since a pickle can run any code: open it with transformers and save it again"
)
_PROCESSOR = re.compile(r"(pre)?processor_config\.json|tokenizer.*|.*\.model")


class _Kind(NamedTuple):
  names: str  # pattern of the file names
  what: str
  advice: str


_ADAPTER = _Kind(
  r"adapter_(config\.json|model.*\.(safetensors|bin))",
  "an adapter",
  "is no model of its own: name its base as the checkpoint, and this as its adapter (--ckpt BASE"
  " --adapter DIR; model.init and model.adapter of a config)",
)
# Weights that are not read. Of the names that end in .bin and .pth only those that hold a model:
# trainers leave others (optimizer.bin, rng_state.pth, training_args.bin).
_FOREIGN = (
  _ADAPTER,
  _Kind(r"pytorch_model.*\.bin(\.index\.json)?", "PyTorch weights", _PICKLE),
  _Kind(r"consolidated.*\.pth|.*\.ckpt", "PyTorch weights", _PICKLE),
  _Kind(
    r".*\.gguf", "GGUF weights", "of llama.cpp are not read: use the folder they were made from"
  ),
  _Kind(
    r"(tf_model.*|.*\.weights)\.h5(\.index\.json)?",
    "TensorFlow weights",
    "are not read: save them as safetensors with transformers",
  ),
  _Kind(
    r"flax_model.*\.msgpack(\.index\.json)?",
    "Flax weights",
    "of transformers are not read: save them as safetensors with transformers",
  ),
  _Kind(r".*\.npz", "a big_vision npz", "is opened by its own path"),
)
_FILES = (  # of a path to one file
  *_FOREIGN,
  _Kind(
    r".*\.safetensors(\.index\.json)?",
    "safetensors",
    "are opened by their folder, with config.json",
  ),
  _Kind(r".*\.(bin|pt|pth|pkl)", "a pickle of PyTorch", _PICKLE.replace("are", "is", 1)),
  _Kind(r".*\.(h5|keras)", "Keras weights", "are not read"),
  _Kind(r".*\.(onnx|tflite|msgpack)", "a model of another tool", "is not read"),
)


def weights(folder: pathlib.Path, ours: tuple[str, ...] = ()) -> pathlib.Path:
  """The one set of safetensors in `folder`: a file, or the index of its shards.

  Args:
    folder: may hold any other files.
    ours: names of files that are no weights whatever they are called.

  Raises:
    UserError: no weights, weights of another kind, or two sets of them; names what is there.
  """
  names = sorted(p.name for p in folder.iterdir() if p.name not in ours)
  found = _safetensors(folder, names) | _foreign(names)
  if not found:
    raise errors.UserError(
      f"{folder} holds no weights (found: {', '.join(names[:8]) or 'nothing'})"
    )
  if len(found) > 1:
    said = " and ".join(f"{name} ({what})" for name, what in list(found.items())[:3])
    raise errors.UserError(
      f"{folder} holds more than one set of weights: {said}. Which one counts cannot be told: move "
      "the others away"
    )
  name = next(iter(found))
  if not name.endswith((".safetensors", INDEX)) or re.fullmatch(_ADAPTER.names, name):
    raise errors.UserError(described(folder))
  if (shard := _SHARD.fullmatch(name)) and int(shard[2]) > 1:
    raise errors.UserError(
      f"{folder} has no {shard[1]}{INDEX}, which says where the tensors are: {name} is one shard of "
      f"{int(shard[2])}"
    )
  return folder / name


def _safetensors(folder: pathlib.Path, names: list[str]) -> dict[str, str]:
  """Name of an index or file -> what it is, for every set of safetensors."""
  found, listed = {}, set()
  for name in names:
    if name.endswith(INDEX):
      files = set(weight_map(folder / name).values())
      found[name], listed = f"{len(files)} shards", listed | files
  for name in names:
    if name in listed or not name.endswith(".safetensors") or _kind(name, (_ADAPTER,)):
      continue
    shard = _SHARD.fullmatch(name)
    others = [_SHARD.fullmatch(other) for other in found]
    if not shard or not any(o and o.groups() == shard.groups() for o in others):
      found[name] = f"one of {int(shard[2])} shards, in no index" if shard else "one file"
  return found


def _foreign(names: list[str]) -> dict[str, str]:
  found = {}
  for name in names:
    kind = _kind(name, _FOREIGN)
    if kind and kind.what not in found.values():  # the shards of one set are one
      found[name] = kind.what
  return found


def _kind(name: str, kinds: tuple[_Kind, ...]) -> _Kind | None:
  return next((k for k in kinds if re.fullmatch(k.names, name)), None)


def weight_map(index: pathlib.Path) -> dict[str, str]:
  """Tensor -> file, as an index of shards has it.

  Raises:
    UserError: it cannot be read, or names a file outside its folder.
  """
  try:
    found = json.loads(index.read_text())["weight_map"]
    if not found or not all(isinstance(f, str) for f in found.values()):
      raise ValueError('"weight_map" maps no tensors to files')
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
    raise errors.UserError(f"{index} is damaged ({e!r}); copy it again") from e
  for name, file in found.items():
    if pathlib.PurePath(file).name != file:
      raise errors.UserError(f"{index}: {name} is in {file!r}, which is no file of this folder")
  return found


def quantisation(config: dict) -> str | None:
  """How a config.json says that weights are quantised that are not read; None when it does not.

  Of bitsandbytes the tensors tell, see `bnb`.
  """
  for key in ("quantization_config", "compression_config", "quantization"):
    for part in (config, config.get("text_config") or {}, config.get("vision_config") or {}):
      if d := part.get(key):
        d = d if isinstance(d, dict) else {"quant_method": d}
        if d.get("quant_method") != "bitsandbytes":
          return _quantised(d, key == "quantization")
  return None


def _quantised(d: dict, of_mlx: bool) -> str:
  of_mlx = of_mlx or "quant_method" not in d and "group_size" in d  # MLX writes both keys
  said = ["MLX" if of_mlx else str(d.get("quant_method", "an unnamed method"))]
  for key in ("bits", "format", "fmt"):
    if d.get(key):
      said.append(f"{d[key]} bits" if key == "bits" else str(d[key]))
  if kind := d.get("quant_type"):  # torchao: a word, or a dictionary of configs by module
    default = kind.get("default", kind) if isinstance(kind, dict) else kind
    said.append(
      str(default.get("_type", "several types") if isinstance(default, dict) else default)
    )
  return ", ".join(said)


def unread(folder: str | pathlib.Path, quantised: str) -> errors.UserError:
  """The error for a folder whose weights are quantised."""
  return errors.UserError(
    f"{folder}: its weights are quantised ({quantised}), which is not read; use the folder it was "
    "made from, or one of its weights in float32, bfloat16 or float16"
  )


def pointer(path: str | pathlib.Path) -> str:
  """Words to add to an error about a file that was never fetched; "" for others."""
  try:
    with open(path, "rb") as f:
      is_pointer = f.read(24).startswith(b"version https://git-lfs")
  except OSError:
    return ""
  return (
    ": it is a pointer of Git LFS, fetch the file itself with `git lfs pull`" if is_pointer else ""
  )


def described(path: pathlib.Path) -> str:
  """One line on a path that holds no checkpoint of ours: what it is, and what to do."""
  if not path.is_dir():
    kind = _kind(path.name, _FILES)
    return (
      f"{path}: {kind.what} {kind.advice}" if kind else f"{path} is no checkpoint; is it an npz?"
    )
  names = sorted(p.name for p in path.iterdir())
  if "config.json" in names and (quantised := quantisation(_json(path / "config.json"))):
    return str(unread(path, quantised))
  for name in names:
    if kind := _kind(name, _FOREIGN):
      about = _adapter(path) if kind is _ADAPTER else ""
      return f"{path} holds {kind.what} ({name}{about}), which {kind.advice}"
  if any(n.endswith((".safetensors", INDEX)) for n in names):
    return f"{path} holds safetensors but no config.json; copy it from the model's folder"
  if "config.json" in names:
    return f"{path} holds a config.json but no weights (found: {', '.join(names[:8])})"
  processor = [n for n in names if _PROCESSOR.fullmatch(n)]
  if processor:
    return (
      f"{path} holds a processor ({', '.join(processor[:4])}) but no weights; a tokenizer is given "
      "with --tokenizer"
    )
  shown = ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")
  return (
    f"{path} holds no checkpoint (found: {shown or 'nothing'}); expected an npz, config.json with "
    "safetensors, or a folder of steps"
  )


def _adapter(folder: pathlib.Path) -> str:
  """What adapter_config.json says of an adapter, as far as it can be read."""
  d = _json(folder / "adapter_config.json")
  if "peft_type" not in d:
    return ""
  return f": {d['peft_type']}, r {d.get('r')}, of {d.get('base_model_name_or_path')}"


def _json(path: pathlib.Path) -> dict:
  """Content of a JSON file; {} when there is none or it is damaged."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}
