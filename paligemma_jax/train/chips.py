"""What accelerators can do at most, from their data sheets, and the time of a program at that limit."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from paligemma_jax.models import flops


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as JAX counts them, at its published limits."""

  name: str
  flops: float  # bfloat16 operations per second, dense
  memory: float  # bytes that a program can have
  bandwidth: float  # of the memory, bytes per second
  links: float  # to other devices of a slice or node, all of them, one direction, bytes per second
  kind: str  # regex of JAX's `device_kind`


# cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, "System architecture", per chip; links are half of
# the bidirectional bandwidth stated there. A tpu7x is two devices with half of it each. The memory is
# what libtpu's compiler allows, a quarter to one GiB less than there is.
# nvidia.com, data sheets of the SXM forms, without sparsity; links are half of NVLink's bandwidth.
CHIPS = (
  Chip("v4", 275e12, 30.75 * 2**30, 1.2e12, 300e9, "TPU v4"),
  Chip("v5e", 197e12, 15.75 * 2**30, 0.82e12, 200e9, "TPU v5 ?(lite|e)"),
  Chip("v5p", 459e12, 95.74 * 2**30, 2.77e12, 600e9, "TPU v5p?"),
  Chip("v6e", 918e12, 31.25 * 2**30, 1.64e12, 400e9, "TPU v6 ?(lite|e)"),
  Chip("tpu7x", 2307e12 / 2, 94.75 * 2**30, 7.38e12 / 2, 300e9, "TPU ?v?7x"),
  Chip("a100-40gb", 312e12, 40e9, 1.56e12, 300e9, "NVIDIA A100-SXM4-40GB"),
  Chip("a100-80gb", 312e12, 80e9, 2.04e12, 300e9, "NVIDIA A100-SXM4-80GB"),
  Chip("h100", 989e12, 80e9, 3.35e12, 450e9, "NVIDIA H100 80GB HBM3"),
  Chip("h200", 989e12, 141e9, 4.8e12, 450e9, "NVIDIA H200"),
)


def of(device_kind: str) -> Chip | None:
  """The chip that JAX calls so, e.g. "TPU v5 lite"; None if its limits are not known here."""
  return next((c for c in CHIPS if re.fullmatch(c.kind, device_kind)), None)


class Roofline(NamedTuple):
  """Seconds that a step takes at least, on every device at once."""

  products: float  # each as long as its arithmetic or its memory takes, whichever is longer
  update: float  # the optimizer reads and writes its state
  links: float  # what is sent to other devices

  @property
  def seconds(self) -> float:
    """With everything sent while something is computed."""
    return max(self.products + self.update, self.links)

  @property
  def exposed(self) -> float:
    """With nothing sent while something is computed."""
    return self.products + self.update + self.links


def roofline(
  chip: Chip,
  work: Iterable[tuple[flops.Product, int]],
  *,
  batch_size: int,
  devices: int,
  tensor: int = 1,
  pieces: int = 1,
  itemsize: int = 2,
  stored: Mapping[str, float] | None = None,
  updated: float = 0.0,
  sent: float = 0.0,
) -> Roofline:
  """The time of a step at the chip's limits (Williams et al., "Roofline", CACM 2009).

  A product moves its operands and its result through the memory once, in the compute dtype; under
  FSDP every device reads the whole weight. Element-wise work rides along with the products, and
  attention's probabilities do not leave the chip: kernels that are worse take longer.

  Args:
    chip: the limits; arithmetic is bfloat16's.
    work: products of one example, and how often a step does each.
    batch_size: examples over all devices.
    devices: that share the work.
    tensor: devices that share one weight.
    pieces: that the batch is cut into, one after the other.
    itemsize: bytes of the compute dtype.
    stored: name of a weight in few bits -> bytes of one of its values; its wide form does not leave
      the chip.
    updated: bytes per device that the optimizer reads and writes.
    sent: bytes per device that go to other devices.
  """
  seconds = 0.0
  for product, times in work:
    rows = batch_size / devices
    weights = product.weights * (stored or {}).get(product.name, itemsize)
    moved = itemsize * product.activations * rows + weights * pieces / tensor
    seconds += times * max(product.flops * rows / chip.flops, moved / chip.bandwidth)
  return Roofline(seconds, updated / chip.bandwidth, sent / chip.links)
