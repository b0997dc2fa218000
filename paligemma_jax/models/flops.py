"""The arithmetic of a training step, a prefill and a decoded token, from the dimensions alone.

The compiler cannot be asked: it counts the body of a scan once, whatever its length. What counts
here is every product of matrices, as 2 operations per multiply-add, that

- the image tower: patch embedding, queries, keys, values, output, both MLP layers;
- the linear head;
- the decoder: queries, keys and values of the kv heads, output, gate, up and down;
- attention: scores and weighted values of all pairs of positions, whatever the mask hides;
- the logits: at the supervised positions in training, at one in decoding; at those alone the last
  layer of the decoder has more than keys and values

consist of. Norms, activations, softmax, the lookup of embeddings and the optimizer do not count
(well under 1 % at the published sizes). The backward pass is a product for the gradient of the input where
anything before it trains, and one for the gradient of the weight where that trains: twice the
forward pass when everything does. An adapter adds two small products to that of its weight (`adapted`).
Products that the backward pass repeats because their results
were not kept are counted apart: the hardware does them, but MFU, model FLOPs utilisation
(arXiv:2204.02311, appendix B), leaves them out.
"""

import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from paligemma_jax.models import attention, tree, variants

EMBEDDING = tree.TABLE
_IMG, _LLM = tree.BLOCKS, tree.LAYERS
_ATTN = _IMG + "MultiHeadDotProductAttention_0/"
_SCORES = ("scores", "values")  # last parts of the names of products without a weight


class Product(NamedTuple):
  """`times` products [rows, inner] x [inner, cols] in the forward pass of one example."""

  name: str  # of the weight; …/scores and …/values multiply two activations
  times: int
  rows: int
  inner: int
  cols: int
  rights: int  # different right sides among them: images share a layer's weight, heads a kv head

  @property
  def flops(self) -> int:
    """Operations of all of them."""
    return 2 * self.times * self.rows * self.inner * self.cols

  @property
  def has_weight(self) -> bool:
    """Whether the right side is a parameter."""
    return not self.name.endswith(_SCORES)

  @property
  def activations(self) -> int:
    """Elements that go in and come out, weights apart; attention's probabilities stay on the chip."""
    left = self.times * self.rows * (0 if self.name.endswith("/values") else self.inner)
    out = self.times * self.rows * (0 if self.name.endswith("/scores") else self.cols)
    return left + out + (0 if self.has_weight else self.rights * self.inner * self.cols)

  @property
  def weights(self) -> int:
    """Elements of the parameters that go in, however large the batch is."""
    return self.rights * self.inner * self.cols if self.has_weight else 0


class Passes(NamedTuple):
  """How often a training step does a product of the forward pass."""

  forward: int  # 1
  backward: int  # gradients of its two sides: 0 to 2
  recompute: int  # how often the backward pass repeats it because it needs the result: 0 to 2


class Flops(NamedTuple):
  """Operations of a training step over the whole batch."""

  forward: int
  backward: int
  recompute: int

  @property
  def model(self) -> int:
    """What has to be computed: the numerator of MFU."""
    return self.forward + self.backward

  @property
  def hardware(self) -> int:
    """What is computed."""
    return self.model + self.recompute


def forward(
  config: variants.ModelConfig, text_len: int, images: int = 1, supervised: int | None = None
) -> list[Product]:
  """The products of one example's forward pass.

  Args:
    config: dimensions.
    text_len: T, text tokens that go in.
    images: pictures or frames of an example.
    supervised: positions whose logits are computed; None: all T.
  """
  asked = text_len if supervised is None else supervised
  return [
    *image_products(config.img, config.llm.width, images),
    *decoder_products(config.llm, images * config.img.num_tokens + text_len, asked=asked),
    logits(config.llm, asked),
  ]


def image_products(c: variants.ImageConfig, head_width: int, images: int = 1) -> list[Product]:
  """Those of the image tower and the head to `head_width` = D."""
  L, W, M, A, h = c.num_tokens, c.width, c.mlp_dim, c.num_heads, c.head_dim
  depth, times, pixels = c.depth, images * c.depth, c.patch_size**2 * 3
  return [
    Product("img/embedding/kernel", images, L, pixels, W, 1),
    *(
      Product(f"{_ATTN}{part}/kernel", times, L, W, W, depth) for part in ("query", "key", "value")
    ),
    Product(_ATTN + "scores", times * A, L, h, L, times * A),
    Product(_ATTN + "values", times * A, L, L, h, times * A),
    Product(_ATTN + "out/kernel", times, L, W, W, depth),
    Product(_IMG + "MlpBlock_0/Dense_0/kernel", times, L, W, M, depth),
    Product(_IMG + "MlpBlock_0/Dense_1/kernel", times, L, M, W, depth),
    Product("img/head/kernel", images, L, W, head_width, 1),
  ]


