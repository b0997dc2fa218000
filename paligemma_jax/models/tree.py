"""Every parameter, told once: its name, shape, axes, and what a product does with each of them.

Names, order and layout are those of the published npz files (big_vision models/vit.py and
models/ppp/gemma.py). A weight in few bits and an adapter stand in the same tree, at the same names: the array
becomes a dict, the adapter is a sibling of the weight. A tree without either is the published one.

    llm/layers/attn/q_einsum/w             float[L, N, D, H]          as published
    llm/layers/attn/q_einsum/w/nf4         uint8[L, N*H, D/2]         two codes a byte, the first one high
    llm/layers/attn/q_einsum/w/absmax      float32[L, N*H, D/64]      of every block of 64
    llm/layers/attn/q_einsum/w.lora/a      float32[L, D, r]           y = x W + scale (x A) B
    llm/layers/attn/q_einsum/w.lora/b      float32[L, r, N, H]
    llm/layers/attn/q_einsum/w.lora/scale  float32[L]

A *matrix* is one element of a stack (a layer; keys or values of one; gate or up of one) as
[out, in], the orientation of Hugging Face and of bitsandbytes, whose blocks run along it row after
row. Imports neither JAX nor Flax: checkpoints are inspected without them.

Letters: L layers, W width of the image tower, M its hidden width, A heads, h head width, P patch side; D width
of the decoder, F hidden width, N query heads, K kv heads, H head width, V rows of the table.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from paligemma_jax import errors
from paligemma_jax.models import variants

TABLE = "llm/embedder/input_embedding"
BLOCKS = "img/Transformer/encoderblock/"
LAYERS = "llm/layers/"
KINDS = ("int8", "int4", "nf4", "fp4")
NESTED = 256  # absmax values of a block of double quantisation


class Leaf(NamedTuple):
  """One array of the tree."""

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]  # their logical names; "layers" is the one that is scanned over
  stack: int = 0  # so many axes at the front only repeat
  summed: tuple[int, ...] = ()  # axes that a product sums over; () where there is no product
  dtype: str = ""  # the only one it may have; "": a float of the user's choice

  @property
  def outer(self) -> tuple[int, ...]:
    """Axes of a matrix's result: those that neither repeat nor are summed over."""
    return tuple(i for i in range(self.stack, len(self.shape)) if i not in self.summed)

  @property
  def matrix(self) -> tuple[int, int]:
    """(out, in) of each matrix."""
    size = lambda axes: math.prod(self.shape[i] for i in axes)
    return size(self.outer), size(self.summed)

  @property
  def layer(self) -> "Leaf":
    """One layer of a stack of them."""
    summed = tuple(i - 1 for i in self.summed)
    return Leaf(self.shape[1:], self.axes[1:], self.stack - 1, summed, self.dtype)

  @property
  def stacked(self) -> tuple[int, ...]:
    """Sizes of the axes that repeat."""
    return self.shape[: self.stack]


class Quant(NamedTuple):
  """The form of a weight in few bits."""

  kind: str  # of `KINDS`
  block: int = 64  # values that share a scale; of int8, a row does
  double: bool = False  # whether the scales of nf4 and fp4 are in 8 bits themselves

  @property
  def spelled(self) -> str:
    """As users say it: "nf4-dq", "int4-32"."""
    block = "" if self.block == 64 else f"-{self.block}"
    return self.kind + block + "-dq" * self.double


class Adapter(NamedTuple):
  """The form of a low-rank adapter: arXiv:2106.09685; DoRA arXiv:2402.09353."""

  rank: int  # the largest in the stack; what has less is filled up with zeros
  dora: bool = False  # whether it has magnitudes
  bias: bool = False  # whether B has a bias


class Form(NamedTuple):
  """What of a tree is not as published; keys are names of `plain`."""

  quant: Mapping[str, Quant] = {}
  adapters: Mapping[str, Adapter] = {}


def plain(config: variants.ModelConfig) -> dict[str, Leaf]:
  """Every parameter by its slash-joined name, in the order of the published npz files."""
  return {**image(config.img, config.llm.width), **decoder(config.llm)}


