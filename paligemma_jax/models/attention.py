"""Who attends to whom, and attention with grouped heads. PaliGemma, arXiv:2407.07726, section 3.

Letters: B batch, T query position, S key position, N query heads, K kv heads, G = N / K, H head width.

Four forms of the same attention, of which `attend` takes the best that the platform has:

- `attend_whole`: an einsum, a softmax, an einsum. The reference, and the fastest for few tokens.
- `attend_blocks`: a scan over blocks of queries; plain JAX, for every platform, dtype and mask.
- `attend_splash`: the TPU kernel that comes with JAX, whose scores never leave the chip.
- `attend_few`: on a CPU, a few examples at a time, whose scores never leave its cache.

In decoding `attend_cached` reads the KV cache instead.

One attention layer of PaliGemma 3b (bfloat16, batch 4, 128 text tokens, forward and gradients)
compiled by libtpu 0.0.42 for TPU v5e: temporaries, and the compiler's estimate of the time. It has
none for the kernel: the second figure is that of its nine products at the chip's limit.

                      whole              blocks              splash
    tower, 896 px     6,289 MiB  79 ms   1,057 MiB  103 ms   486 MiB  6 + 13 ms
    tower, 448 px       414 MiB   6 ms        as whole        34 MiB  1 + 1 ms
    decoder, 896 px   3,649 MiB  50 ms     762 MiB   72 ms   277 MiB  12 + 13 ms

By the same estimate the kernel gains nothing at 224 px. It takes heads of 72 as they are: copies that
are padded to the chip's 128 lanes would add 5 ms to a whole layer of the tower at 896 px.

On two CPU cores, float32, batch 8, forward and gradients (torch 2.13's kernel: 36 and 264 ms):

                                            whole             few
    384 tokens, 4 heads of 64, one kv head   94 ms,  79 MB     35 ms, 15 MB
    384 tokens, 8 heads of 256, one kv head  318 ms, 176 MB   248 ms, 83 MB

GPUs take the plain forms. cuDNN (`jax.nn.dot_product_attention`) has a kernel for the tower in
bfloat16 and, from Hopper on, for heads of 256; but that is decided by the local device and, in the
end, while cuDNN builds its plan, too late for another choice. It waits for a GPU to be tested on.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from paligemma_jax import sharding

LARGEST = 2**22  # scores of a head up to which all exist at once (chosen: 448 px fit, 896 do not)
BLOCK = 512  # queries at a time beyond that (chosen)
KERNEL = 1024  # queries that see the same keys, from which a kernel takes them (448 px; chosen)
SCORES = 2**20  # of all heads, at a time on a CPU (measured: 2**19 to 2**20 are the fastest)
TILES = (512, 384, 256, 128)  # queries or keys that the kernel has on the chip at a time (chosen)
MASKED = -2.3819763e38  # the reference's "minus infinity": near float32's lowest, yet finite


def block_mask(mask_input: Bool[Array, "B S"], mask_ar: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
  """Who may look at whom, from the two masks that every batch carries.

  A 1 in `mask_ar` opens a new block; a token sees its own block and all earlier ones. Image and
  prefix are one block of zeros, each suffix token opens its own: prefix-LM (arXiv:2407.07726).

      mask_ar    0 0 0 1 1
      row 0..2   x x x . .      image + prefix see each other, nothing after
      row 3      x x x x .      suffix token 1
      row 4      x x x x x      suffix token 2
  """
  block = jnp.cumsum(mask_ar, axis=1)
  earlier = block[:, None, :] <= block[:, :, None]
  real = mask_input[:, None, :] & mask_input[:, :, None]
  return earlier & real


def window_mask(
  mask: Bool[Array, "B S S"],
  mask_ar: Int[Array, "B S"],
  position: Int[Array, "B S"],
  window: int,
) -> Bool[Array, "B S S"]:
  """`mask` without the keys that lie `window` or more tokens back, in blocks other than one's own.

  Inside its own block a token keeps seeing everything, so the image and the prefix are not cut.
  Source: transformers 5.23, the sliding-window mask of Gemma 2 with the prefix put on top.
  """
  block = jnp.cumsum(mask_ar, axis=1)
  near = position[:, :, None] - position[:, None, :] < window
  return mask & (near | (block[:, :, None] == block[:, None, :]))


def positions(mask_input: Bool[Array, "B S"]) -> Int[Array, "B S"]:
  """0-based position of every token, counted over real tokens; padding repeats the last one."""
  return jnp.cumsum(mask_input.astype(jnp.int32), axis=1) - 1


def soft_capped(logits: Float[Array, "*b"], softcap: float) -> Float[Array, "*b"]:
  """softcap * tanh(logits / softcap); 0.0 is off. Gemma 2, arXiv:2408.00118, section 2."""
  return softcap * jnp.tanh(logits / softcap) if softcap else logits


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K H"],
  mask: Bool[Array, "B T S"] | None = None,
  softcap: float = 0.0,
  alike: int = 0,
  rules: sharding.Rules = None,
) -> Float[Array, "B T N H"]:
  """Softmax attention; query head n uses kv head n // G. Logits and softmax are float32.

  A row without any visible key gets something finite, in the plain forms the mean of `v`. `q` comes
  already scaled. At 896 px the scores of all queries never exist at once, on no platform and in the
  backward pass neither: in bfloat16 on TPU the first `alike` queries, where they are many, go to a
  kernel; of the others, where T * S is large, only the scores of `BLOCK` exist at a time. A single
  CPU takes a few examples at a time.

  Args:
    q: queries.
    k: keys.
    v: values.
    mask: True where a query may see a key; None for everywhere.
    softcap: c > 0 bends the logits to c * tanh(logits / c), before the mask.
    alike: so many queries at the front see the same keys as each other, example by example, or
      nobody reads what they get; without a mask all do.
    rules: logical axis -> mesh axis, by which the devices of the mesh in use share the kernel's work.
  """
  alike = q.shape[1] if mask is None else alike
  plain = functools.partial(_attend_plain, softcap=softcap)
  few = functools.partial(attend_few, softcap=softcap)
  T, S = q.shape[1], k.shape[1]
  shared = sharding.ways("batch", rules) * sharding.ways("heads", rules) > 1
  cpu = few if 1 < T and T * S <= LARGEST and not shared else plain
  if alike < KERNEL or q.dtype != jnp.bfloat16:  # float32 is there to be exact, the kernel is not
    return jax.lax.platform_dependent(q, k, v, mask, cpu=cpu, default=plain)

  def tpu(q, k, v, mask):
    seen = None if mask is None else jnp.any(mask[:, :alike], axis=1)
    out = _shared_splash(q[:, :alike], k, v, seen, softcap, rules)
    if alike == q.shape[1]:
      return out
    # Their scores, too, are computed anew, not kept while the gradients of the MLP are computed.
    others = jax.checkpoint(plain)(q[:, alike:], k, v, mask[:, alike:])
    return jnp.concatenate([out, others], axis=1)

  # Decided when the program is lowered: `plan` lowers for TPUs in a process that has none.
  return jax.lax.platform_dependent(q, k, v, mask, tpu=tpu, cpu=cpu, default=plain)


def _attend_plain(q, k, v, mask, softcap):
  whole = q.shape[1] * k.shape[1] <= LARGEST
  return (attend_whole if whole else attend_blocks)(q, k, v, mask, softcap)


def attend_whole(q, k, v, mask=None, softcap=0.0):
  """`attend` with all scores [B, N, T, S] at once: the reference for the others."""
  B, T, N, H = q.shape
  K = k.shape[2]
  q = q.reshape(B, T, K, N // K, H)
  logits = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32)
  logits = soft_capped(logits, softcap)
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, MASKED)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("BKGTS,BSKH->BTKGH", probs, v).reshape(B, T, N, H)


def attend_cached(
  q: Float[Array, "B T N H"],
  k: Float[Array, "BK H S"],
  v: Float[Array, "BK S H"],
  mask: Bool[Array, "B T S"],
  softcap: float = 0.0,
) -> Float[Array, "B T N H"]:
  """`attend` of a few new tokens to the keys and values of a cache, which are read in place.

  Rows and heads are one axis, and the products are written out: of an einsum, or of a shape with
  an axis of one, XLA makes copies of the whole cache for every token.
  """
  B, T, N, H = q.shape
  K, S = len(v) // B, v.shape[1]
  k, v = k.astype(q.dtype), v.astype(q.dtype)
  q = q.reshape(B, T, K, N // K, H).swapaxes(1, 2).reshape(B * K, -1, H)
  heads = ((0,), (0,))
  logits = jax.lax.dot_general(q, k, (((2,), (1,)), heads), preferred_element_type=jnp.float32)
  logits = _bend(logits.reshape(B, K, T, N // K, S), mask, softcap)
  probs = jax.nn.softmax(logits, axis=-1).reshape(B * K, -1, S).astype(v.dtype)
  out = jax.lax.dot_general(probs, v, (((2,), (1,)), heads))
  return out.reshape(B, K, T, N // K, H).swapaxes(1, 2).reshape(B, T, N, H)


def attend_blocks(q, k, v, mask=None, softcap=0.0, block=BLOCK):
  """`attend` as a scan over blocks of queries, each of which sees all keys."""
  B, T = q.shape[:2]

  def split(x):  # [B, T, …] -> [blocks, B, block, …], filled up at the end
    x = jnp.pad(x, ((0, 0), (0, -T % block), *[(0, 0)] * (x.ndim - 2)))
    return jnp.moveaxis(x.reshape(B, -1, block, *x.shape[2:]), 1, 0)

  @jax.checkpoint
  def one(xs):
    q, *mask = xs
    return attend_whole(q, k, v, *mask, softcap=softcap)

  out = jax.lax.map(one, (split(q),) if mask is None else (split(q), split(mask)))
  return jnp.moveaxis(out, 0, 1).reshape(B, -1, *q.shape[2:])[:, :T]


def attend_few(q, k, v, mask=None, softcap=0.0):
  """`attend` for as many examples at a time as have `SCORES` scores, with its own backward pass.

  That computes the scores anew; all it keeps are the arguments and the two sums of every softmax.
  Source: FlashAttention, arXiv:2205.14135, here for the cache of a CPU.
  """
  B, T, N, H = q.shape
  S, K = k.shape[1:3]
  few = max(n for n in range(1, B + 1) if B % n == 0 and (n == 1 or n * N * T * S <= SCORES))
  q = q.reshape(B, T, K, N // K, H).swapaxes(1, 2)
  groups = q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask
  out = _in_groups(jax.tree.map(lambda x: x.reshape(-1, few, *x.shape[1:]), groups), softcap)
  return out.reshape(B, K, T, N // K, H).swapaxes(1, 2).reshape(B, T, N, H)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_groups(groups, softcap):
  """[groups, B, K, T, G, H] of q alike, k and v [groups, B, K, S, H], mask [groups, B, T, S]."""
  return _in_groups_forward(groups, softcap)[0]


def _in_groups_forward(groups, softcap):
  def one(group):
    q, k, v, mask = group
    logits = _bend(_scores(q, k), mask, softcap)
    top = jnp.max(logits, axis=-1, keepdims=True)
    probs = jnp.exp(logits - top)
    total = jnp.sum(probs, axis=-1, keepdims=True)
    out = jnp.einsum("BKTGS,BKSH->BKTGH", probs.astype(v.dtype), v) / total.astype(v.dtype)
    return out, top, total

  out, *sums = jax.lax.map(one, groups)
  return out, (groups, sums)


def _in_groups_backward(softcap, kept, dout):
  settled = jax.lax.optimization_barrier  # in memory before a product reads it

  def one(xs):
    (q, k, v, mask), (top, total), dout = xs
    logits, unbend = jax.vjp(lambda scores: _bend(scores, mask, softcap), _scores(q, k))
    probs = settled(jnp.exp(logits - top) * (1 / total))
    dprobs = settled(_scores(dout, v))
    dlogits = probs * (dprobs - jnp.sum(probs * dprobs, axis=-1, keepdims=True))
    dscores = settled(unbend(dlogits)[0].astype(q.dtype))
    return jnp.einsum("BKTGS,BKSH->BKTGH", dscores, k), turned(q, dscores), turned(dout, probs)

  def turned(x, of_scores):
    """[B, K, S, H] of x [B, K, T, G, H]: the narrower of the two is turned (`products`)."""
    product = jnp.einsum("BKTGH,BKTGS->BKHS", x, of_scores.astype(x.dtype))
    return settled(product).swapaxes(2, 3)

  groups, sums = kept
  return ((*jax.lax.map(one, (groups, sums, dout)), None),)


_in_groups.defvjp(_in_groups_forward, _in_groups_backward)


def _scores(x, y):
  return jnp.einsum("BKTGH,BKSH->BKTGS", x, y, preferred_element_type=jnp.float32)


def _bend(scores, mask, softcap):
  logits = soft_capped(scores, softcap)
  return logits if mask is None else jnp.where(mask[:, None, :, None], logits, MASKED)


def attend_splash(q, k, v, seen=None, softcap=0.0, interpret=False):
  """`attend` by the TPU kernel of JAX, where all queries of an example see the same keys.

  That is the tower, and the image tokens of the decoder: they see each other and the prefix,
  whatever is masked. The kernel takes no mask that differs from example to example, but the ids of
  segments: `seen` becomes one. It has its own backward pass, which computes the scores anew.

  Args:
    seen: bool[B, S], the keys that are seen; None for all.
    interpret: run it step by step, on any platform, for tests.

  Source: jax.experimental.pallas.ops.tpu.splash_attention; FlashAttention, arXiv:2205.14135.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

  B, T, N, _ = q.shape
  S = k.shape[1]
  rows, cols = (min(TILES, key=lambda tile: -n % tile) for n in (T, S))
  if seen is None and S % cols:
    seen = jnp.ones((B, S), bool)

  def fill(x, tile):  # up to a whole number of tiles
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % tile), *[(0, 0)] * (x.ndim - 2)))

  q, k, v = (jnp.moveaxis(fill(x, tile), 2, 1) for x, tile in ((q, rows), (k, cols), (v, cols)))
  sizes = splash.BlockSizes(
    block_q=rows,
    block_kv=cols,
    block_q_dkv=rows,
    block_kv_dkv=cols,
    block_q_dq=rows,
    block_kv_dq=cols,
  )
  kernel = splash.make_splash_mha_single_device(
    masks.MultiHeadMask([masks.FullMask((q.shape[2], k.shape[2]))] * N),
    block_sizes=sizes,
    attn_logits_soft_cap=softcap or None,
    interpret=interpret,
  )
  segments = None
  if seen is not None:
    ids = fill(seen, cols).astype(jnp.int32)
    segments = splash.SegmentIds(jnp.ones((B, q.shape[2]), jnp.int32), ids)
  out = jax.vmap(kernel)(q, k, v, segments)
  return jnp.moveaxis(out, 1, 2)[:, :T]


def _shared_splash(q, k, v, seen, softcap, rules):
  """`attend_splash` over the mesh in use: examples and heads are split, as the rules say."""
  N, K = q.shape[2], k.shape[2]
  if K > 1 and K % sharding.ways("heads", rules):  # each device needs the kv heads of its queries
    k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
  heads = ("batch", None, "heads", None)
  kernel = functools.partial(attend_splash, softcap=softcap)
  names = (heads, heads, heads, ("batch", None))
  return sharding.on_each_device(kernel, (q, k, v, seen), names, rules)
