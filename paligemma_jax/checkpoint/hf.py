"""Hugging Face folders: safetensors, config.json, model card, tokenizer and preprocessing files.

Read in every spelling of the names that was ever written, single or sharded, whole models or a
Gemma or SigLIP alone. Written under the names published in 2024, which every release reads.
"""

import collections
import functools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from paligemma_jax import errors
from paligemma_jax.checkpoint import (
  atomic,
  bnb,
  bnb_save,
  contents,
  hf_config,
  hf_keys,
  lazy,
  names,
  shards,
  source,
  stream,
)
from paligemma_jax.models import tree, variants
from paligemma_jax.processing import added_tokens

META = hf_keys.META  # key of config.json under which we keep `meta`


def is_mine(path: str) -> bool:
  """Whether `path` is a folder with a config.json beside safetensors."""
  folder = pathlib.Path(path)
  weights = (*folder.glob("*.safetensors"), *folder.glob("*" + contents.INDEX))
  return (folder / "config.json").is_file() and bool(weights)


def open(path: str) -> source.Source:
  """Opens a folder of PaliGemma, or of a Gemma or SigLIP for initialisation.

  Raises:
    UserError: config.json is damaged or of another model, the weights are in two sets or quantised
      by other than bitsandbytes, shards are missing or damaged, tensors are missing, unexpected or
      mis-shaped.
  """
  folder = pathlib.Path(path)
  assets = source.find_assets(folder)
  tokens = max(added_tokens.read(assets, path), default=-1) + 1
  try:
    stored = json.loads((folder / "config.json").read_text())
    quantised = contents.quantisation(stored)
    config = None if quantised else hf_config.read(stored, str(folder / "config.json"), tokens)
  except (ValueError, TypeError, AttributeError, RecursionError, ArithmeticError) as e:
    raise errors.UserError(f"{folder / 'config.json'} is damaged ({e!r}); copy it again") from e
  if quantised:
    raise contents.unread(path, quantised)
  tensors = shards.read_folder(folder, source.ASSETS)
  _check_kind(tensors, str(path))
  found, spelled = _normalised(bnb.joined(tensors, str(path)), str(path))
  head = found.pop(names.HEAD, None)
  if head is None and not config.tied:
    raise errors.UserError(
      f"{path}: tie_word_embeddings is false, but there is no lm_head.weight; was it lost in saving?"
    )
  arrays, quantised = _assemble(found, spelled, config, str(path))
  table = found.get(names.TABLE)
  return source.Source(
    path,
    "hf",
    arrays,
    config.model,
    assets,
    stored.get(META) or {},
    lambda: _check_tied(head, table, str(path)),
    quantised,
  )


# Ends of names -> what left them. Some tools say in the names alone that weights are quantised.
_KINDS = (
  (r"\.lora_.*|\.base_layer\..*|\.modules_to_save\..*", "an adapter of peft, not merged"),
  (r"\.(qweight|qzeros|g_idx)", "GPTQ or AWQ"),
  (r"\.(scales|biases)", "MLX"),
  (r"\.weight_(packed|scale|scale_inv|zero_point|shape)", "fp8 or compressed-tensors"),
)


def _check_kind(tensors: Iterable[str], where: str):
  """Raises a UserError when names tell that the tensors are not those of a plain model."""
  for pattern, kind in _KINDS:
    for name in tensors:
      if re.search(f"({pattern})$", name):
        if kind is _KINDS[0][1]:
          advice = "merge it with merge_and_unload and save the model again"
          raise errors.UserError(f"{where} holds the layers of {kind} ({name}); {advice}")
        raise contents.unread(where, f"by {kind}: {name}")


def _normalised(tensors: dict[str, lazy.Array], where: str):
  """Returns (canonical name -> tensor, canonical name -> name in the file)."""
  found, spelled = {}, {}
  plain_names = names.unwrapped(tensors)
  for name, x in tensors.items():
    plain = names.canonical(plain_names[name])
    if names.IGNORED.fullmatch(plain):
      continue
    if plain in found:
      raise errors.UserError(
        f"{where}: {name} and {spelled[plain]} are two spellings of one tensor"
      )
    found[plain], spelled[plain] = x, name
  if names.PATCHES in found:
    found[names.PATCHES] = names.channels_first(found[names.PATCHES])
  return found, spelled


