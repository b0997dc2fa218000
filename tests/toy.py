"""A toy model, tokenizer and pictures for the tests: small, deterministic, nothing downloaded."""

import dataclasses
import functools

import numpy as np

from paligemma_jax.models import tree, variants
from paligemma_jax.structs import Batch


def config(family: str = "paligemma", vocab_size: int = 1500, res: int = 28, **settings):
  """A model of two layers a tower whose odd sizes catch transposed axes (N*H is not D)."""
  img = variants.ImageConfig(width=24, depth=2, mlp_dim=40, num_heads=3, patch_size=14, res=res)
  if family == "paligemma":
    llm = variants.DecoderConfig(48, 2, 80, 4, 1, 16, vocab_size)
  else:
    llm = variants.DecoderConfig(
      48, 2, 80, 4, 2, 16, vocab_size, post_norms=True, attn_logits_softcap=50.0
    )
  return variants.ModelConfig(img, llm).replace(**settings)


def flat_params(cfg, seed: int = 0, dtype=np.float32) -> dict[str, np.ndarray]:
  """Random parameters, flat name -> array; every value is exact in bfloat16."""
  rng = np.random.default_rng(seed)
  flat = {}
  for name, shape in tree.param_shapes(cfg).items():
    scale = 0.1 if name.endswith(("scale", "bias")) else shape[-2 if len(shape) > 1 else 0] ** -0.5
    x = rng.normal(size=shape).astype(np.float32) * np.float32(scale)
    flat[name] = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32).astype(dtype)
  return flat


def batch(cfg, size: int):
  """A random batch in the training layout, 7 tokens of text."""
  rng, res = np.random.default_rng(0), cfg.img.res
  return Batch(
    image=rng.integers(0, 256, (size, res, res, 3), dtype=np.uint8),
    mask_image=np.ones((size, 1), bool),
    text=rng.integers(0, cfg.llm.vocab_size, (size, 7), dtype=np.int32),
    mask_ar=np.tile(np.array([0, 0, 0, 1, 1, 1, 1], np.int32), (size, 1)),
    mask_input=np.ones((size, 7), bool),
    mask_loss=np.tile(np.array([0, 0, 0, 1, 1, 1, 0], np.float32), (size, 1)),
    valid=np.ones(size, bool),
  )


@functools.cache
def pictures() -> tuple[np.ndarray, ...]:
  """Four uint8[H, W, 3] pictures of different shapes."""
  rng = np.random.default_rng(7)
  return tuple(
    rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    for h, w in ((30, 40), (28, 28), (17, 9), (50, 31))
  )


@dataclasses.dataclass(frozen=True)
class Device:
  """A device that is not there."""

  id: int
  process_index: int
  platform: str = "cpu"
  device_kind: str = "cpu"
  coords: tuple[int, ...] = ()
  core_on_chip: int = 0


def tpu_slice(width: int, height: int) -> list[Device]:
  """The chips of a TPU v6e slice that is not there, four on a host."""
  chips = [(x, y) for y in range(height) for x in range(width)]
  host = lambda x, y: y // 2 * (width // 2) + x // 2
  return [Device(i, host(x, y), "tpu", "TPU v6 lite", (x, y, 0)) for i, (x, y) in enumerate(chips)]


def mesh(processes: str, tensor: int = 1):
  """A mesh over "fsdp" and "tensor" of devices of these processes, e.g. "0110"; computes nothing."""
  import jax

  devices = np.empty(len(processes), object)
  devices[:] = [Device(i, int(process)) for i, process in enumerate(processes)]
  kinds = (jax.sharding.AxisType.Auto,) * 3
  return jax.sharding.Mesh(devices.reshape(1, -1, tensor), ("data", "fsdp", "tensor"), kinds)


@functools.cache
def tokenizer():
  """A BPE tokenizer with Gemma's special layout, at most the 1500 ids of `config()`."""
  from paligemma_jax.processing import tokenizer as tokenizer_lib

  lines = [
    "caption en", "answer en how many digits?", "answer en what colour?", "detect cat ; dog",
    "segment cat", "three digits: 1, 4 and 9", "a cat and a dog", "yes", "no", "red", "dark red",
  ]  # fmt: skip
  return tokenizer_lib.Tokenizer.train(lines * 4, vocab_size=1500)
