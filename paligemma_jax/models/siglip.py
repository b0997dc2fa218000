"""The SigLIP image tower without pooling. SigLIP arXiv:2303.15343, So400m/14 arXiv:2305.13035.

Letters: B images, P patch side, L tokens of an image, W width, M hidden, A heads, h head width,
D width of the decoder. Parameter names are those of the released npz files (big_vision models/vit.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from paligemma_jax import sharding
from paligemma_jax.models import attention, products, variants

_xavier = nn.initializers.xavier_uniform()


def layer_norm(name: str) -> nn.LayerNorm:
  """Layer norm in float32 whatever the storage, epsilon 1e-6; computed again when differentiated."""
  return nn.remat(nn.LayerNorm, prevent_cse=False)(epsilon=1e-6, dtype=jnp.float32, name=name)


class SelfAttention(nn.Module):
  """Multi-head self-attention with biases, unmasked; q is scaled by h^-0.5."""

  num_heads: int
  dtype: str
  rules: sharding.Rules = None

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"]) -> Float[Array, "B L W"]:
    W = x.shape[-1]
    heads = (self.num_heads, W // self.num_heads)
    q, k, v = (
      nn.DenseGeneral(heads, dtype=self.dtype, kernel_init=_xavier, name=name)(x)
      for name in ("query", "key", "value")
    )
    x = attention.attend(q * heads[1] ** -0.5, k, v, rules=self.rules)
    return nn.DenseGeneral(W, axis=(-2, -1), dtype=self.dtype, kernel_init=_xavier, name="out")(x)


class Mlp(nn.Module):
  """Dense, GELU (tanh form), Dense."""

  mlp_dim: int
  dtype: str
  dropout: float

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], train: bool) -> Float[Array, "B L W"]:
    W = x.shape[-1]
    w0, b0 = Dense((W, self.mlp_dim), self.dtype, name="Dense_0")()
    w1, b1 = Dense((self.mlp_dim, W), self.dtype, name="Dense_1")()
    before = products.linear(x.astype(self.dtype), w0) + b0
    if self.dropout and train:
      h = nn.Dropout(self.dropout)(nn.gelu(before), deterministic=False)
      return products.linear(h, w1) + b1
    return products.activated(nn.gelu, (before,), w1) + b1


class Dense(nn.Module):
  """Kernel [D, F] and bias [1, 1, F] of a layer of the MLP, in the compute dtype."""

  shape: tuple[int, int]
  dtype: str

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array]:
    kernel = self.param("kernel", _xavier, self.shape)
    bias = self.param("bias", nn.initializers.normal(1e-6), self.shape[1:])
    return jnp.asarray(kernel, self.dtype), jnp.asarray(bias, self.dtype)[None, None]


class Block(nn.Module):
  """Pre-norm transformer block; the residual stream stays float32."""

  config: variants.ImageConfig
  dtype: str
  dropout: float
  rules: sharding.Rules

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], train: bool):
    c = self.config
    x = sharding.constrain(x, ("batch", "length", None), self.rules)
    y = layer_norm("LayerNorm_0")(x)
    name = "MultiHeadDotProductAttention_0"
    y = SelfAttention(c.num_heads, self.dtype, self.rules, name=name)(y)
    x = x + nn.Dropout(self.dropout)(y, deterministic=not train)
    y = layer_norm("LayerNorm_1")(x)
    y = Mlp(c.mlp_dim, self.dtype, self.dropout, name="MlpBlock_0")(y, train)
    return x + nn.Dropout(self.dropout)(y, deterministic=not train), None


class Encoder(nn.Module):
  """The blocks, scanned, and the final norm."""

  config: variants.ImageConfig
  dtype: str
  remat: str
  dropout: float
  rules: sharding.Rules

  @nn.compact
  def __call__(self, x: Float[Array, "B L W"], train: bool) -> Float[Array, "B L W"]:
    blocks = scan_layers(Block, self.remat, self.config.depth, in_axes=(nn.broadcast,))
    x, _ = blocks(self.config, self.dtype, self.dropout, self.rules, name="encoderblock")(x, train)
    return layer_norm("encoder_norm")(x)


class PatchEmbedding(nn.Module):
  """Linear projection of P x P patches, row by row; pixels that fill no patch are dropped."""

  config: variants.ImageConfig
  dtype: str

  @nn.compact
  def __call__(self, image: Float[Array, "B h w 3"]) -> Float[Array, "B L W"]:
    P, W = self.config.patch_size, self.config.width
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (P, P, 3, W))
    bias = self.param("bias", nn.initializers.zeros, (W,))
    B, h, w, _ = image.shape
    rows, cols = h // P, w // P
    x = image[:, : rows * P, : cols * P].reshape(B, rows, P, cols, P, 3)
    x = jnp.einsum("BRPCQc,PQcW->BRCW", x.astype(self.dtype), kernel.astype(self.dtype))
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
  """

  config: variants.ImageConfig
  head_width: int
  dtype: str = "float32"
  remat: str = "nothing_saveable"
  dropout: float = 0.0
  rules: sharding.Rules = None

  @nn.compact
  def __call__(
    self, image: Float[Array, "B h w 3"], train: bool = False
  ) -> tuple[Float[Array, "B L D"], dict]:
    out = {}
    x = PatchEmbedding(self.config, self.dtype, name="embedding")(image)
    out["img/stem"] = x
    std = self.config.width**-0.5
    shape = (1, self.config.num_tokens, self.config.width)
    x = x + self.param("pos_embedding", nn.initializers.normal(std), shape).astype(jnp.float32)
    out["img/with_posemb"] = x
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    encoder = Encoder(
      self.config, self.dtype, self.remat, self.dropout, self.rules, name="Transformer"
    )
    x = out["img/encoded"] = encoder(x, train)
    # Zeros, as the reference: a decoder starts out blind, not confused.
    head = nn.Dense(
      self.head_width, dtype=jnp.float32, kernel_init=nn.initializers.zeros, name="head"
    )
    x = out["img/zimg"] = head(x)
    return x, out


def scan_layers(
  block: type[nn.Module], remat: str, depth: int, in_axes: tuple, num_static: int = 1
):
  """`block` repeated `depth` times as one scan over parameters stacked on axis 0.

  Args:
    block: a module class whose call returns (carry, output of the layer).
    remat: "none", or the name of a policy in `jax.checkpoint_policies` that says what is kept for
      the backward pass.
    depth: number of layers.
    in_axes: per further argument of the call, the axis to scan over or `nn.broadcast`.
    num_static: how many of these are Python values; they come last and are broadcast.
  """
  if remat != "none":
    policy = getattr(jax.checkpoint_policies, remat)
    last = len(in_axes) + 1  # behind the module and the carry
    static = tuple(range(last - num_static + 1, last + 1))
    block = nn.remat(block, prevent_cse=False, policy=policy, static_argnums=static)
  return nn.scan(
    block,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=depth,
  )