def _wanted(config: hf_config.Read, found) -> dict[str, tuple[int, ...]]:
  """Our shapes of what the folder should hold."""
  if config.model:
    return tree.param_shapes(config.model)
  if config.img:
    return tree.shapes(tree.image(config.img, None))
  return tree.shapes(tree.decoder(config.llm))


def _assemble(found, spelled, config: hf_config.Read, where: str):
  """Returns (our name -> array, our name -> codes of those that are quantised)."""
  ours = _wanted(config, found)
  post_norms = bool(config.llm and config.llm.post_norms)
  slots = list(names.slots(ours, post_norms))
  wanted = {s.theirs: s.shape for s in slots}
  if names.TABLE in wanted:
    wanted[names.TABLE] = (config.rows, config.llm.width)
  opaque = {spelled[n]: x.code for n, x in found.items() if isinstance(x, lazy.Opaque)}
  source.refuse_dtypes(where, opaque)
  source.compare(
    where,
    {spelled[n]: x.shape for n, x in found.items()},
    {spelled.get(n, names.published(n)): shape for n, shape in wanted.items()},
    "Do config.json and the weights belong together?",
  )
  parts, matrices = {}, {}
  for s in slots:
    x = found[s.theirs]
    matrices.setdefault(s.ours, {})[s.index] = x
    if s.theirs == names.TABLE:
      whole = lazy.Part(x, slice(0, config.llm.vocab_size))
    else:
      whole = names.from_theirs(s, x)
    whole = lazy.computable(whole)
    parts.setdefault(s.ours, {}).setdefault(s.layer, {})[s.part] = whole
  arrays = {name: _join(parts[name]) for name in ours}
  weights = {name: bnb.weight(matrices[name]) for name in ours}
  return arrays, {name: weight for name, weight in weights.items() if weight}


def _join(layers: dict) -> lazy.Array:
  whole = []
  for parts in layers.values():
    whole.append(parts[None] if None in parts else lazy.Stacked([parts[p] for p in sorted(parts)]))
  return whole[0] if None in layers else lazy.Stacked(whole)


