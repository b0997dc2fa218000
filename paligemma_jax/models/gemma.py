"""The Gemma decoder. Gemma report, arXiv:2403.08295, section 2; Gemma 2, arXiv:2408.00118, section 2.

Letters: B batch, T query position, S key position (columns of the cache), D width, F hidden,
N query heads, K kv heads, H head width, V vocabulary. Parameter names are those of the released
npz files (big_vision models/ppp/gemma.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import sharding
from paligemma_jax.models import attention, kv_cache, products, siglip, variants


def rope(x: Float[Array, "B T N H"], position: Int[Array, "B T"]) -> Float[Array, "B T N H"]:
  """Rotary position embedding, base 10000, on the two halves of H; float32 inside.

  Source: arXiv:2104.09864; big_vision models/ppp/gemma.py (halves, not interleaved).
  """
  H = x.shape[-1]
  timescale = 10_000 ** (2 * jnp.arange(H // 2, dtype=jnp.float32) / H)
  angle = position[..., None, None].astype(jnp.float32) / timescale[None, None, None, :]
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  x1, x2 = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)


@jax.checkpoint  # only `x` is kept for the backward pass
def rms_norm(x: Float[Array, "*b D"], scale: Float[Array, " D"]) -> Float[Array, "*b D"]:
  """x / rms(x) * (1 + scale), epsilon 1e-6, float32 whatever the storage."""
  x = x.astype(jnp.float32)
  x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
  return x * jnp.expand_dims(1 + scale.astype(jnp.float32), range(x.ndim - 1))


class RMSNorm(nn.Module):
  """`rms_norm` with its parameter."""

  @nn.compact
  def scale(self, width: int) -> ArrayLike:
    """float[D], D = `width`."""
    return self.param("scale", nn.initializers.zeros, (width,))

  def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    return rms_norm(x, self.scale(x.shape[-1]))


def in_place(x: Float[Array, "B T D"], w: Float[Array, "*n D H"]) -> Float[Array, "*n B T H"]:
  """The product of `x` with each of several matrices [D, H], reading them where they are.

  An einsum makes one wide product of them, for which the compiler (CPU, GPU) first transposes a
  copy of the weights: as large as the weights, and slower than the product when T is small. The
  gradient of this form is larger, so training keeps the einsum.
  """
  stack = w.reshape(-1, *w.shape[-2:])
  many = jnp.broadcast_to(x[None], (len(stack), *x.shape))
  return jnp.einsum("nBTD,nDH->nBTH", many, stack).reshape(*w.shape[:-2], *x.shape[:2], -1)


class Weight(nn.Module):
  """One weight, named `w`, as stored."""

  shape: tuple[int, ...]
  fan_in: tuple[int, ...]  # axes that are summed over

  @nn.compact
  def __call__(self) -> ArrayLike:
    batch = tuple(i for i in range(len(self.shape) - 1) if i not in self.fan_in)
    init = nn.initializers.lecun_normal(in_axis=self.fan_in, out_axis=-1, batch_axis=batch)
    return self.param("w", init, self.shape)


class Attention(nn.Module):
  """Grouped-query attention with RoPE and, in Gemma 2, a soft-cap on the logits."""

  config: variants.DecoderConfig
  dtype: str
  rules: sharding.Rules = None
  remat: str = "none"
  decoding: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    scale: ArrayLike,
    position: Int[Array, "B T"],
    mask: Bool[Array, "B T S"],
    kv: tuple[jax.Array, jax.Array] | None = None,
    column: jax.Array | int = 0,
    num_image: int = 0,
  ) -> tuple[Float[Array, "B T D"], tuple[jax.Array, jax.Array]]:
    """Attention of `rms_norm(x, scale)`; the other arguments are those of `Block`."""
    c, D = self.config, x.shape[-1]
    N, K, H = c.num_heads, c.num_kv_heads, c.head_dim
    weights = (
      Weight((N, D, H), (1,), name="q_einsum")(),
      Weight((2, K, D, H), (2,), name="kv_einsum")(),
    )

    def project(x, scale, weights):
      x = rms_norm(x, scale).astype(self.dtype)
      w_q, w_kv = (jnp.asarray(w, self.dtype) for w in weights)
      if self.decoding:  # [(g,) N, B, T, H] -> [(g,) B, T, N, H]
        return tuple(jnp.moveaxis(in_place(x, w), -4, -2) for w in (w_q, w_kv))
      return jnp.einsum("BTD,NDH->BTNH", x, w_q), jnp.einsum("BTD,gKDH->gBTKH", x, w_kv)

    q, (k, v) = products.of_normed(project, self.remat)(x, scale, weights)
    q = rope(q, position) * jnp.asarray(c.query_scale, q.dtype)
    k = rope(k, position)
    cap = c.attn_logits_softcap
    if kv is None:
      x = attention.attend(q, k, v, mask, cap, alike=num_image, rules=self.rules)
      kv = (k, v)
    else:
      keys, values = kv
      k, v = kv_cache.cached(k, v, keys.dtype)
      keys = jax.lax.dynamic_update_slice(keys, k, (0, 0, column))
      values = jax.lax.dynamic_update_slice(values, v, (0, column, 0))
      kv = (keys, values)
      x = attention.attend_cached(q, keys, values, mask, cap)
    w = jnp.asarray(Weight((N, H, D), (0, 1), name="attn_vec_einsum")(), self.dtype)
    if self.decoding:
      return x.reshape(*x.shape[:2], -1) @ w.reshape(-1, D), kv
    return jnp.einsum("BTNH,NHD->BTD", x, w), kv


class Mlp(nn.Module):
  """Gated feed-forward layer: down(gelu(gate(x)) * up(x))."""

  mlp_dim: int
  dtype: str
  rules: sharding.Rules
  remat: str
  decoding: bool

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"], scale: ArrayLike) -> Float[Array, "B T D"]:
    """The layer on `rms_norm(x, scale)`."""
    D = x.shape[-1]
    init = nn.initializers.lecun_normal
    gate_up = self.param("gating_einsum", init(batch_axis=(0,)), (2, D, self.mlp_dim))
    down = self.param("linear", init(), (self.mlp_dim, D))

    def project(x, scale, gate_up):
      # One float32 operand would make the products float32.
      x, gate_up = rms_norm(x, scale).astype(self.dtype), jnp.asarray(gate_up, self.dtype)
      return in_place(x, gate_up) if self.decoding else products.both(x, gate_up)

    def act(gate, up):
      h = jax.nn.gelu(gate, approximate=True) * up
      return sharding.constrain(h, ("batch", "length", "mlp"), self.rules)

    gate, up = products.of_normed(project, self.remat)(x, scale, gate_up)
    return products.activated(act, (gate, up), jnp.asarray(down, self.dtype))


class Block(nn.Module):
  """One decoder layer; the residual stream stays float32.

  Dropout comes after attention's post-norm but before the MLP's, as in the reference. `remat`, which
  the scan over layers applies, and `decoding` choose the form of the products (`products.of_normed`,
  `in_place`), not what they compute.
  """

  config: variants.DecoderConfig
  dtype: str
  dropout: float = 0.0
  rules: sharding.Rules = None
  remat: str = "none"
  decoding: bool = False

  @nn.compact
  def __call__(self, x, sliding, position, mask, windowed, kv, column, num_image: int, train: bool):
    """One layer.

    Args:
      x: float32[B, T, D].
      sliding: bool[], whether this layer has the window.
      position: int32[B, T].
      mask: bool[B, T, S].
      windowed: bool[B, T, S] with the window applied, or None where the model has none.
      kv: keys and values of a layer of the cache to write into and to attend to, or None: those
        of `x` alone.
      column: int32[], where in `kv` those of `x` go.
      num_image: so many rows at the front are image tokens, which all see the same keys.
      train: whether dropout is on.

    Returns:
      (float32[B, T, D], (keys, values)): the cache, or those of `x`, [B, T, K, H].
    """
    c = self.config
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = sharding.constrain(x, ("batch", "length", None), self.rules)
    if windowed is not None:
      mask = jnp.where(sliding, windowed, mask)
    scale = RMSNorm(name="pre_attention_norm").scale(x.shape[-1])
    forms = self.dtype, self.rules, self.remat, self.decoding
    attend = Attention(c, *forms, name="attn")
    h, kv = attend(x, scale, position, mask, kv, column, num_image)
    if c.post_norms:
      h = RMSNorm(name="post_attention_norm")(h)
    x = x + drop(h)
    scale = RMSNorm(name="pre_ffw_norm").scale(x.shape[-1])
    h = drop(Mlp(c.mlp_dim, *forms, name="mlp")(x, scale))
    if c.post_norms:
      h = RMSNorm(name="post_ffw_norm")(h)
    return x + h, kv


class ScannedBlock(Block):
  """`Block` as training scans it: no cache goes in, none comes out."""

  @nn.compact
  def __call__(self, x, sliding, position, mask, windowed, num_image: int, train: bool):
    x, _ = super().__call__(x, sliding, position, mask, windowed, None, 0, num_image, train)
    return x, None


class Embedder(nn.Module):
  """The table of token embeddings, used at both ends."""

  vocab_size: int
  width: int

  def setup(self):
    init = nn.initializers.normal(self.width**-0.5)
    self.table = self.param("input_embedding", init, (self.vocab_size, self.width))

  def encode(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Token embeddings times sqrt(D), float32."""
    return jnp.take(self.table, tokens, axis=0).astype(jnp.float32) * self.width**0.5

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
  """

  config: variants.DecoderConfig
  dtype: str = "float32"
  remat: str = "nothing_saveable"
  dropout: float = 0.0
  rules: sharding.Rules = None

  def setup(self):
    c = self.config
    self.embedder = Embedder(c.vocab_size, c.width)
    stack = siglip.scan_layers(
      ScannedBlock,
      self.remat,
      c.depth,
      in_axes=(0, *[nn.broadcast] * 5),
      num_static=2,
    )
    self.layers = stack(c, self.dtype, self.dropout, self.rules, self.remat)
    self.final_norm = RMSNorm()

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
    num_image: int = 0,
    train: bool = False,
  ) -> Float[Array, "B S D"]:
    """Embedded sequence, `num_image` image tokens first -> hidden states after the final norm."""
    position, mask, windowed = self._masks(mask_input, mask_ar)
    x, _ = self.layers(x, self._sliding(), position, mask, windowed, num_image, train)
    return self.final_norm(x)

  def prefill(
    self,
    x: Float[Array, "B P D"],
    mask_input: Bool[Array, "B P"],
    mask_ar: Int[Array, "B P"],
    num_image: int,
    cache_size: int,
    cache_dtype: str | None = None,
  ) -> tuple[Float[Array, "B P D"], kv_cache.Cache]:
    """As `__call__`, and keeps keys and values in a cache with `cache_size` further columns."""
    position, mask, windowed = self._masks(mask_input, mask_ar)
    keys, values = [], []
    for i, layer in enumerate(self._layer_params()):
      sliding = jnp.array(i % 2 == 0)
      x, kv = self._block(layer, x, sliding, position, mask, windowed, None, 0, num_image)
      k, v = kv_cache.cached(*kv, cache_dtype or self.dtype)
      keys.append(jnp.pad(k, ((0, 0), (0, 0), (0, cache_size))))
      values.append(jnp.pad(v, ((0, 0), (0, cache_size), (0, 0))))
    stored = jnp.where(mask_input, position, -1)
    stored = jnp.pad(stored, ((0, 0), (0, cache_size)), constant_values=-1)
    length = jnp.sum(mask_input, axis=1, dtype=jnp.int32)
    column = jnp.array(x.shape[1], dtype=jnp.int32)
    return self.final_norm(x), kv_cache.Cache(tuple(keys), tuple(values), stored, length, column)

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

  def _block(self, layer, x, *args):
    block = Block(self.config, self.dtype, 0.0, self.rules, decoding=True, parent=None)
    return block.apply({"params": layer}, x, *args, False)

  def _layer_params(self) -> list[dict]:
    """The parameters layer by layer, from the stacked or the per-layer layout."""
    layers = self.variables["params"]["layers"]
    depth = self.config.depth
    if "0" in layers:
      return [layers[str(i)] for i in range(depth)]
    return [jax.tree.map(lambda p, i=i: p[i], layers) for i in range(depth)]
