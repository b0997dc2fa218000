"""The formats of checkpoints: recognised from the files, opened, loaded, saved, converted."""

import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

from paligemma_jax import errors, storage
from paligemma_jax.checkpoint import (
  adapted,
  atomic,
  bnb,
  bnb_save,
  contents,
  hf,
  lazy,
  manifest,
  npz,
  source,
  steps,
  stream,
)
from paligemma_jax.models import tree, variants

Source = source.Source

# Each module has is_mine(path), open(path) and save(path, read, config, assets, meta, plan).
FORMATS = {
  "npz": npz,  # big_vision: NAME.npz, or a part of one, NAME.npz:img
  "hf": hf,  # Hugging Face: a folder with config.json and safetensors
  "orbax": steps,  # a step of ours, a folder of steps, or a workdir
}

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+(@[\w./-]+)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.npz", "*.txt"]


def open(path: str | pathlib.Path) -> Source:
  """Opens a checkpoint of any format; no weights are read.

  Args:
    path: NAME.npz, NAME.npz:img, a Hugging Face folder, an Orbax step, a workdir (its newest
      complete step), a folder with one npz, or, when there is no such path, a Hub id
      ("owner/name" or "owner/name@revision"), which is downloaded. Steps and workdirs may lie in
      an object store.

  Raises:
    UserError: nothing there, an unknown format, or a file that is damaged or incomplete.
  """
  path = str(path)
  if storage.is_remote(path) and not steps.is_mine(path):
    raise errors.UserError(
      f"{path} is no workdir and no step of one; copy other checkpoints to this machine first"
    )
  for module in FORMATS.values():
    if module.is_mine(path):
      found = module.open(path)
      return adapted.completed(found, open) if steps.ADAPTER in found.meta else found
  folder = pathlib.Path(path)
  if folder.is_dir():
    found = sorted(p for p in folder.glob("*.npz") if p.name not in source.ASSETS)
    if len(found) == 1:
      return npz.open(str(found[0]))
  if folder.exists():
    raise errors.UserError(contents.described(folder))
  if _HUB_ID.fullmatch(path) and not path.startswith("."):
    return open(_download(path))
  raise errors.UserError(f"{path} does not exist")


def _download(hub_id: str) -> str:
  import huggingface_hub  # slow to import, needed for Hub ids alone

  name, _, revision = hub_id.partition("@")
  try:
    return huggingface_hub.snapshot_download(
      name, revision=revision or None, allow_patterns=_HUB_FILES
    )
  except Exception as e:  # its errors have no common base
    reason = (str(e).strip() or repr(e)).splitlines()[0]
    raise errors.UserError(
      f"{hub_id} is no local path and cannot be fetched from the Hugging Face Hub: {reason}"
    ) from e


def fingerprint(src: Source) -> str:
  """Hex digest that changes when the weights of an opened checkpoint do; they are not read.

  Of a step of ours counts its manifest, which has a checksum of every file; else the files' sizes
  and times. The place counts as well: a copy has another digest.
  """
  path = storage.path(npz.split(src.path)[0])
  parts = manifest.read(path) if src.format == "orbax" else None
  if parts is None:
    pattern = "*.safetensors" if src.format == "hf" else "**/*"
    files = [path] if src.format == "npz" else path.glob(pattern)
    parts = [[str(p), *_size_and_time(p)] for p in sorted(files) if p.is_file()]
  text = json.dumps([str(path), parts])
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _size_and_time(path: storage.Path) -> tuple[int, int]:
  found = path.stat()
  if storage.is_remote(path):
    return found.length, found.mtime
  return found.st_size, found.st_mtime_ns


def load_params(src: Source, config: variants.ModelConfig, *args, **kwargs) -> dict:
  """See `load.load_params`; this one imports JAX only when called."""
  from paligemma_jax.checkpoint import load

  return load.load_params(src, config, *args, **kwargs)