def _check_tied(head: lazy.Stored | None, table: lazy.Stored | None, where: str):
  if head is None:
    return
  same = table is not None and head.shape == table.shape
  rows = max(1, 2**26 // max(1, head.shape[-1] * head.dtype.itemsize))
  for start in range(0, head.shape[0] if same else 0, rows):
    same = same and np.array_equal(head[start : start + rows], table[start : start + rows])
  if not same:
    raise errors.UserError(
      f"{where}: lm_head.weight differs from the embedding table; PaliGemma ties the two. Was the "
      "model trained with an output matrix of its own?"
    )


def save(
  path: str,
  read: Callable,
  config: variants.ModelConfig,
  assets: dict[str, bytes],
  meta: dict,
  plan: stream.Plan,
):
  """Writes a folder, slice by slice; see `formats.save`."""
  matrices = tree.matrices(config) if plan.quant else {}
  sizes = collections.Counter()
  for name, shape in tree.param_shapes(config).items():
    sizes[plan.dtypes[name].name] += 0 if name in matrices else math.prod(shape)
  dtype = max(sizes, key=sizes.get)
  vocab_size = config.llm.vocab_size
  image = min(added_tokens.image_id(added_tokens.read(assets), vocab_size), vocab_size)
  stored = hf_config.write(config, dtype, image) | ({META: meta} if meta else {})
  if plan.quant:
    stored["quantization_config"] = bnb_save.settings(plan.quant, dtype)
  rows = hf_config.rows(vocab_size, image)
  with atomic.new(path, folder=True) as folder:
    for name, data in assets.items():
      (folder / name).write_bytes(data)
    shards.write_folder(folder, list(_tensors(read, config, rows, dtype, plan)))
    _write_json(folder / "config.json", stored)
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    _write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    kind = f"{dtype}, {plan.quant.spelled} (bitsandbytes)" if plan.quant else dtype
    card = _CARD.format(name=config.name, dtype=kind, **_described(config))
    (folder / "README.md").write_text(card)
    plan.before_commit()


def _tensors(read, config, rows: int, dtype: str, plan: stream.Plan) -> Iterator[shards.Tensor]:
  shapes = tree.param_shapes(config)
  matrices = tree.matrices(config) if plan.quant else {}
  # The tensors of a matrix are written one after the other, and all come from its codes.
  codes = functools.lru_cache(maxsize=1)(lambda slot: _codes(slot, read, shapes, plan))
  for slot in names.slots(shapes, config.llm.post_norms):
    if slot.ours in matrices:
      made = functools.partial(codes, slot)
      place = names.published(slot.theirs), slot.shape
      yield from bnb_save.tensors(*place, plan.quant, dtype, made)
    else:
      pieces = _pieces(slot, read, shapes, rows, plan)
      yield shards.Tensor(*_target(slot, rows, plan), pieces)


def _target(slot: names.Slot, rows: int, plan: stream.Plan):
  shape = slot.shape
  if slot.theirs == names.TABLE:
    shape = (rows, *shape[1:])
  return names.published(slot.theirs), plan.dtypes[slot.ours], shape


def _pieces(slot: names.Slot, read, shapes, rows: int, plan: stream.Plan) -> Iterator[np.ndarray]:
  if slot.theirs == names.TABLE:
    x = read(slot.ours, slot.layer)
    stream.check_shape(plan, slot.ours, slot.layer, x, shapes[slot.ours])
    yield from _table(x, rows, plan)
  else:
    yield _whole(slot, read, shapes, plan)


def _whole(slot: names.Slot, read, shapes, plan: stream.Plan) -> np.ndarray:
  """A tensor of theirs in the dtype of the plan."""
  x = read(slot.ours, slot.layer)
  stream.check_shape(plan, slot.ours, slot.layer, x, shapes[slot.ours])
  x = np.asarray(x if slot.part is None else x[slot.part])
  return names.to_theirs(slot, stream.cast(plan, slot.ours, slot.layer, x))


def _codes(slot: names.Slot, read, shapes, plan: stream.Plan) -> bnb.Parts:
  """Codes and scales of a matrix: those that there are, else made from its floats."""
  from paligemma_jax.models import quant  # imports JAX

  weight = plan.quantised.get(slot.ours)
  if weight and weight.quant == plan.quant:
    parts = weight.read(slot.index)
    plan.report(math.prod(slot.shape) * plan.dtypes[slot.ours].itemsize)
    if not lazy.is_finite(quant.scales(parts)):
      raise source.non_finite(plan.where, slot.ours, slot.layer)
    return parts
  matrix = _whole(slot, read, shapes, plan)
  return quant.quantise(np.ascontiguousarray(matrix, np.float32), plan.quant)


def _table(x, rows: int, plan: stream.Plan) -> Iterator[np.ndarray]:
  """The table and its extra rows: all the mean row, which tells nothing."""
  name, total = "llm/embedder/input_embedding", 0
  for piece in lazy.chunks(x):
    for part in lazy.chunks(piece, 2**22):  # float64 sums without a float64 copy of the piece
      total = total + part.astype(np.float32).sum(0, dtype=np.float64)
    yield stream.cast(plan, name, None, piece)
  mean = (total / x.shape[0]).astype(np.float32).astype(plan.dtypes[name])
  yield np.broadcast_to(mean, (rows - x.shape[0], x.shape[1]))


def _write_json(path: pathlib.Path, d: dict):
  path.write_text(json.dumps(d, indent=2, sort_keys=True) + "\n")


def _described(config: variants.ModelConfig) -> dict:
  llm = config.llm
  window = f"{llm.sliding_window} tokens on even layers" if llm.sliding_window else "off"
  return dict(
    family="PaliGemma 2" if llm.post_norms else "PaliGemma",
    res=config.img.res,
    tokens=config.img.num_tokens,
    attn=llm.attn_logits_softcap or "off",
    final=llm.final_logits_softcap or "off",
    window=window,
  )


_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- paligemma
- vision-language
---

# {name}

A {family} model at {res} x {res} pixels ({tokens} image tokens), {dtype}, written by paligemma_jax.

| setting | value |
| --- | --- |
| attention soft-cap | {attn} |
| final soft-cap | {final} |
| sliding window | {window} |

```python
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

model = PaliGemmaForConditionalGeneration.from_pretrained("PATH")
processor = AutoProcessor.from_pretrained("PATH")
```

```python
import paligemma_jax as pg

vlm = pg.load("PATH")
```

Prompts are given without a final newline, e.g. `caption en`, `answer en what colour?`, `detect cat`.
Weights that derive from Google's PaliGemma checkpoints stay under the Gemma Terms of Use.
"""
