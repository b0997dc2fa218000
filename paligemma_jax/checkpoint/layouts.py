"""The layouts in which npz files come, brought to the one with stacked layers.

Published PaliGemma files have `params/` before every name, old training states `opt/target/`,
older towers one entry per layer (`encoderblock_0`, …), and DeepMind's raw Gemma dictionaries
`layer_0`, …, with quirks of their own: transposed gates, 256128 table rows, fused q, k and v.
"""

import re
from collections.abc import Iterable

from paligemma_jax import errors
from paligemma_jax.checkpoint import lazy, source
from paligemma_jax.models import tree, variants

GEMMA_ROWS = 256_000  # pieces of the tokenizer; raw tables have 256128 rows, the rest unused
_RAW_ROWS = 256_128

# What a SigLIP checkpoint has beside the tower: pooling head, text tower, temperature and bias.
_SIGLIP = re.compile(r"img/MAPHead_0/.*|txt/.*|[tb]")
# Where the names of a model or of a tower begin.
_ROOT = re.compile(
  r"params|opt|img|llm|txt|embedd(er|ing)|(T|t)ransformer|pos_embedding|head|MAPHead_0|layers?(_\d+)?"
  r"|final_norm|encoderblock(_\d+)?|encoder_norm"
)
_LAYER = re.compile(r"(.*/)?(encoderblock|layer)_(\d+)/(.*)")
_STACK = {"encoderblock": "encoderblock", "layer": "layers"}


def normalise(arrays: dict[str, lazy.Array], tree: str, where: str):
  """Returns (our names -> arrays, kind of checkpoint).

  Args:
    arrays: names as in the file -> arrays.
    tree: sub-tree to select, e.g. "img" or "img/head"; "" for all.
    where: for messages.

  Returns:
    The kind is "model", "img", "llm" (a tower alone), or "part" (of a sub-tree).

  Raises:
    UserError: no tensors are left, layers are missing, or a dtype is none of a model's.
  """
  arrays = {plain: arrays[name] for name, plain in _unwrapped(arrays).items()}
  for prefix in ("params/", "opt/target/"):
    if any(name.startswith(prefix) for name in arrays):
      arrays = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
      break
  arrays = {_rooted(name, arrays): x for name, x in arrays.items()}
  arrays = {n: x for n, x in _stacked(arrays, where).items() if not _SIGLIP.fullmatch(n)}
  arrays = _repaired(arrays)
  if tree:
    chosen = {n: x for n, x in arrays.items() if n == tree or n.startswith(tree + "/")}
    if not chosen:
      tops = sorted({n.split("/")[0] for n in arrays})
      raise errors.UserError(f'{where}: there is no "{tree}" in it (found: {", ".join(tops)})')
    arrays = chosen
  arrays = {name: lazy.computable(x) for name, x in arrays.items()}
  other = {name: str(x.dtype) for name, x in arrays.items() if x.dtype not in lazy.FLOATS.values()}
  source.refuse_dtypes(where, other)
  return arrays, _kind(arrays, tree)


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
  """Name -> name without what all share before the names of a model begin ("state/", "module.")."""
  parts = {name: re.split(r"[/.]", name) for name in names}
  shared = 0
  for column in zip(*parts.values()):
    if len(set(column)) > 1 or _ROOT.fullmatch(column[0]):
      break
    shared += len(column[0]) + 1
  return {name: name[shared:] or name for name in parts}


def _rooted(name: str, names) -> str:
  """Puts the name of a bare tower under `img/` or `llm/`."""
  name = name.removeprefix("transformer/")
  if "embedding/kernel" in names and "img/embedding/kernel" not in names:
    return f"img/{name}"
  bare = ("embedder/input_embedding", "transformer/embedder/input_embedding")
  return f"llm/{name}" if any(n in names for n in bare) else name