def decoder_products(
  c: variants.DecoderConfig, rows: int, keys: int | None = None, asked: int | None = None
) -> list[Product]:
  """Those of the decoder's layers for `rows` positions that attend to `keys` (None: each other).

  The last layer computes the result of `asked` of them; None: of all.
  """
  L, D, F, N, K, H = c.depth, c.width, c.mlp_dim, c.num_heads, c.num_kv_heads, c.head_dim
  S = rows if keys is None else keys
  asked = rows if asked is None else asked
  products = [Product(_LLM + "attn/kv_einsum/w", L, rows, D, 2 * K * H, L)]
  for depth, R in ((L, rows),) if asked == rows else ((L - 1, rows), (1, asked)):
    products += [
      Product(_LLM + "attn/q_einsum/w", depth, R, D, N * H, depth),
      Product(_LLM + "attn/scores", depth * N, R, H, S, depth * K),
      Product(_LLM + "attn/values", depth * N, R, S, H, depth * K),
      Product(_LLM + "attn/attn_vec_einsum/w", depth, R, N * H, D, depth),
      Product(_LLM + "mlp/gating_einsum", depth, R, D, 2 * F, depth),
      Product(_LLM + "mlp/linear", depth, R, F, D, depth),
    ]
  return products


def logits(c: variants.DecoderConfig, rows: int) -> Product:
  """The product with the table of embeddings."""
  return Product(EMBEDDING, 1, rows, c.width, c.vocab_size, 1)


