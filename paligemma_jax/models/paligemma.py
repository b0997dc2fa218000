"""PaliGemma: SigLIP image tokens in front of the text, read by a Gemma decoder. arXiv:2407.07726.

Letters: B batch, F images or frames per example, N image tokens per example, T text tokens,
D decoder width, V vocabulary.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from paligemma_jax import sharding
from paligemma_jax.models import gemma, kv_cache, siglip, variants

Array = jax.Array | np.ndarray
Image = Array  # uint8 or float32 (-1..1) [B, H, W, 3] or [B, F, H, W, 3]


class PaliGemma(nn.Module):
  """The joined model. Its parameter tree is that of the published npz: `img/…`, `llm/…`.

  Example:
      model = PaliGemma(variants.preset("paligemma2-3b", res=448))
      logits, out = model.apply({"params": params}, batch.image, batch.text, batch.mask_ar)
      hidden = model.apply({"params": params}, …, method="hidden")

  Attributes:
    config: dimensions and settings of both towers.
    dtype: of the products; norms, residual stream, softmax, soft-caps and logits are float32.
    remat: what the backward pass keeps, a name in `jax.checkpoint_policies`; "none" keeps all.
    remat_img: the same for the image tower; "" as `remat`.
    dropout: rate in the decoder.
    rules: logical axis -> mesh axis for activations; None: unconstrained.
    drop_adapters: rate of dropout of what goes into low-rank adapters.
  """

  config: variants.ModelConfig
  dtype: str = "float32"
  remat: str = "nothing_saveable"
  dropout: float = 0.0
  rules: sharding.Rules = None
  remat_img: str = ""
  drop_adapters: float = 0.0

  def setup(self):
    c = self.config
    remat_img = self.remat_img or self.remat
    rules, drop = self.rules, self.drop_adapters
    self.img = siglip.ImageTower(c.img, c.llm.width, self.dtype, remat_img, 0.0, rules, drop)
    self.llm = gemma.Decoder(c.llm, self.dtype, self.remat, self.dropout, rules, drop)

  def __call__(
    self,
    image: Image,
    text: Int[Array, "B T"],
    mask_ar: Int[Array, "B T"],
    mask_input: Bool[Array, "B T"] | None = None,
    mask_image: Bool[Array, "B F"] | None = None,
    train: bool = False,
  ) -> tuple[Float[Array, "B T V"], dict]:
    """Logits of the text part, and named intermediates.

    Args:
      image: pixels, uint8 or float32 in -1..1, [B, H, W, 3] or [B, F, H, W, 3].
      text: token ids.
      mask_ar: 1 starts a new attention block (`attention.block_mask`).
      mask_input: False for padding; None counts padding as tokens, as the reference trains:
        harmless behind the suffix, where padding has mask_ar 1.
      mask_image: False for images that are missing; None: all are there.
      train: whether dropout is on (rng stream "dropout").

    Returns:
      (logits float32[B, T, V]; dict of "img/stem", "img/with_posemb", "img/encoded" [B*F, L, W],
      "img/zimg" [B, N, D], "llm/pre_logits" [B, T, D]).
    """
    zimg, out = self._image_tokens(image, train)
    hidden = self._hidden(zimg, image, text, mask_ar, mask_input, mask_image, train)
    return self.llm.logits(hidden), {**out, "img/zimg": zimg, "llm/pre_logits": hidden}

  def encode_images(self, image: Image, train: bool = False) -> Float[Array, "B N D"]:
    """Image tokens at the decoder's width; those of several images follow each other."""
    return self._image_tokens(image, train)[0]

  def hidden(
    self,
    image: Image,
    text: Int[Array, "B T"],
    mask_ar: Int[Array, "B T"],
    mask_input: Bool[Array, "B T"] | None = None,
    mask_image: Bool[Array, "B F"] | None = None,
    train: bool = False,
    rows: Int[Array, "B R"] | None = None,
  ) -> Float[Array, "B R D"]:
    """Hidden states of the text part after the final norm, float32.

    Args:
      image, text, mask_ar, mask_input, mask_image, train: as `__call__`.
      rows: positions in `text` that are asked for; None: all, R = T. The fewer, the less the last
        layer costs.
    """
    zimg = self.encode_images(image, train)
    return self._hidden(zimg, image, text, mask_ar, mask_input, mask_image, train, rows)

  def logits(self, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
    """Logits of hidden states, float32, with the final soft-cap if the model has one."""
    return self.llm.logits(hidden)

  def prefill(
    self,
    image: Image,
    text: Int[Array, "B T"],
    mask_ar: Int[Array, "B T"],
    mask_input: Bool[Array, "B T"],
    mask_image: Bool[Array, "B F"] | None = None,
    cache_size: int = 0,
    cache_dtype: str | None = None,
  ) -> tuple[Float[Array, "B V"], kv_cache.Cache]:
    """Reads image and prompt (and a piece of suffix, if there is one) into a KV cache.

    Args:
      image, text, mask_ar, mask_input, mask_image: as `__call__`; rows may differ in length.
      cache_size: number of tokens that can be added by `extend`.
      cache_dtype: None for the compute dtype. (The reference's default is bfloat16.)

    Returns:
      (logits float32[B, V] after each row's last token, cache).
    """
    zimg = self.encode_images(image)
    x, mask_input, mask_ar = self._sequence(zimg, image, text, mask_ar, mask_input, mask_image)
    N = zimg.shape[1]
    x, cache = self.llm.prefill(x, mask_input, mask_ar, N, cache_size, cache_dtype)
    return self.llm.logits(x), cache

  def extend(
    self, token: Int[Array, " B"], cache: kv_cache.Cache
  ) -> tuple[Float[Array, "B V"], kv_cache.Cache]:
    """Adds one token to every row: (logits float32[B, V] of the next, cache).

    The caller keeps count: a cache has room for the `cache_size` tokens it was made for.
    """
    x, cache = self.llm.extend(self.llm.embed(token[:, None]), cache)
    return self.llm.logits(x[:, 0]), cache

  def branch(
    self,
    token: Int[Array, "B T"],
    cache: kv_cache.Cache,
    group: Int[Array, "B T"],
    depth: Int[Array, "B T"],
  ) -> Float[Array, "B T D"]:
    """Hidden states, float32, of several continuations of every row; see `gemma.Decoder.branch`."""
    return self.llm.branch(self.llm.embed(token), cache, group, depth)

  def _image_tokens(self, image, train):
    image = jnp.asarray(image)
    if jnp.issubdtype(image.dtype, jnp.integer):
      image = image.astype(jnp.float32) / 127.5 - 1
    B, frames = image.shape[0], image.shape[1:-3]
    zimg, out = self.img(image.reshape(-1, *image.shape[-3:]), train)
    if frames:
      zimg = zimg.reshape(B, frames[0] * zimg.shape[1], zimg.shape[2])
    return zimg, out

  def _sequence(self, zimg, image, text, mask_ar, mask_input, mask_image):
    """Image and text as one embedded sequence [B, N + T, D], with its two masks."""
    text, mask_ar = jnp.asarray(text), jnp.asarray(mask_ar)
    B, N, _ = zimg.shape
    frames = image.shape[1] if image.ndim == 5 else 1
    if mask_image is None:
      mask_image = jnp.ones((B, frames), bool)
    if mask_input is None:
      mask_input = jnp.ones(text.shape, bool)
    mask_input = jnp.concatenate([jnp.repeat(mask_image, N // frames, axis=1), mask_input], axis=1)
    mask_ar = jnp.concatenate([jnp.zeros((B, N), mask_ar.dtype), mask_ar], axis=1)
    x = jnp.concatenate([zimg, self.llm.embed(text)], axis=1)
    return x, mask_input, mask_ar

  def _hidden(self, zimg, image, text, mask_ar, mask_input, mask_image, train, rows=None):
    x, mask_input, mask_ar = self._sequence(zimg, image, text, mask_ar, mask_input, mask_image)
    N = zimg.shape[1]
    rows = jnp.broadcast_to(jnp.arange(text.shape[1]), text.shape) if rows is None else rows
    return self.llm(x, mask_input, mask_ar, N + jnp.asarray(rows), N, train)


def unstack_layers(params: dict) -> dict:
  """Parameters whose decoder layers are {"0": …, "1": …} instead of stacked arrays.

  `prefill` and `extend` accept both layouts. On the CPU backend the layers are views of the
  stacked arrays, nothing is copied; a matrix product there cannot read a slice in place, so the
  stacked layout would copy every weight for every token.
  """
  layers = params["llm"]["layers"]
  depth = len(jax.tree.leaves(layers)[0])
  per_layer = jax.tree.map(_unstack, layers)
  is_list = lambda x: isinstance(x, list)
  split = {
    str(i): jax.tree.map(lambda x, i=i: x[i], per_layer, is_leaf=is_list) for i in range(depth)
  }
  return {**params, "llm": {**params["llm"], "layers": split}}


def _unstack(x: jax.Array | jax.ShapeDtypeStruct) -> list:
  if isinstance(x, jax.ShapeDtypeStruct):  # of a single device
    where = jax.sharding.SingleDeviceSharding(*x.sharding.device_set)
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=where)] * len(x)
  if (
    isinstance(x, jax.Array)
    and {d.platform for d in x.devices()} == {"cpu"}
    and x.is_fully_replicated
  ):
    device = min(x.devices(), key=lambda d: d.id)
    return [jax.device_put(row, device, may_alias=True) for row in np.asarray(x)]
  return list(x)