def _stacked(arrays: dict[str, lazy.Array], where: str) -> dict[str, lazy.Array]:
  whole, layers = {}, {}
  for name, x in arrays.items():
    if match := _LAYER.fullmatch(name):
      head, block, layer, tail = match.groups()
      # Raw Gemma files of some releases wrap every weight of the MLP once more.
      tail = re.sub(r"^mlp/(gating_einsum|linear)/w$", r"mlp/\1", tail)
      layers.setdefault(f"{head or ''}{_STACK[block]}/{tail}", {})[int(layer)] = x
    else:
      whole[name] = x
  block_of = {name: re.match(r".*?(encoderblock|layers)/", name)[0] for name in layers}
  for name, parts in layers.items():
    depth = 1 + max(max(p) for n, p in layers.items() if block_of[n] == block_of[name])
    gone = [i for i in range(depth) if i not in parts]
    if gone:
      raise errors.UserError(
        f"{where}: layers {source.listed([*map(str, gone)])} of {name} missing"
      )
    shapes = {x.shape for x in parts.values()}
    if len(shapes) > 1:
      raise errors.UserError(
        f"{where}: the layers of {name} have different shapes {sorted(shapes)}"
      )
    whole[name] = lazy.Stacked([parts[i] for i in range(depth)])
  return whole


def _repaired(arrays: dict[str, lazy.Array]) -> dict[str, lazy.Array]:
  """Undoes the quirks of raw Gemma files; other arrays pass as they are."""
  arrays = dict(arrays)
  every = slice(None)
  table = arrays.get("llm/embedder/input_embedding")
  if table is not None and table.shape[0] == _RAW_ROWS:
    arrays["llm/embedder/input_embedding"] = lazy.Part(table, slice(0, GEMMA_ROWS))
  fused = arrays.pop("llm/layers/attn/qkv_einsum/w", None)  # [L, 3, N, D, H]
  if fused is not None:
    arrays["llm/layers/attn/q_einsum/w"] = lazy.Part(fused, (every, 0))
    arrays["llm/layers/attn/kv_einsum/w"] = lazy.Part(fused, (every, slice(1, 3)))
  gates, down = (arrays.get(f"llm/layers/mlp/{n}") for n in ("gating_einsum", "linear"))
  if gates is not None and down is not None and len(gates.shape) == 4:
    if gates.shape[2:] == down.shape[1:] and gates.shape[2] != gates.shape[3]:  # [L, 2, F, D]
      arrays["llm/layers/mlp/gating_einsum"] = lazy.Moved(gates, (0, 1, 3, 2))
  return arrays


def _kind(arrays: dict[str, lazy.Array], tree: str) -> str:
  if "/" in tree:
    return "part"
  towers = {name.split("/")[0] for name in arrays}
  return {("img",): "img", ("llm",): "llm"}.get(tuple(sorted(towers)), "model")


def recognise(arrays: dict[str, lazy.Array], where: str) -> variants.ModelConfig:
  """The config that the shapes of a whole model imply.

  Raises:
    UserError: a tensor that is needed to tell is missing or of an impossible shape.
  """
  return _told(variants.recognise, arrays, where)


def check(arrays, kind: str, config: variants.ModelConfig | None, where: str):
  """Compares names and shapes with what `config`, or those of a lone tower, ask for.

  Raises:
    UserError: names all that is missing, unexpected or mis-shaped.
  """
  found = {name: tuple(x.shape) for name, x in arrays.items()}
  if kind == "model":
    wanted = tree.param_shapes(config)
  elif kind == "img":
    head = found.get("img/head/kernel")
    found_config = _told(variants.recognise_image, arrays, where)
    wanted = tree.shapes(tree.image(found_config, head[-1] if head else None))
  elif kind == "llm":
    wanted = tree.shapes(tree.decoder(_told(variants.recognise_decoder, arrays, where)))
  else:
    return
  source.compare(where, found, wanted)


def _told(recogniser, arrays, where: str):
  try:
    return recogniser({name: tuple(x.shape) for name, x in arrays.items()})
  except KeyError as e:
    tops = sorted({n.split("/")[0] for n in arrays})
    raise errors.UserError(
      f"{where}: tensor {e.args[0]} is missing (found {len(arrays)} under: {source.listed(tops)}); "
      "the file is incomplete or holds no PaliGemma"
    ) from e
  except (ValueError, IndexError, errors.UserError) as e:
    raise errors.UserError(f"{where}: {e}; the file holds no PaliGemma that is known") from e
