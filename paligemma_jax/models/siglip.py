"""The SigLIP image tower without pooling. SigLIP arXiv:2303.15343, So400m/14 arXiv:2305.13035.

Letters: B images, P patch side, L tokens of an image, W width, M hidden, A heads, h head width,
D width of the decoder. Parameter names are those of the released npz files (big_vision models/vit.py).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from paligemma_jax import sharding
from paligemma_jax.models import attention, products, scan, variants, weights

_xavier = nn.initializers.xavier_uniform()


@jax.checkpoint  # only `x` is kept for the backward pass
def layer_norm(
  x: Float[Array, "*b W"], weights: tuple[Float[Array, " W"], Float[Array, " W"]]
) -> Float[Array, "*b W"]:
  """Layer norm with (scale, bias), epsilon 1e-6, float32 whatever the storage.

  The variance is that of flax.linen.LayerNorm, which the reference uses: E[x^2] - E[x]^2.
  """
  scale, bias = (w.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + w.shape) for w in weights)
  x = x.astype(jnp.float32)
  mean = jnp.mean(x, axis=-1, keepdims=True)
  square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  variance = jnp.maximum(square - jnp.square(mean), 0)
  return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


class LayerNorm(nn.Module):
  """`layer_norm` with its parameters."""

  @nn.compact
  def weights(self, width: int) -> tuple[ArrayLike, ArrayLike]:
    """Scale and bias, float[W], W = `width`."""
    scale = self.param("scale", nn.initializers.ones, (width,))
    return scale, self.param("bias", nn.initializers.zeros, (width,))

  def __call__(self, x: Float[Array, "*b W"]) -> Float[Array, "*b W"]:
    return layer_norm(x, self.weights(x.shape[-1]))


class Dense(nn.Module):
  """Kernel and bias of a linear layer."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  init_bias: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self) -> tuple[weights.Weight, ArrayLike]:
    def init_kernel(key, shape):
      return _xavier(key, (math.prod(self.inputs), math.prod(self.outputs))).reshape(shape)

    kernel = weights.of(self, "kernel", init_kernel, (*self.inputs, *self.outputs))
    return kernel, self.param("bias", self.init_bias, self.outputs)


class SelfAttention(nn.Module):
  """Multi-head self-attention with biases, unmasked; q is scaled by h^-0.5."""

  num_heads: int
  dtype: str
  rules: sharding.Rules = None
  remat: str = "none"
  drop: float = 0.0  # rate of dropout before adapters

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], norm: tuple) -> Float[Array, "B L W"]:
    """Attention of `layer_norm(x, norm)`."""
    W = x.shape[-1]
    heads = (self.num_heads, W // self.num_heads)
    dense = {name: Dense((W,), heads, name=name)() for name in ("query", "key", "value")}
    drops = [weights.dropout(self, self.drop) for _ in dense]
    q, k, v = _project(x, norm, tuple(dense.values()), self.dtype, self.remat, drops)
    x = attention.attend(q * heads[1] ** -0.5, k, v, rules=self.rules)
    kernel, bias = Dense(heads, (W,), name="out")()
    drop = weights.dropout(self, self.drop)
    product = lambda x, w: (jnp.einsum("BLAh,AhW->BLW", x, w),)
    (x,) = weights.apply(product, x, kernel, summed=(0, 1), outer=(W,), dtype=self.dtype, drop=drop)
    return x + jnp.asarray(bias, self.dtype)[None, None]


def _project(x, norm, dense, dtype, remat, drops):
  """The linear layers `dense` of `layer_norm(x, norm)`, each [B, L, …]."""
  kernels, biases = zip(*dense, strict=True)

  def product(x, w):
    return (products.linear(x, w.reshape(len(w), -1)).reshape(*x.shape[:-1], *w.shape[1:]),)

  def project(x, norm, kernels, drops):
    x = layer_norm(x, norm).astype(dtype)
    return tuple(
      weights.apply(product, x, w, summed=(0,), outer=b.shape, dtype=dtype, drop=drop)[0]
      for w, b, drop in zip(kernels, biases, drops, strict=True)
    )

  ys = products.of_normed(project, remat)(x, norm, kernels, drops)
  return tuple(y + jnp.asarray(b, dtype)[None, None] for y, b in zip(ys, biases, strict=True))


class Mlp(nn.Module):
  """Dense, GELU (tanh form), Dense."""

  mlp_dim: int
  dtype: str
  dropout: float
  remat: str
  drop: float  # rate of dropout before adapters

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], norm: tuple, train: bool) -> Float[Array, "B L W"]:
    """The layer on `layer_norm(x, norm)`."""
    W, init_bias = x.shape[-1], nn.initializers.normal(1e-6)
    first = Dense((W,), (self.mlp_dim,), init_bias, name="Dense_0")()
    drops = [weights.dropout(self, self.drop) for _ in "fs"]
    (before,) = _project(x, norm, (first,), self.dtype, self.remat, drops[:1])
    w, b = Dense((self.mlp_dim,), (W,), init_bias, name="Dense_1")()
    b = jnp.asarray(b, self.dtype)[None, None]
    if w.is_published and not (self.dropout and train):
      return products.activated(nn.gelu, (before,), jnp.asarray(w.value, self.dtype)) + b

    def project(h, w, drop):
      product = lambda h, w: (products.linear(h, w),)
      return weights.apply(product, h, w, summed=(0,), outer=(W,), dtype=self.dtype, drop=drop)[0]

    if self.dropout and train:
      return (
        project(nn.Dropout(self.dropout)(nn.gelu(before), deterministic=False), w, drops[1]) + b
      )
    after = products.of_normed(lambda before, *args: project(nn.gelu(before), *args), self.remat)
    return after(before, w, drops[1]) + b


