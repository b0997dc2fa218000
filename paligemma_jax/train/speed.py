"""How much a training step computes, and how much of what the devices can do that is."""

import dataclasses
from collections.abc import Mapping

import jax

from paligemma_jax.models import flops, tree, variants
from paligemma_jax.train import chips


@dataclasses.dataclass(frozen=True)
class Work:
  """A run's steps, as far as their cost goes."""

  config: variants.ModelConfig
  batch_size: int  # over all devices
  window: int  # supervised tokens of an example that meet the vocabulary
  trained: tuple[str, ...]  # names of the parameters
  devices: tuple[jax.Device, ...]
  dtype: str  # of the products
  adapters: Mapping[str, tree.Adapter] = dataclasses.field(default_factory=dict)

  def rates(self, text_len: int, images: int, seconds: float) -> dict[str, float]:
    """What a step of so many seconds comes to.

    Args:
      text_len: T, of its batch.
      images: pictures of every example, missing ones included.
      seconds: of the step.

    Returns:
      "tokens_per_second" (of images and text, padding included, over all devices);
      "tflops_per_device", the operations that the step has to do (`models/flops.py`; what is done
      twice to save memory does not count) in 1e12 per second; where the chip's limit is known and the
      products are bfloat16, "mfu", their share of it; where the device tells,
      "peak_memory_bytes", the most that it has held so far.
    """
    work = flops.train_step(
      self.config,
      batch_size=self.batch_size,
      text_len=text_len,
      images=images,
      supervised=min(self.window, text_len),
      trained=self.trained,
      adapters=self.adapters,
    )
    per_device = work.model / seconds / len(self.devices)
    tokens = self.batch_size * (images * self.config.img.num_tokens + text_len)
    found = {"tokens_per_second": tokens / seconds, "tflops_per_device": per_device / 1e12}
    chip = chips.of(self.devices[0].device_kind)
    if chip is not None and self.dtype == "bfloat16":
      found["mfu"] = per_device / chip.flops
    memory = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:
      found["peak_memory_bytes"] = memory["peak_bytes_in_use"]
    return found
