"""Makes the table "what fits" of docs/plan.md: the largest batch that trains on one device, counted.

  python scripts/what_fits.py

Takes seconds, compiles nothing. Counted are bytes:

- the state: parameters, gradients, optimizer (`recipes.bytes_needed`);
- once: a layer's weights in bfloat16, or its widest matrix as it is widened from few bits to
  float32 and bfloat16; the table in bfloat16 and its gradient where it trains; the loss's pieces;
- for every example, under remat `nothing_saveable`, the residual stream between layers in float32,
  and of the layer whose backward pass needs most: 6 arrays of the gated layer's hidden width in
  bfloat16, and attention's scores where they exist.
"""

import math
import pathlib

import numpy as np

from paligemma_jax.models import attention, loss, tree, variants
from paligemma_jax.train import chips, recipes

MODELS = ("paligemma-3b", "paligemma2-3b", "paligemma2-10b", "paligemma2-28b")
RESOLUTIONS = (224, 448, 896)
RECIPES = ("full", "attention_sgd", "lora", "qlora")
TEXT = 128  # tokens
USABLE = 0.92  # of a GPU's memory: context, allocator and fragmentation take the rest (chosen)
CARDS = (16, 24, 40, 80, 141)  # GB of 1e9 bytes
V5E = next(c.memory for c in chips.CHIPS if c.name == "v5e")
BEGIN, END = "<!-- what_fits.py begins -->\n", "<!-- what_fits.py ends -->"
PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "plan.md"


def of_example(c: variants.ModelConfig, text: int = TEXT, kernel: bool = False) -> int:
  """Bytes of activations of one example; `kernel`: on a TPU, where image tokens have one."""
  L, S = c.img.num_tokens, c.img.num_tokens + text
  kept = 4 * (c.img.depth * L * c.img.width + c.llm.depth * S * c.llm.width)
  kernel = kernel and L >= attention.KERNEL
  tower = _layer(8 * L * c.img.mlp_dim, c.img.num_heads, 0 if kernel else L, L)
  decoder = _layer(12 * S * c.llm.mlp_dim, c.llm.num_heads, text if kernel else S, S)
  return kept + max(tower, decoder)


def _layer(mlp: int, heads: int, rows: int, keys: int) -> int:
  """Of the gated layer with attention's scores (float32) and probabilities (bfloat16) waiting, or
  of attention itself, which has the gradients of both besides.
  """
  if rows * keys > attention.LARGEST:  # in blocks, which do not wait
    return max(mlp, 14 * heads * attention.BLOCK * keys)
  return max(mlp + 6 * heads * rows * keys, 14 * heads * rows * keys)


def once(c: variants.ModelConfig, recipe: str) -> int:
  """Bytes of temporaries that do not grow with the batch."""
  layers = {n: x for n, x in tree.plain(c).items() if n.startswith(tree.LAYERS)}
  if recipes.RECIPES[recipe].quant:
    wide = 6 * max(math.prod(x.matrix) for x in layers.values() if x.summed)
  else:
    wide = 2 * sum(math.prod(x.shape) for x in layers.values()) // c.llm.depth
  table = 2 * 2 * c.llm.vocab_size * c.llm.width if recipe == "full" else 0
  return wide + table + 3 * 4 * loss.PIECE


def largest(c: variants.ModelConfig, recipe: str, memory: float, kernel: bool = False) -> int:
  """The largest batch that fits into so many bytes; 0: none."""
  free = memory - recipes.bytes_needed(c, recipe).total - once(c, recipe)
  return max(int(np.floor(free / of_example(c, kernel=kernel))), 0)


def table() -> str:
  """Markdown: a row for every model, resolution and recipe."""
  heads = ["model", "px", "recipe", "state GB", "MB an example", *(f"{n} GB" for n in CARDS), "v5e"]
  rows = [heads, ["---"] * len(heads)]
  for name in MODELS:
    for res in RESOLUTIONS:
      c = variants.preset(name, res)
      for recipe in RECIPES:
        state = recipes.bytes_needed(c, recipe).total / 1e9
        sizes = [largest(c, recipe, USABLE * n * 1e9) for n in CARDS]
        sizes.append(largest(c, recipe, V5E, kernel=True))
        cells = [name, res, recipe, f"{state:.1f}", f"{of_example(c) / 1e6:.0f}"]
        rows.append([*cells, *(n or "–" for n in sizes)])
  return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


def main() -> None:
  before, rest = PAGE.read_text().split(BEGIN)
  made = table()
  print(made)
  PAGE.write_text(before + BEGIN + made + END + rest.split(END)[1])


if __name__ == "__main__":
  main()