class Block(nn.Module):
  """Pre-norm transformer block; the residual stream stays float32."""

  config: variants.ImageConfig
  dtype: str
  dropout: float
  rules: sharding.Rules
  remat: str
  drop_adapters: float

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], train: bool):
    c = self.config
    x = sharding.constrain(x, ("batch", "length", None), self.rules)
    norm = LayerNorm(name="LayerNorm_0").weights(c.width)
    drop = self.drop_adapters if train else 0.0
    name = "MultiHeadDotProductAttention_0"
    y = SelfAttention(c.num_heads, self.dtype, self.rules, self.remat, drop, name=name)(x, norm)
    x = x + nn.Dropout(self.dropout)(y, deterministic=not train)
    norm = LayerNorm(name="LayerNorm_1").weights(c.width)
    mlp = Mlp(c.mlp_dim, self.dtype, self.dropout, self.remat, drop, name="MlpBlock_0")
    y = mlp(x, norm, train)
    return x + nn.Dropout(self.dropout)(y, deterministic=not train), None


class Encoder(nn.Module):
  """The blocks, scanned, and the final norm."""

  config: variants.ImageConfig
  dtype: str
  remat: str
  dropout: float
  rules: sharding.Rules
  drop_adapters: float

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], train: bool) -> Float[Array, "B L W"]:
    blocks = scan.blocks(Block, self.remat, self.config.depth, in_axes=(nn.broadcast,))
    forms = self.dtype, self.dropout, self.rules, self.remat, self.drop_adapters
    x, _ = blocks(self.config, *forms, name="encoderblock")(x, train)
    return LayerNorm(name="encoder_norm")(x)


class PatchEmbedding(nn.Module):
  """Linear projection of P x P patches, row by row; pixels that fill no patch are dropped."""

  config: variants.ImageConfig
  dtype: str
  drop: float  # rate of dropout before adapters

  @nn.compact
  def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B L W"]:
    P, W = self.config.patch_size, self.config.width
    kernel = weights.of(self, "kernel", nn.initializers.lecun_normal(), (P, P, 3, W))
    bias = self.param("bias", nn.initializers.zeros, (W,))
    B, h, w, _ = image.shape
    rows, cols = h // P, w // P
    x = image[:, : rows * P, : cols * P].reshape(B, rows, P, cols, P, 3)

    def product(x, w):
      return (jnp.einsum("BRCPQc,PQcW->BRCW", x, w),)

    x, drop = jnp.swapaxes(x, 2, 3).astype(self.dtype), weights.dropout(self, self.drop)
    (x,) = weights.apply(
      product, x, kernel, summed=(0, 1, 2), outer=(W,), dtype=self.dtype, drop=drop
    )
    return x.reshape(B, rows * cols, W) + bias.astype(self.dtype)[None, None]


class ImageTower(nn.Module):
  """Pixels in -1..1 -> one token per patch, projected to the decoder's width by a linear head.

  Attributes:
    config: dimensions.
    head_width: D.
    dtype: of the products; norms, residual stream and head are float32, as in the reference.
    remat: policy name, "none" off.
    dropout: rate, of every block.
    rules: logical axis -> mesh axis; None: unconstrained.
    drop_adapters: rate of dropout of what goes into adapters.
  """

  config: variants.ImageConfig
  head_width: int
  dtype: str = "float32"
  remat: str = "nothing_saveable"
  dropout: float = 0.0
  rules: sharding.Rules = None
  drop_adapters: float = 0.0

  @nn.compact
  def __call__(
    self, image: Float[Array, "B h w 3"], train: bool = False
  ) -> tuple[Float[Array, "B L D"], dict]:
    out, drop = {}, self.drop_adapters if train else 0.0
    x = PatchEmbedding(self.config, self.dtype, drop, name="embedding")(image)
    out["img/stem"] = x
    std = self.config.width**-0.5
    shape = (1, self.config.num_tokens, self.config.width)
    x = x + self.param("pos_embedding", nn.initializers.normal(std), shape).astype(jnp.float32)
    out["img/with_posemb"] = x
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    forms = self.dtype, self.remat, self.dropout, self.rules, self.drop_adapters
    x = out["img/encoded"] = Encoder(self.config, *forms, name="Transformer")(x, train)
    x = out["img/zimg"] = Head(self.head_width, drop, name="head")(x)
    return x, out


class Head(nn.Module):
  """Linear layer to the decoder's width D, float32."""

  width: int
  drop: float  # rate of dropout before adapters

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"]) -> Float[Array, "B L D"]:
    W, D = x.shape[-1], self.width
    # Zeros, as the reference: a decoder starts out blind, not confused.
    kernel = weights.of(self, "kernel", nn.initializers.zeros, (W, D))
    bias = self.param("bias", nn.initializers.zeros, (D,))
    drop = weights.dropout(self, self.drop)
    product = lambda x, w: (x @ w,)
    (y,) = weights.apply(product, x, kernel, summed=(0,), outer=(D,), dtype="float32", drop=drop)
    return y + jnp.asarray(bias, jnp.float32)[None, None]