def image(c: variants.ImageConfig, head_width: int | None) -> dict[str, Leaf]:
  """The image tower's, with a head to `head_width` = D (None: no head)."""
  L, W, M, A, h, P = c.depth, c.width, c.mlp_dim, c.num_heads, c.head_dim, c.patch_size
  attn, mlp = BLOCKS + "MultiHeadDotProductAttention_0/", BLOCKS + "MlpBlock_0/"
  layers = ("layers", "embed")
  leaves = {
    "img/embedding/kernel": Leaf((P, P, 3, W), (None, None, None, "embed"), 0, (0, 1, 2)),
    "img/embedding/bias": Leaf((W,), ("embed",)),
    "img/pos_embedding": Leaf((1, c.num_tokens, W), (None, "length", "embed")),
  }
  for norm in ("LayerNorm_0", "LayerNorm_1"):
    leaves |= {f"{BLOCKS}{norm}/{part}": Leaf((L, W), layers, 1) for part in ("scale", "bias")}
  heads = ("layers", "embed", "heads", "head_dim")
  for part in ("query", "key", "value"):
    leaves[f"{attn}{part}/kernel"] = Leaf((L, W, A, h), heads, 1, (1,))
    leaves[f"{attn}{part}/bias"] = Leaf((L, A, h), ("layers", "heads", "head_dim"), 1)
  heads = ("layers", "heads", "head_dim", "embed")
  leaves |= {
    attn + "out/kernel": Leaf((L, A, h, W), heads, 1, (1, 2)),
    attn + "out/bias": Leaf((L, W), layers, 1),
    mlp + "Dense_0/kernel": Leaf((L, W, M), ("layers", "embed", "mlp"), 1, (1,)),
    mlp + "Dense_0/bias": Leaf((L, M), ("layers", "mlp"), 1),
    mlp + "Dense_1/kernel": Leaf((L, M, W), ("layers", "mlp", "embed"), 1, (1,)),
    mlp + "Dense_1/bias": Leaf((L, W), layers, 1),
    "img/Transformer/encoder_norm/scale": Leaf((W,), ("embed",)),
    "img/Transformer/encoder_norm/bias": Leaf((W,), ("embed",)),
  }
  if head_width is not None:
    leaves["img/head/kernel"] = Leaf((W, head_width), ("embed", None), 0, (0,))
    leaves["img/head/bias"] = Leaf((head_width,), ("embed",))
  return leaves


def decoder(c: variants.DecoderConfig) -> dict[str, Leaf]:
  """The decoder's."""
  L, D, F, N, K, H = c.depth, c.width, c.mlp_dim, c.num_heads, c.num_kv_heads, c.head_dim
  norm = Leaf((L, D), ("layers", "embed"), 1)
  q, kv = (
    ("layers", "heads", "embed", "head_dim"),
    ("layers", None, "kv_heads", "embed", "head_dim"),
  )
  out = ("layers", "heads", "head_dim", "embed")
  leaves = {
    TABLE: Leaf((c.vocab_size, D), ("vocab", "embed"), 0, (0,)),
    LAYERS + "pre_attention_norm/scale": norm,
    LAYERS + "attn/q_einsum/w": Leaf((L, N, D, H), q, 1, (2,)),
    LAYERS + "attn/kv_einsum/w": Leaf((L, 2, K, D, H), kv, 2, (3,)),
    LAYERS + "attn/attn_vec_einsum/w": Leaf((L, N, H, D), out, 1, (1, 2)),
    LAYERS + "post_attention_norm/scale": norm,
    LAYERS + "pre_ffw_norm/scale": norm,
    LAYERS + "mlp/gating_einsum": Leaf((L, 2, D, F), ("layers", None, "embed", "mlp"), 2, (2,)),
    LAYERS + "mlp/linear": Leaf((L, F, D), ("layers", "mlp", "embed"), 1, (1,)),
    LAYERS + "post_ffw_norm/scale": norm,
    "llm/final_norm/scale": Leaf((D,), ("embed",)),
  }
  if not c.post_norms:
    del leaves[LAYERS + "post_attention_norm/scale"], leaves[LAYERS + "post_ffw_norm/scale"]
  return leaves


