"""Trains the mask codec of models/vqvae.py, for those who have no `vae-oid.npz`.

VQ-VAE, arXiv:1711.00937, with the codebook as an exponential moving average (its appendix A.1),
straight-through gradients and restarts of codes that fall out of use. Deterministic in the seed.
"""

import functools
import math
import os
import pathlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from paligemma_jax import errors
from paligemma_jax.models import vqvae

COMMITMENT = 0.25  # arXiv:1711.00937, section 3.2
_DECAY = 0.98  # of the moving averages; chosen, shorter than the paper's for short trainings
_SILENCE = 15.0  # seconds without a line at most, as on a CPU (chosen)
_DEAD = 0.05  # a code used less often than this share of the mean use is placed anew


class State(NamedTuple):
  """What training changes."""

  params: dict  # all but the codebook, flat
  opt_state: optax.OptState
  counts: jax.Array  # float32[C], moving average of how many features a code takes per step
  sums: jax.Array  # float32[C, E], of the sum of those features


def train(
  masks: np.ndarray,
  *,
  hidden: int = 16,
  embedding: int = 512,
  codes: int = vqvae.NUM_CODES,
  steps: int = 10_000,
  batch_size: int = 64,
  lr: float = 1e-3,
  seed: int = 0,
  progress: Callable[[str], None] = lambda line: None,
) -> dict[str, np.ndarray]:
  """Returns the parameters of a codec that was trained on `masks`, in published names.

  Args:
    masks: uint8[N, 64, 64] (0..255) or float[N, 64, 64] (0..1), each cropped to its box.
    hidden: narrowest width; 16 in the published codec.
    embedding: width of a code; 512 in the published codec.
    codes: size of the codebook, at most 128.
    steps: number of updates.
    batch_size: masks an update.
    lr: of Adam, at its peak; cosine decay.
    seed: of initialisation, batches and restarts.
    progress: called with a line now and then.
  """
  if masks.dtype != np.uint8:
    masks = np.round(np.clip(masks, 0, 1) * 255).astype(np.uint8)
  masks = jnp.asarray(masks)
  key = jax.random.key(seed)
  params = init(key, hidden, embedding, codes)
  book = params.pop(vqvae.CODEBOOK)
  state = State(params, optax.scale_by_adam().init(params), jnp.ones(len(book)), book)
  last = time.monotonic()
  settled = steps * 3 // 4  # restarts after this would leave the decoder no time to adapt
  for i in range(steps):
    rate = lr * min(1.0, (i + 1) / (1 + steps // 50)) * (1 + math.cos(math.pi * i / steps)) / 2
    state, (loss, used) = _step(
      state, masks, jax.random.fold_in(key, i), rate, i < settled, batch_size
    )
    if (i + 1) % 200 == 0 or i + 1 == steps or time.monotonic() - last > _SILENCE:
      last = time.monotonic()
      progress(f"codec: step {i + 1}/{steps} loss {float(loss):.4f}, {int(used)} codes in use")
  return jax.tree.map(np.asarray, {**state.params, vqvae.CODEBOOK: _book(state)})


def init(key: jax.Array, hidden: int, embedding: int, codes: int) -> dict[str, jax.Array]:
  """Random parameters of a codec, float32: He's rule for the weights, zeros for the biases."""
  params = {}
  for i, (name, shape) in enumerate(vqvae.param_shapes(hidden, embedding, codes).items()):
    scale = 1.0 if name == vqvae.CODEBOOK else 0.0  # zeros for the biases
    if len(shape) == 4:
      is_transposed = name.startswith("decoder") and shape[-1] == 4
      # Each output of a transposed convolution sees 2 x 2 of its 4 x 4 taps.
      fan_in = shape[0] * 4 if is_transposed else np.prod(shape[1:])
      scale = (2.0 / fan_in) ** 0.5
    params[name] = scale * jax.random.normal(jax.random.fold_in(key, i), shape)
  return params


def _book(state: State) -> jax.Array:
  return state.sums / jnp.maximum(state.counts, 1e-5)[:, None]


@functools.partial(jax.jit, static_argnames="batch_size", donate_argnums=0)
def _step(state, masks, key, rate, may_restart, batch_size):
  """One update; returns the state and (loss, number of codes in use)."""
  pick, place = jax.random.split(key)
  batch = masks[jax.random.randint(pick, (batch_size,), 0, len(masks))] / 255.0
  book = _book(state)
  grad = jax.value_and_grad(_loss, has_aux=True)
  (loss, (x, index)), grads = grad(state.params, book, batch)
  updates, opt_state = optax.scale_by_adam().update(grads, state.opt_state)
  params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
  counts, sums = _moved(state, book, x, index, place, may_restart)
  used = jnp.sum(counts > _DEAD * jnp.mean(counts))
  return State(params, opt_state, counts, sums), (loss, used)


def _loss(params, book, batch):
  params = {**params, vqvae.CODEBOOK: book}
  x = vqvae.features(params, batch)
  index = vqvae.nearest(params, x)
  quantised = book[index].reshape(x.shape)
  out = vqvae.reconstruct(params, x + jax.lax.stop_gradient(quantised - x))
  distortion = jnp.mean((out - (2.0 * batch - 1.0)) ** 2)
  commitment = jnp.mean((x - jax.lax.stop_gradient(quantised)) ** 2)
  return distortion + COMMITMENT * commitment, (x, index)


def _moved(state, book, x, index, key, may_restart):
  """The moving averages after one step; codes out of use start again at a feature of the batch."""
  x, hot = x.reshape(-1, x.shape[-1]), jax.nn.one_hot(index.reshape(-1), len(book))
  counts = _DECAY * state.counts + (1 - _DECAY) * hot.sum(0)
  sums = _DECAY * state.sums + (1 - _DECAY) * jnp.einsum("nc,ne->ce", hot, x)
  mean = len(x) / len(book)
  dead = (counts < _DEAD * mean) & may_restart
  fresh = x[jax.random.randint(key, (len(book),), 0, len(x))]
  counts = jnp.where(dead, mean, counts)
  return counts, jnp.where(dead[:, None], fresh * mean, sums)


def save(path: str | os.PathLike, params: dict[str, np.ndarray]) -> None:
  """Writes a codec as npz in published names, whole or not at all."""
  path = pathlib.Path(path)
  temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.npz")
  try:
    np.savez(temp, **params)
    os.replace(temp, path)
  except OSError as e:
    raise errors.UserError(f"{path}: cannot be written ({e.strerror})") from None
  finally:
    temp.unlink(missing_ok=True)


def iou(params: dict[str, np.ndarray], masks: np.ndarray, batch_size: int = 64) -> np.ndarray:
  """float[N], intersection over union of each mask with what the codec makes of it.

  Args:
    params: of the codec.
    masks: uint8[N, 64, 64] (0..255) or float[N, 64, 64] (0..1).
    batch_size: masks at a time.
  """
  there_and_back = jax.jit(lambda x: vqvae.decode(params, vqvae.encode(params, x)) > 0)
  scale, out = 255.0 if masks.dtype == np.uint8 else 1.0, []
  for i in range(0, len(masks), batch_size):
    want = masks[i : i + batch_size] / np.float32(scale)
    rows = np.pad(want, ((0, batch_size - len(want)), (0, 0), (0, 0)))
    got, want = np.asarray(there_and_back(rows))[: len(want)], want > 0.5
    out.append((got & want).sum((1, 2)) / np.maximum((got | want).sum((1, 2)), 1))
  return np.concatenate(out) if out else np.zeros(0)
