"""One layer of the Gemma decoder. Gemma report, arXiv:2403.08295, section 2; Gemma 2, arXiv:2408.00118.

Letters: B batch, T query position, R those whose result is asked for, S key position (columns of the
cache), D width, F hidden, N query heads, K kv heads, H head width. Parameter names are those of the
released npz files (big_vision models/ppp/gemma.py).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import sharding
from paligemma_jax.models import attention, kv_cache, products, variants, weights


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


def at(x: Array, rows: Int[Array, "B R"] | None) -> Array:
  """x[b, rows[b]] of x [B, T, …]; None: all of it."""
  if rows is None:
    return x
  return jnp.take_along_axis(x, rows.reshape(*rows.shape, *[1] * (x.ndim - 2)), axis=1)


class RMSNorm(nn.Module):
  """`rms_norm` with its parameter."""

  @nn.compact
  def scale(self, width: int) -> ArrayLike:
    """float[D], D = `width`."""
    return self.param("scale", nn.initializers.zeros, (width,))

  def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    return rms_norm(x, self.scale(x.shape[-1]))


class Weight(nn.Module):
  """One weight, named `w`."""

  shape: tuple[int, ...]
  fan_in: tuple[int, ...]  # axes that are summed over

  @nn.compact
  def __call__(self) -> weights.Weight:
    batch = tuple(i for i in range(len(self.shape) - 1) if i not in self.fan_in)
    init = nn.initializers.lecun_normal(in_axis=self.fan_in, out_axis=-1, batch_axis=batch)
    return weights.of(self, "w", init, self.shape)


class Attention(nn.Module):
  """Grouped-query attention with RoPE and, in Gemma 2, a soft-cap on the logits."""

  config: variants.DecoderConfig
  dtype: str
  rules: sharding.Rules = None
  remat: str = "none"
  decoding: bool = False
  drop: float = 0.0  # rate of dropout before adapters

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    scale: ArrayLike,
    position: Int[Array, "B T"],
    mask: Bool[Array, "B R S"],
    kv: tuple[jax.Array, jax.Array] | None = None,
    column: jax.Array | int = 0,
    num_image: int = 0,
    rows: Int[Array, "B R"] | None = None,
  ) -> tuple[Float[Array, "B R D"], tuple[jax.Array, jax.Array]]:
    """Attention of `rms_norm(x, scale)`; the other arguments are those of `Block`."""
    c, D = self.config, x.shape[-1]
    N, K, H = c.num_heads, c.num_kv_heads, c.head_dim
    w_q = Weight((N, D, H), (1,), name="q_einsum")()
    w_kv = Weight((2, K, D, H), (2,), name="kv_einsum")()
    drops = [weights.dropout(self, self.drop) for _ in "qk"]
    linear = functools.partial(weights.apply, summed=(1,), dtype=self.dtype)

    def queries(x, w):
      if self.decoding:  # [N, B, T, H] -> [B, T, N, H]
        return (jnp.moveaxis(products.in_place(x, w), -4, -2),)
      return (jnp.einsum("BRD,NDH->BRNH", x, w),)

    def keys_values(x, w):
      if self.decoding:
        return tuple(jnp.moveaxis(products.in_place(x, w), -4, -2))
      return tuple(jnp.einsum("BTD,gKDH->gBTKH", x, w))

    def project(x, scale, w_q, w_kv, drops):
      x = rms_norm(x, scale).astype(self.dtype)
      (q,) = linear(queries, at(x, rows), w_q, outer=(N, H), drop=drops[0])
      k, v = linear(keys_values, x, w_kv, outer=(K, H), is_stack=True, drop=drops[1])
      return q, k, v

    q, k, v = products.of_normed(project, self.remat)(x, scale, w_q, w_kv, drops)
    q = rope(q, at(position, rows)) * jnp.asarray(c.query_scale, q.dtype)
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

    def output(x, w):
      if self.decoding:
        return (x.reshape(*x.shape[:2], -1) @ w.reshape(-1, D),)
      return (jnp.einsum("BTNH,NHD->BTD", x, w),)

    w = Weight((N, H, D), (0, 1), name="attn_vec_einsum")()
    drop = weights.dropout(self, self.drop)
    forms = dict(summed=(0, 1), outer=(D,), dtype=self.dtype)
    (x,) = weights.apply(output, x, w, **forms, drop=drop)
    return x, kv


class Mlp(nn.Module):
  """Gated feed-forward layer: down(gelu(gate(x)) * up(x))."""

  mlp_dim: int
  dtype: str
  rules: sharding.Rules
  remat: str
  decoding: bool
  drop: float  # rate of dropout before adapters

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"], scale: ArrayLike) -> Float[Array, "B T D"]:
    """The layer on `rms_norm(x, scale)`."""
    D, F = x.shape[-1], self.mlp_dim
    init = nn.initializers.lecun_normal
    gate_up = weights.of(self, "gating_einsum", init(batch_axis=(0,)), (2, D, F))
    down = weights.of(self, "linear", init(), (F, D))
    drops = [weights.dropout(self, self.drop) for _ in "gd"]
    linear = functools.partial(weights.apply, summed=(0,), dtype=self.dtype)

    def project(x, scale, gate_up, drop):
      x = rms_norm(x, scale).astype(
        self.dtype
      )  # one float32 operand would make the products float32
      both = (lambda x, w: tuple(products.in_place(x, w))) if self.decoding else products.both
      return linear(both, x, gate_up, outer=(F,), is_stack=True, drop=drop)

    def act(gate, up):
      h = jax.nn.gelu(gate, approximate=True) * up
      return sharding.constrain(h, ("batch", "length", "mlp"), self.rules)

    gate, up = products.of_normed(project, self.remat)(x, scale, gate_up, drops[0])
    if down.is_published:
      return products.activated(act, (gate, up), jnp.asarray(down.value, self.dtype))

    def project_down(gate, up, down, drop):
      return linear(lambda h, w: (h @ w,), act(gate, up), down, outer=(D,), drop=drop)[0]

    return products.of_normed(project_down, self.remat)(gate, up, down, drops[1])


class Block(nn.Module):
  """One decoder layer; the residual stream stays float32.

  Dropout comes after attention's post-norm but before the MLP's, as in the reference. `remat`, which
  the scan over layers applies, and `decoding` choose the form of the products (`products.of_normed`,
  `products.in_place`), not what they compute.
  """

  config: variants.DecoderConfig
  dtype: str
  dropout: float = 0.0
  rules: sharding.Rules = None
  remat: str = "none"
  decoding: bool = False
  drop_adapters: float = 0.0  # dropout of what goes into adapters

  @nn.compact
  def __call__(self, x, sliding, position, mask, windowed, kv, column, num_image: int, train: bool,
               rows=None):  # fmt: skip
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
      rows: int32[B, R], the positions whose result is asked for; None: all, R = T.

    Returns:
      (float32[B, R, D], (keys, values)): the cache, or those of `x`, [B, T, K, H].
    """
    c = self.config
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = sharding.constrain(x, ("batch", "length", None), self.rules)
    if windowed is not None:
      mask = jnp.where(sliding, windowed, mask)
    if rows is not None:  # image tokens are no longer in front
      mask, num_image = at(mask, rows), 0
    scale = RMSNorm(name="pre_attention_norm").scale(x.shape[-1])
    forms = self.dtype, self.rules, self.remat, self.decoding, self.drop_adapters if train else 0.0
    attend = Attention(c, *forms, name="attn")
    h, kv = attend(x, scale, position, mask, kv, column, num_image, rows)
    if c.post_norms:
      h = RMSNorm(name="post_attention_norm")(h)
    x = at(x, rows) + drop(h)
    scale = RMSNorm(name="pre_ffw_norm").scale(x.shape[-1])
    h = drop(Mlp(c.mlp_dim, *forms, name="mlp")(x, scale))
    if c.post_norms:
      h = RMSNorm(name="post_ffw_norm")(h)
    return x + h, kv


class ScannedBlock(Block):
  """`Block` as it is initialised, in a stack: no cache goes in, none comes out."""

  @nn.compact
  def __call__(self, x, sliding, position, mask, windowed, num_image: int, train: bool):
    x, _ = super().__call__(x, sliding, position, mask, windowed, None, 0, num_image, train)
    return x, None
