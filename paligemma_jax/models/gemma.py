"""The Gemma decoder. Gemma report, arXiv:2403.08295, section 2; Gemma 2, arXiv:2408.00118, section 2.

Letters: B batch, T query position, S key position (columns of the cache), D width, F hidden,
N query heads, K kv heads, H head width, V vocabulary. Parameter names are those of the released
npz files (big_vision models/ppp/gemma.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import sharding
from paligemma_jax.models import attention, gemma_block, kv_cache, scan, variants, weights


class Embedder(nn.Module):
  """The table of token embeddings, used at both ends."""

  vocab_size: int
  width: int

  def setup(self):
    init = nn.initializers.normal(self.width**-0.5)
    shape = (self.vocab_size, self.width)
    self.table, self.lora = weights.of(self, "input_embedding", init, shape)

  def encode(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Token embeddings times sqrt(D), float32. An adapter is met here, not by the logits."""
    x = jnp.take(self.table, tokens, axis=0).astype(jnp.float32)
    if self.lora is not None:
      a = jnp.take(self.lora["a"], tokens, axis=0)
      x = x + self.lora["scale"] * (a @ self.lora["b"])
    return x * self.width**0.5

  def decode(self, x: Float[Array, "*b D"], dtype: str) -> Float[Array, "*b V"]:
    """Logits, product in `dtype`, result float32, without soft-cap."""
    table, x = jnp.asarray(self.table, dtype), x.astype(dtype)
    if x.ndim != 2:
      return jnp.einsum("...D,VD->...V", x, table, preferred_element_type=jnp.float32)
    # One position per row, as in decoding: a few rows times the table take half as long this way
    # round on CPU. Without the barrier the compiler turns it back.
    logits = jnp.einsum("VD,BD->VB", table, x, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(logits).T


class Decoder(nn.Module):
  """Embedding, decoder layers, final norm, logits.

  Attributes:
    config: dimensions and settings.
    dtype: of the products; norms, residual stream, softmax and logits are float32.
    remat: policy name, "none" off.
    dropout: rate, after attention and after the MLP.
    rules: logical axis -> mesh axis; None: unconstrained.
    drop_adapters: rate of dropout of what goes into adapters.
  """

  config: variants.DecoderConfig
  dtype: str = "float32"
  remat: str = "nothing_saveable"
  dropout: float = 0.0
  rules: sharding.Rules = None
  drop_adapters: float = 0.0

  def setup(self):
    c = self.config
    self.embedder = Embedder(c.vocab_size, c.width)
    # Only for the parameters: `__call__` has a loop of its own.
    stack = scan.blocks(gemma_block.ScannedBlock, "none", c.depth, (0, *[nn.broadcast] * 5))
    self.layers = stack(c, self.dtype, self.dropout, self.rules, self.remat)
    self.final_norm = gemma_block.RMSNorm()

  def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Token embeddings times sqrt(D), float32."""
    return self.embedder.encode(tokens)

  def logits(self, x: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
    """Logits of normed hidden states, float32, with the final soft-cap if the model has one."""
    logits = self.embedder.decode(x, self.dtype)
    return attention.soft_capped(logits, self.config.final_logits_softcap)

  def __call__(
    self,
    x: Float[Array, "B S D"],
    mask_input: Bool[Array, "B S"],
    mask_ar: Int[Array, "B S"],
    rows: Int[Array, "B R"],
    num_image: int = 0,
    train: bool = False,
  ) -> Float[Array, "B R D"]:
    """Embedded sequence, `num_image` image tokens first -> hidden states after the final norm.

    Only those of the positions `rows` exist: of the others, the last layer has keys and values.
    """
    position, mask, windowed = self._masks(mask_input, mask_ar)
    if self.is_initializing():
      x, _ = self.layers(x, self._sliding(), position, mask, windowed, num_image, False)
      return self.final_norm(gemma_block.at(x, rows))
    forms = self.dtype, self.dropout, self.rules, self.remat, False, self.drop_adapters
    block = gemma_block.Block(self.config, *forms, parent=None)
    drops = train and max(self.dropout, self.drop_adapters) > 0
    key = jax.random.key_data(self.make_rng("dropout")) if drops else None

    def layer(params, x, i, args, rows=None):
      position, mask, windowed, key, _ = args
      rngs = {"dropout": jax.random.fold_in(jax.random.wrap_key_data(key), i)} if drops else {}
      args = position, mask, windowed, None, 0, num_image, train, rows
      return block.apply({"params": params}, x, i % 2 == 0, *args, rngs=rngs)[0]

    def last(params, x, i, args):
      return layer(params, x, i, args, rows=args[-1])

    args = position, mask, windowed, key, rows
    x = scan.walk(layer, last, self.variables["params"]["layers"], x, args, self.remat)
    return self.final_norm(x)

  def prefill(
    self,
    x: Float[Array, "B P D"],
    mask_input: Bool[Array, "B P"],
    mask_ar: Int[Array, "B P"],
    num_image: int,
    cache_size: int,
    cache_dtype: str | None = None,
  ) -> tuple[Float[Array, "B D"], kv_cache.Cache]:
    """As `__call__` for the last token of every row, and keeps keys and values in a cache.

    The cache has `cache_size` further columns.
    """
    position, mask, windowed = self._masks(mask_input, mask_ar)
    columns = jnp.arange(x.shape[1])[None, :]
    last = jnp.max(jnp.where(mask_input, columns, 0), axis=1)[:, None]
    keys, values = [], []
    for i, layer in enumerate(self._layer_params()):
      rows = last if i == self.config.depth - 1 else None
      args = jnp.array(i % 2 == 0), position, mask, windowed, None, 0, num_image
      x, kv = self._block(layer, x, *args, rows=rows)
      k, v = kv_cache.cached(*kv, cache_dtype or self.dtype)
      keys.append(jnp.pad(k, ((0, 0), (0, 0), (0, cache_size))))
      values.append(jnp.pad(v, ((0, 0), (0, cache_size), (0, 0))))
    stored = jnp.where(mask_input, position, -1)
    stored = jnp.pad(stored, ((0, 0), (0, cache_size)), constant_values=-1)
    length = jnp.sum(mask_input, axis=1, dtype=jnp.int32)
    column = jnp.array(columns.size, dtype=jnp.int32)
    cache = kv_cache.Cache(tuple(keys), tuple(values), stored, length, column)
    return self.final_norm(x[:, 0]), cache

  def extend(
    self, x: Float[Array, "B 1 D"], cache: kv_cache.Cache
  ) -> tuple[Float[Array, "B 1 D"], kv_cache.Cache]:
    """One more token per row: it sees every token of the cache and itself."""
    position = cache.length[:, None]
    stored = jax.lax.dynamic_update_slice(cache.position, position, (0, cache.column))
    x, keys, values = self._over(cache, x, position, stored, (stored >= 0)[:, None, :])
    return x, kv_cache.Cache(keys, values, stored, cache.length + 1, cache.column + 1)

  def branch(
    self,
    x: Float[Array, "B T D"],
    cache: kv_cache.Cache,
    group: Int[Array, "B T"],
    depth: Int[Array, "B T"],
  ) -> Float[Array, "B T D"]:
    """Several continuations of every row in one pass: each sees the cache and itself.

    Args:
      x: embedded tokens of all continuations, in any order.
      cache: with room for T tokens; it is only read.
      group: which continuation a token belongs to.
      depth: how many tokens of it come before this one.
    """
    position = cache.length[:, None] + depth
    stored = jax.lax.dynamic_update_slice(cache.position, position, (0, cache.column))
    own = (group[:, :, None] == group[:, None, :]) & (depth[:, :, None] >= depth[:, None, :])
    old = jnp.broadcast_to((cache.position >= 0)[:, None, :], (*depth.shape, stored.shape[1]))
    mask = jax.lax.dynamic_update_slice(old, own, (0, 0, cache.column))
    return self._over(cache, x, position, stored, mask)[0]

  def _over(self, cache, x, position, stored, mask):
    """New tokens over a cache: hidden states after the final norm, and every layer's keys, values.

    Args:
      cache: what was before; the tokens go into its columns from `cache.column` on.
      x: float32[B, T, D], embedded.
      position: int32[B, T], theirs.
      stored: int32[B, S], positions of all columns, theirs included.
      mask: bool[B, T, S], what they see without a window; T may be 1.
    """
    windowed, window, keys, values = None, self.config.sliding_window, [], []
    if window:
      windowed = mask & (position[:, :, None] - stored[:, None, :] < window)
    for i, layer in enumerate(self._layer_params()):
      kv = (cache.keys[i], cache.values[i])
      sliding = jnp.array(i % 2 == 0)
      x, (k, v) = self._block(layer, x, sliding, position, mask, windowed, kv, cache.column, 0)
      keys.append(k)
      values.append(v)
    return self.final_norm(x), tuple(keys), tuple(values)

  def _masks(self, mask_input, mask_ar):
    position = attention.positions(mask_input)
    mask = attention.block_mask(mask_input, mask_ar)
    window = self.config.sliding_window
    windowed = attention.window_mask(mask, mask_ar, position, window) if window else None
    return position, mask, windowed

  def _sliding(self) -> Bool[Array, " L"]:
    return jnp.arange(self.config.depth) % 2 == 0  # Gemma 2: layers 0, 2, 4, … have the window

  def _block(self, layer, x, *args, rows=None):
    block = gemma_block.Block(self.config, self.dtype, 0.0, self.rules, decoding=True, parent=None)
    return block.apply({"params": layer}, x, *args, False, rows)

  def _layer_params(self) -> list[dict]:
    """The parameters layer by layer, from the stacked or the per-layer layout."""
    layers = self.variables["params"]["layers"]
    depth = self.config.depth
    if "0" in layers:
      return [layers[str(i)] for i in range(depth)]
    return [jax.tree.map(lambda p, i=i: p[i], layers) for i in range(depth)]
