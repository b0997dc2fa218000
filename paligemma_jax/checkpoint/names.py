"""One table between our names and those of Hugging Face: axis order, layer split, spellings.

Ours are the names of the published big_vision npz, with layers stacked on axis 0; theirs are one
matrix per layer, linear weights [out, in]. Spec: shared table of both conversions, checked bit for
bit against files written by transformers in both families.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from paligemma_jax.checkpoint import lazy
from paligemma_jax.models import tree

_ATTN = tree.BLOCKS + "MultiHeadDotProductAttention_0/"
_LAYER = "vision_tower.encoder.layers.{i}."
_LLM = "language_model.layers.{i}."

# Our name, index of the part that is fused in ours (k beside v, gate beside up), their name, and
# our axes -> their axes of one layer. Parentheses join axes, as in einops; `1` is an axis of size 1.
_IMAGE = (
  (
    "img/embedding/kernel",
    None,
    "vision_tower.embeddings.patch_embedding.weight",
    "P Q C W -> W C P Q",
  ),
  ("img/embedding/bias", None, "vision_tower.embeddings.patch_embedding.bias", "W -> W"),
  ("img/pos_embedding", 0, "vision_tower.embeddings.position_embedding.weight", "N W -> N W"),
  (tree.BLOCKS + "LayerNorm_0/scale", None, _LAYER + "layer_norm1.weight", "W -> W"),
  (tree.BLOCKS + "LayerNorm_0/bias", None, _LAYER + "layer_norm1.bias", "W -> W"),
  (_ATTN + "query/kernel", None, _LAYER + "self_attn.q_proj.weight", "W A h -> (A h) W"),
  (_ATTN + "query/bias", None, _LAYER + "self_attn.q_proj.bias", "A h -> (A h)"),
  (_ATTN + "key/kernel", None, _LAYER + "self_attn.k_proj.weight", "W A h -> (A h) W"),
  (_ATTN + "key/bias", None, _LAYER + "self_attn.k_proj.bias", "A h -> (A h)"),
  (_ATTN + "value/kernel", None, _LAYER + "self_attn.v_proj.weight", "W A h -> (A h) W"),
  (_ATTN + "value/bias", None, _LAYER + "self_attn.v_proj.bias", "A h -> (A h)"),
  (_ATTN + "out/kernel", None, _LAYER + "self_attn.out_proj.weight", "A h W -> W (A h)"),
  (_ATTN + "out/bias", None, _LAYER + "self_attn.out_proj.bias", "W -> W"),
  (tree.BLOCKS + "LayerNorm_1/scale", None, _LAYER + "layer_norm2.weight", "W -> W"),
  (tree.BLOCKS + "LayerNorm_1/bias", None, _LAYER + "layer_norm2.bias", "W -> W"),
  (tree.BLOCKS + "MlpBlock_0/Dense_0/kernel", None, _LAYER + "mlp.fc1.weight", "W M -> M W"),
  (tree.BLOCKS + "MlpBlock_0/Dense_0/bias", None, _LAYER + "mlp.fc1.bias", "M -> M"),
  (tree.BLOCKS + "MlpBlock_0/Dense_1/kernel", None, _LAYER + "mlp.fc2.weight", "M W -> W M"),
  (tree.BLOCKS + "MlpBlock_0/Dense_1/bias", None, _LAYER + "mlp.fc2.bias", "W -> W"),
  ("img/Transformer/encoder_norm/scale", None, "vision_tower.post_layernorm.weight", "W -> W"),
  ("img/Transformer/encoder_norm/bias", None, "vision_tower.post_layernorm.bias", "W -> W"),
  ("img/head/kernel", None, "multi_modal_projector.linear.weight", "W D -> D W"),
  ("img/head/bias", None, "multi_modal_projector.linear.bias", "D -> D"),
)
_DECODER = (
  ("llm/embedder/input_embedding", None, "language_model.embed_tokens.weight", "V D -> V D"),
  ("llm/layers/pre_attention_norm/scale", None, _LLM + "input_layernorm.weight", "D -> D"),
  ("llm/layers/attn/q_einsum/w", None, _LLM + "self_attn.q_proj.weight", "N D H -> (N H) D"),
  ("llm/layers/attn/kv_einsum/w", 0, _LLM + "self_attn.k_proj.weight", "K D H -> (K H) D"),
  ("llm/layers/attn/kv_einsum/w", 1, _LLM + "self_attn.v_proj.weight", "K D H -> (K H) D"),
  ("llm/layers/attn/attn_vec_einsum/w", None, _LLM + "self_attn.o_proj.weight", "N H D -> D (N H)"),
  ("llm/layers/mlp/gating_einsum", 0, _LLM + "mlp.gate_proj.weight", "D F -> F D"),
  ("llm/layers/mlp/gating_einsum", 1, _LLM + "mlp.up_proj.weight", "D F -> F D"),
  ("llm/layers/mlp/linear", None, _LLM + "mlp.down_proj.weight", "F D -> D F"),
  ("llm/final_norm/scale", None, "language_model.norm.weight", "D -> D"),
)
# The trap: post_attention_layernorm means another norm in each family.
_NORMS = {
  False: (
    ("llm/layers/pre_ffw_norm/scale", None, _LLM + "post_attention_layernorm.weight", "D -> D"),
  ),
  True: (
    (
      "llm/layers/post_attention_norm/scale",
      None,
      _LLM + "post_attention_layernorm.weight",
      "D -> D",
    ),
    ("llm/layers/pre_ffw_norm/scale", None, _LLM + "pre_feedforward_layernorm.weight", "D -> D"),
    ("llm/layers/post_ffw_norm/scale", None, _LLM + "post_feedforward_layernorm.weight", "D -> D"),
  ),
}
TABLE = "language_model.embed_tokens.weight"
PATCHES = "vision_tower.embeddings.patch_embedding.weight"
POSITIONS = "vision_tower.embeddings.position_embedding.weight"
HEAD = "lm_head.weight"  # the tied output matrix, never written

# Tensors that hold nothing of the model: buffers of old releases, and what a bare SigLIP has beside
# the tower (pooling head, text tower, temperature).
IGNORED = re.compile(
  r".*\.(position_ids|inv_freq)|vision_tower\.head\..*|text_model\..*|logit_(scale|bias)"
)


# Names of modules that wrap others: DistributedDataParallel, torch.compile, FSDP, checkpointing,
# DeepSpeed. They stand before a name or in it, wherever a module was wrapped.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_WRAPPERS |= {"_forward_module"}
# Where the names of a model begin; what all names share before that is of a wrapper.
_ROOTS = {"vision_tower", "vision_model", "multi_modal_projector", "language_model", "text_model"}
_ROOTS |= {"lm_head", "layers", "embed_tokens", "norm", "encoder", "embeddings", "post_layernorm"}


class Slot(NamedTuple):
  """A tensor of a Hugging Face file and where its numbers stand in our tree."""

  theirs: str  # without prefixes that differ between releases, see `canonical`
  shape: tuple[int, ...]
  ours: str
  layer: int | None  # index on the first axis of ours
  part: int | None  # index on the next one
  split: tuple[int, ...]  # `shape` with joined axes apart
  axes: tuple[int, ...]  # ours = theirs.reshape(split).transpose(axes)
  rows: int  # how many axes of `split` are joined in the first axis of `shape`

  @property
  def index(self) -> tuple[int, ...]:
    """Place of its numbers on the first axes of ours."""
    return tuple(i for i in (self.layer, self.part) if i is not None)


def slots(shapes: dict[str, tuple[int, ...]], post_norms: bool) -> Iterator[Slot]:
  """Every tensor of the Hugging Face side of a model, decoder first, layer by layer.

  Args:
    shapes: our names -> shapes, as `tree.param_shapes` gives them or some of them.
    post_norms: whether the decoder is a Gemma 2.
  """
  table = {}
  for row in (*_DECODER, *_NORMS[post_norms], *_IMAGE):
    table.setdefault(tree.is_stacked(row[0]), {}).setdefault(row[0][:3], []).append(row)
  for tower in ("llm", "img"):
    for row in table[False][tower]:
      if row[0] in shapes:
        yield _slot(row, shapes[row[0]], None)
    rows = [row for row in table[True][tower] if row[0] in shapes]
    depth = max((shapes[row[0]][0] for row in rows), default=0)
    for layer in range(depth):
      for row in rows:
        if layer < shapes[row[0]][0]:
          yield _slot(row, shapes[row[0]][1:], layer)


def _slot(row, shape, layer) -> Slot:
  ours, part, theirs, pattern = row
  shape = shape[1:] if part is not None else shape
  left, right = (side.strip() for side in pattern.split("->"))
  sizes = dict(zip(left.split(), shape, strict=True))
  groups = [g.strip("()").split() for g in re.findall(r"\([^)]*\)|\S+", right)]
  letters = [letter for group in groups for letter in group]
  return Slot(
    theirs=theirs.format(i=layer),
    shape=tuple(math.prod(sizes[k] for k in group) for group in groups),
    ours=ours,
    layer=layer,
    part=part,
    split=tuple(sizes[k] for k in letters),
    axes=tuple(letters.index(k) for k in left.split()),
    rows=len(groups[0]),
  )


def from_theirs(slot: Slot, x: lazy.Array) -> lazy.Array:
  """One layer, or part of one, of our tensor, out of a tensor of theirs."""
  return lazy.Moved(x if x.shape == slot.split else x.reshape(slot.split), slot.axes)


def channels_first(x: lazy.Array) -> lazy.Array:
  """The patch embedding as PyTorch lays it, [W, 3, P, P]; MLX has [W, P, P, 3]."""
  is_last = len(x.shape) == 4 and x.shape[3] == 3 != x.shape[1]
  return lazy.Moved(x, (0, 3, 1, 2)) if is_last else x


def to_theirs(slot: Slot, x):
  """Inverse of `from_theirs` on NumPy: our layer (and part) -> array of `slot.shape`."""
  inverse = sorted(range(len(slot.axes)), key=slot.axes.__getitem__)
  return x.transpose(inverse).reshape(slot.shape)


def unwrapped(found: Iterable[str]) -> dict[str, str]:
  """Name in a file -> name without what trainers' wrappers put before it or into it.

  _orig_mod.model.vision_tower.x   module.paligemma.language_model._orig_mod.y
  """
  parts = {name: [p for p in name.split(".") if p not in _WRAPPERS] for name in found}
  shared = 0
  for column in zip(*parts.values()):
    if len(set(column)) > 1 or column[0] in _ROOTS:
      break
    shared += 1
  return {name: ".".join(p[min(shared, len(p) - 1) :]) for name, p in parts.items()}


def canonical(name: str) -> str:
  """A tensor's name without what differs between releases of transformers.

  All spellings become `vision_tower.…`, `multi_modal_projector.…`, `language_model.…` (a bare
  Gemma or SigLIP too) and `lm_head.weight`.
  """
  name = name.removeprefix("model.")
  name = re.sub(r"^language_model\.lm_head\.", "lm_head.", name)
  name = re.sub(r"^language_model\.model\.", "language_model.", name)
  name = re.sub(r"^vision_model\.", "vision_tower.", name)
  name = re.sub(r"^vision_tower\.vision_model\.", "vision_tower.", name)
  name = re.sub(r"^(layers\.|embed_tokens\.|norm\.)", r"language_model.\1", name)
  return re.sub(r"^(encoder\.|embeddings\.|post_layernorm\.|head\.)", r"vision_tower.\1", name)


def published(name: str) -> str:
  """The name under which files were published in 2024, which every release reads."""
  name = re.sub(r"^language_model\.", "language_model.model.", name)
  return re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name)