def shapes(leaves: Mapping[str, Leaf]) -> dict[str, tuple[int, ...]]:
  """Name -> shape."""
  return {name: leaf.shape for name, leaf in leaves.items()}


def param_shapes(config: variants.ModelConfig) -> dict[str, tuple[int, ...]]:
  """Name -> shape of every parameter of `plain`."""
  return shapes(plain(config))


def is_stacked(name: str) -> bool:
  """Whether the first axis of a parameter is that of the layers."""
  return name.startswith((BLOCKS, LAYERS))


def stack_of(name: str) -> int:
  """So many axes at the front of a parameter only repeat: `Leaf.stack`, known by the name alone."""
  pairs = ("attn/kv_einsum/", "mlp/gating_einsum")  # keys and values, gate and up
  return is_stacked(name) + name.removeprefix(LAYERS).startswith(pairs)


def formed(config: variants.ModelConfig, form: Form) -> dict[str, Leaf]:
  """The tree of `plain` with weights in few bits and adapters, in the order of `plain`."""
  leaves = {}
  for name, leaf in plain(config).items():
    if name in form.quant:
      leaves |= {f"{name}/{k}": x for k, x in quantised(leaf, form.quant[name]).items()}
    else:
      leaves[name] = leaf
    if name in form.adapters:
      leaves |= {f"{name}.lora/{k}": x for k, x in adapted(leaf, form.adapters[name]).items()}
  return leaves