def save(
  path: str | pathlib.Path,
  read: Callable,
  config: variants.ModelConfig,
  assets: dict[str, bytes],
  dtype: str | None = None,
  format: str | None = None,
  meta: dict | None = None,
  before_commit: Callable[[], None] = lambda: None,
  report: Callable[[int], None] = lambda nbytes: None,
  origin: str | None = None,
  quant: tree.Quant | None = None,
  quantised: Mapping[str, bnb.Weight] | None = None,
):
  """Writes a checkpoint, one slice after the other, whole or not at all.

  Args:
    path: destination; nothing or an empty folder may be there.
    read: (flat name, layer or None) -> the tensor, or the layer of a stacked one; NumPy, JAX or
      lazy. Called with a layer for the tensors with stacked layers.
    config: sizes and settings; written with the weights.
    assets: tokenizer and preprocessing files, name -> bytes.
    dtype: "float32", "bfloat16" or "float16"; None as given.
    format: a key of `FORMATS`; None: npz for a path that ends so, else hf.
    meta: what else to store (JSON), e.g. {"step": 100}.
    before_commit: called before the files are put in place; may raise.
    report: called with the bytes of every slice written.
    origin: where the tensors come from, for messages about them; None: "the model".
    quant: one of `bnb_save.FORMS`: writes a folder that bitsandbytes reads as quantised, all matrices
      but the table. From what is read in `dtype`, as transformers does.
    quantised: our name -> codes, see `Source.quantised`; those of the form asked for are copied.

  Raises:
    UserError: the destination is taken, a tensor is mis-shaped or not finite, a setting or form cannot
      be expressed in the format.
  """
  path = str(path)
  format = format or ("npz" if path.endswith(".npz") else "hf")
  if format not in FORMATS:
    raise errors.UserError(f"format {format!r} is unknown{errors.did_you_mean(format, FORMATS)}")
  if (format == "npz") != path.endswith(".npz"):
    raise errors.UserError(
      f"{path}: a path ends in .npz if and only if the format is npz ({format})"
    )
  if dtype is not None and dtype not in lazy.FLOATS:
    raise errors.UserError(f"dtype {dtype!r} is unknown{errors.did_you_mean(dtype, lazy.FLOATS)}")
  atomic.check_free(path)
  dtypes = {
    n: lazy.FLOATS[dtype] if dtype else np.dtype(read(n, 0 if tree.is_stacked(n) else None).dtype)
    for n in tree.param_shapes(config)
  }
  if quant is not None and (format != "hf" or quant not in bnb_save.FORMS.values()):
    raise errors.UserError(
      f"{quant.spelled} cannot be written as {format}; what can be is hf with one of "
      f"{', '.join(bnb_save.FORMS)}"
    )
  origin = origin or "the model"
  plan = stream.Plan(origin, dtypes, before_commit, report, quant, quantised or {})
  FORMATS[format].save(path, read, config, assets, meta or {}, plan)


def convert(
  src: Source | str | pathlib.Path,
  dst: str | pathlib.Path,
  to: str | None = None,
  dtype: str | None = None,
  progress: bool = True,
  assets: dict[str, bytes] | None = None,
  quant: str | None = None,
):
  """Copies a whole model from one format to another, or to another dtype.

  Args:
    src: an opened checkpoint or its path.
    dst: destination, see `save`.
    to: a key of `FORMATS`; None: npz for a path that ends so, else hf.
    dtype: "float32", "bfloat16" or "float16"; None as stored.
    progress: whether to draw a progress bar on a terminal.
    assets: files that replace the source's of the same name, or are added.
    quant: a key of `bnb_save.FORMS`, the form of a folder for bitsandbytes; None: floats.

  Raises:
    UserError: as `open` and `save`; also when the source is a tower alone or damaged.
  """
  import tqdm

  src = src if isinstance(src, Source) else open(src)
  if src.config is None:
    parts = ", ".join(sorted({n.split("/")[0] for n in src.arrays}))
    raise errors.UserError(
      f"{src.path} holds only a part of a model ({parts}); it can initialise one but not be converted"
    )
  width = lazy.FLOATS[dtype].itemsize if dtype in lazy.FLOATS else None
  total = sum(
    x.nbytes // x.dtype.itemsize * (width or x.dtype.itemsize) for x in src.arrays.values()
  )
  with tqdm.tqdm(
    total=total, unit="B", unit_scale=True, desc=str(dst), disable=None if progress else True
  ) as bar:
    save(
      dst,
      src.lazy,
      src.config,
      src.assets | (assets or {}),
      dtype,
      to,
      src.meta,
      before_commit=src.verify,
      report=bar.update,
      origin=src.path,
      quant=bnb_save.form(quant) if quant else None,
      quantised=src.quantised,
    )