def adapted(products: Sequence[Product], adapters: Mapping[str, tree.Adapter]) -> list[Product]:
  """`products` with those of low-rank adapters, (x A) B, behind that of their weight.

  Not counted: the adapter of the table, of which rows are looked up, and what DoRA does once a step,
  whatever the batch.
  """
  found = []
  for p in products:
    found.append(p)
    if p.name in adapters and p.name != EMBEDDING:
      n = 2 if tree.stack_of(p.name) == 2 else 1  # matrices that `p` takes together
      small = p._replace(times=n * p.times, rights=n * p.rights)
      rank = adapters[p.name].rank
      found.append(small._replace(name=f"{p.name}.lora/a", cols=rank))
      found.append(small._replace(name=f"{p.name}.lora/b", inner=rank, cols=p.cols // n))
  return found


def passes(
  config: variants.ModelConfig,
  products: Sequence[Product],
  trained: Iterable[str] | None = None,
  remat: str = "nothing_saveable",
  remat_img: str = "",
  kernel: bool = False,
  few_bits: Collection[str] = (),
) -> list[Passes]:
  """How often a training step does each of `products`.

  In a stack of layers the gradient runs through all of them as soon as one of its parameters
  trains. The logits are always computed a second time (`models/loss.py`), and so are the scores
  of attention in blocks (`models/attention.py`), beside what `remat` asks for. The TPU's kernel
  computes the scores in each of its two backward passes, and in both the gradient of the
  probabilities, which is a product as large as that of the values. That the CPU's form computes the
  scores once more is left out: no roofline is drawn for a CPU.

  Args:
    config: dimensions.
    products: as `forward` or `adapted` gives them.
    trained: names of the parameters that train; None: all.
    remat: the model's policy; one that is not known here counts like "nothing_saveable".
    remat_img: the image tower's; "" for the same.
    kernel: whether attention over many image tokens runs in the TPU's kernel (`attention.attend`).
    few_bits: names of weights in few bits, whose products no policy recognises as such.
  """
  kernel = kernel and config.img.num_tokens >= attention.KERNEL
  trained = set(tree.param_shapes(config) if trained is None else trained)

  def any_in(*prefixes):
    return any(name.startswith(prefixes) for name in trained)

  tower = any_in("img/embedding", "img/pos_embedding", _IMG)
  image = tower or any_in("img/")
  decoder = image or any_in(_LLM, EMBEDDING)
  reached = {  # whether the gradient of what goes in is needed
    "img/embedding/kernel": False,
    _IMG: tower,
    "img/head/kernel": tower or any_in("img/Transformer/encoder_norm"),
    _LLM: decoder,
    EMBEDDING: decoder or any_in("llm/final_norm"),
  }

  def again(p, policy):
    return _repeats(config, p, policy, trained, kernel, few_bits)

  def one(p):
    into = next(needed for prefix, needed in reached.items() if p.name.startswith(prefix))
    into = into or p.name.endswith(".lora/b")  # what A makes
    backward = into + (p.name in trained) if p.has_weight else 2 * into
    policy = remat_img if remat_img and p.name.startswith("img/") else remat
    return Passes(1, backward, again(p, policy) if backward else 0)

  return [one(p) for p in products]


def _repeats(
  config: variants.ModelConfig,
  p: Product,
  remat: str,
  trained: set[str],
  kernel: bool,
  few_bits: Collection[str],
) -> int:
  """How often a backward pass through the product computes its result again."""
  if p.name == EMBEDDING:
    return 1
  if not p.name.startswith((_IMG, _LLM)):
    return 0
  if (
    kernel and not p.has_weight and p.rows >= attention.KERNEL
  ):  # it is no product of matrices to the policies about those
    return (2 if p.name.endswith("scores") else 1) + (remat not in ("none", "everything_saveable"))
  in_blocks = p.name.endswith("scores") and p.rows * p.cols > attention.LARGEST
  return in_blocks + _rematerialises(config, p, remat, trained, few_bits)


_READ_VALUES = ("out/kernel", "attn_vec_einsum/w")  # of attention: their gradients


def _rematerialises(
  config, p: Product, remat: str, trained: set[str], few_bits: Collection[str]
) -> bool:
  weight, _, part = p.name.partition(".lora/")
  if part == "a" and remat == "none":  # `products.of_normed`; B's gradient reads the result
    return not weight.endswith(_READ_VALUES)
  if remat in ("none", "everything_saveable"):
    return False
  if remat == "dots_saveable" and p.name not in few_bits:
    return False
  if remat == "dots_with_no_batch_dims_saveable" and p.name not in few_bits:
    tower, _, name = p.name.rpartition("/")
    out = [f"{tower}/{w}{end}" for w in _READ_VALUES for end in ("", ".lora/a")]
    is_read = not trained.isdisjoint(out) or not set(out).isdisjoint(few_bits)
    return name == "scores" or name == "values" and is_read
  # What is only added to the residual stream is not needed again; a norm's input is.
  is_last = part != "a" and weight.endswith(("Dense_1/kernel", "mlp/linear"))
  return not is_last or (p.name.startswith(_LLM) and config.llm.post_norms)


def train_step(
  config: variants.ModelConfig,
  *,
  batch_size: int,
  text_len: int,
  images: int = 1,
  supervised: int | None = None,
  trained: Iterable[str] | None = None,
  remat: str = "nothing_saveable",
  remat_img: str = "",
  adapters: Mapping[str, tree.Adapter] = types.MappingProxyType({}),
) -> Flops:
  """Operations of one training step; arguments as `forward`, `passes` and `adapted`, `batch_size` global."""
  products = adapted(forward(config, text_len, images, supervised), adapters)
  counts = passes(config, products, trained, remat, remat_img)
  return Flops(
    *(
      batch_size * sum(p.flops * n for p, n in zip(products, column))
      for column in zip(*counts, strict=True)
    )
  )


def prefill(
  config: variants.ModelConfig, *, batch_size: int, text_len: int, images: int = 1
) -> int:
  """Operations of reading a batch of prompts: as a forward pass with the logits of one position."""
  return batch_size * sum(p.flops for p in forward(config, text_len, images, supervised=1))


def decode_products(
  config: variants.ModelConfig, context: int, sequences: int = 1
) -> list[Product]:
  """Those of one further token of each of a row's sequences (beams), which attend to `context`
  columns of the cache.
  """
  products = [*decoder_products(config.llm, 1, context), logits(config.llm, 1)]
  return [
    p._replace(times=p.times * sequences, rights=p.rights * (1 if p.has_weight else sequences))
    for p in products
  ]


def decode(
  config: variants.ModelConfig,
  *,
  batch_size: int,
  text_len: int,
  new_tokens: int,
  images: int = 1,
) -> int:
  """Operations of `new_tokens` tokens after `prefill`, whose logits give the first of them.

  The loop attends to the whole cache, free columns included, so every token costs the same.
  """
  context = images * config.img.num_tokens + text_len + new_tokens
  each = sum(p.flops for p in decode_products(config, context))
  return batch_size * (new_tokens - 1) * each