def quantised(leaf: Leaf, quant: Quant) -> dict[str, Leaf]:
  """The arrays that stand for a weight in few bits."""
  out, into = leaf.matrix
  first = lambda axes: next((leaf.axes[i] for i in axes if leaf.axes[i] != "head_dim"), None)
  stack, n = leaf.axes[: leaf.stack], leaf.stack
  rows, columns = first(leaf.outer), first(leaf.summed)

  def part(dtype, shape, axes):
    axes = axes if shape[0] == out else (None, None)  # flattened
    return Leaf((*leaf.stacked, *shape), (*stack, *axes), n, (), dtype)

  if quant.kind == "int8":
    codes, absmax = part("int8", (out, into), (rows, columns)), part("float32", (out,), (rows,))
    return {"int8": codes, "absmax": absmax}
  codes = (out, into // 2) if into % 2 == 0 else (1, -(-out * into // 2))
  blocks = (out, into // quant.block)
  if into % quant.block:
    blocks = (1, -(-out * into // quant.block))
  scales = "uint8" if quant.double else "bfloat16" if quant.kind == "int4" else "float32"
  # Blocks of a row are few and seldom divide over devices where its values do: they have no name.
  parts = {
    quant.kind: part("uint8", codes, (rows, columns)),
    "absmax": part(scales, blocks, (rows, None)),
  }
  if quant.double:
    nested = (*leaf.stacked, -(-math.prod(blocks) // NESTED))
    parts |= {
      "nested": Leaf(nested, (*stack, None), n, (), "float32"),
      "offset": Leaf(leaf.stacked, stack, n, (), "float32"),
    }
  return parts


def adapted(leaf: Leaf, adapter: Adapter) -> dict[str, Leaf]:
  """The arrays of an adapter of a weight."""
  stack = tuple(range(leaf.stack))

  def part(*dims):  # axes of the weight, None for the rank
    shape = tuple(adapter.rank if i is None else leaf.shape[i] for i in (*stack, *dims))
    axes = tuple(None if i is None else leaf.axes[i] for i in (*stack, *dims))
    return Leaf(shape, axes, leaf.stack, (), "float32")

  parts = {"a": part(*leaf.summed, None), "b": part(None, *leaf.outer), "scale": part()}
  if adapter.dora:
    parts["m"] = part(*leaf.outer)
  if adapter.bias:
    parts["bias"] = part(*leaf.outer)
  return parts


def form_of(shapes: Mapping[str, tuple[int, ...]]) -> Form:
  """The form of a tree, from the names and shapes of its arrays; inverse of `formed`."""
  quant, adapters = {}, {}
  for name, shape in shapes.items():
    base, _, part = name.rpartition("/")
    if part in KINDS:
      scales = shapes[f"{base}/absmax"]
      block = 64 if part == "int8" else block_size(shape, scales)
      quant[base] = Quant(part, block, f"{base}/nested" in shapes)
    elif base.endswith(".lora") and part == "a":
      dora, bias = (f"{base}/{k}" in shapes for k in ("m", "bias"))
      adapters[base.removesuffix(".lora")] = Adapter(shape[-1], dora, bias)
  return Form(quant, adapters)


def block_size(codes: tuple[int, ...], scales: tuple[int, ...]) -> int:
  """Values that share a scale, from the shapes of packed codes and of scales: a power of two."""
  values, blocks = 2 * math.prod(codes[-2:]), math.prod(scales[-2:])
  return next(b for b in (2**i for i in range(4, 13)) if -(-values // b) <= blocks)


_QUANT = re.compile(r"(int8|int4(?:-32)?|(?:nf4|fp4)(?:-dq)?)(?::(.+))?")
# Named sets of `matrices`. "all" is what transformers quantises with bitsandbytes.
PARTS = {
  "all": r".*",
  "decoder": r"llm/layers/.*",
  "attention": r"llm/layers/attn/.*",
  "mlp": r"llm/layers/mlp/.*",
}


def check_quant(text: str) -> tuple[Quant, str]:
  """(form, parts) of a text that `parse_quant` takes.

  Raises:
    UserError: an unknown kind.
  """
  match = _QUANT.fullmatch(text)
  if not match:
    known = "int8, int4, int4-32, nf4, nf4-dq, fp4, fp4-dq"
    raise errors.UserError(
      f'quant "{text}" is unknown; write KIND or KIND:PARTS, KIND of {known},'
      f" PARTS of {', '.join(PARTS)} or a regex of parameter names"
    )
  kind, _, option = match[1].partition("-")
  return Quant(kind, 32 if option == "32" else 64, option == "dq"), match[2] or "all"


def parse_quant(text: str, config: variants.ModelConfig) -> dict[str, Quant]:
  """The weights that a "KIND" or "KIND:PARTS" quantises, and how: name -> form.

  Args:
    text: KIND is "int8", "int4", "int4-32" (blocks of 32), "nf4" or "fp4", or one of these two with
      "-dq", double quantisation; PARTS a key of `PARTS`, or a regex of whole parameter names.
    config: of the model.

  Raises:
    UserError: an unknown kind, a regex that is none or that matches no matrix.
  """
  quant, parts = check_quant(text)
  known = {name: (name,) for name in matrices(config)}
  return dict.fromkeys(select(parts, known, PARTS, f'quant "{text}"'), quant)


def matrices(config: variants.ModelConfig) -> dict[str, Leaf]:
  """The weights of linear layers: what can be quantised. Neither the table nor the convolution."""
  leaves = plain(config)
  return {
    name: leaf
    for name, leaf in leaves.items()
    if leaf.summed and name not in (TABLE, "img/embedding/kernel")
  }


def select(
  parts: str, known: Mapping[str, Iterable[str]], sets: Mapping[str, str], what: str
) -> list[str]:
  """Those of `known` that a named set, or else a regex of whole names, matches.

  Args:
    parts: a key of `sets`, or a regex.
    known: key -> the names that it goes by.
    sets: name -> regex.
    what: first words of the message, says who asks.

  Raises:
    UserError: the regex is none, or matches nothing.
  """
  try:
    pattern = re.compile(sets.get(parts, parts))
  except re.error as e:
    raise errors.UserError(f'{what}: "{parts}" is no regular expression ({e})') from None
  chosen = [key for key, names in known.items() if any(map(pattern.fullmatch, names))]
  if not chosen:
    hint = errors.did_you_mean(parts, [*sets, *known], limit=4)
    raise errors.UserError(
      f'{what}: "{parts}" is no named set ({", ".join(sets)}) and matches no whole name{hint}'
    )
  return chosen
