"""Devices to compile for that are not there: TPU slices, simulated CPU devices."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from paligemma_jax import errors
from paligemma_jax.train import chips

TOPOLOGIES = {"v4": 4096, "v5e": 256, "v5p": 8960, "v6e": 256, "tpu7x": 9216}  # chips of a pod


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices to compile for."""

  name: str
  devices: tuple[Any, ...]
  chip: chips.Chip | None  # None: its limits are not known
  memory: float  # bytes that a program can have on one device


def tpu(topology: str) -> Target:
  """The chips of a TPU slice, e.g. "v5e:4x4" or "v5p:4x4x4", as libtpu's compiler knows them.

  Raises:
    UserError: libtpu is not installed, or there is no such slice.
  """
  match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*){1,2})", topology)
  if not match or match[1] not in TOPOLOGIES:
    hint = errors.did_you_mean(topology.partition(":")[0], TOPOLOGIES)
    raise errors.UserError(f'--topology "{topology}" is no NAME:AxB or NAME:AxBxC{hint}')
  name, shape = match[1], [int(n) for n in match[2].split("x")]
  is_flat = name in ("v5e", "v6e")  # larger ones make their compiler abort the process
  if math.prod(shape) > TOPOLOGIES[name] or is_flat and (len(shape) > 2 or max(shape) > 16):
    most = "16x16" if is_flat else f"{TOPOLOGIES[name]} chips"
    raise errors.UserError(f"--topology {topology}: a slice of {name} has at most {most}")
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError("--topology needs the TPU compiler: pip install 'paligemma_jax[tpu]'")
  for key, value in {
    "TPU_WORKER_HOSTNAMES": "localhost",  # do not ask the cloud who we are
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at a time
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
  }.items():
    os.environ.setdefault(key, value)
  from jax.experimental import topologies

  # What is compiled without a TPU cannot be read back without one.
  jax.config.update("jax_enable_compilation_cache", False)
  options = {"chip_config_name": "megacore"} if name == "v4" else {}  # one device a chip
  if math.prod(shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
  except Exception as e:  # of several kinds; what is wrong stands in the first line
    raise errors.UserError(f"--topology {topology}: {str(e).splitlines()[0]}") from e
  devices = tuple(found.devices)
  chip = chips.of(devices[0].device_kind)
  return Target(topology, devices, chip, chip.memory)


def cpu(num_devices: int = 1) -> Target:
  """So many simulated CPU devices, which share this machine's memory.

  Raises:
    UserError: JAX runs already, with fewer.
  """
  if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # it would say so already
    with contextlib.suppress(RuntimeError):  # the backend is there; it may have enough
      jax.config.update("jax_num_cpu_devices", num_devices)
  devices = jax.devices("cpu")
  if not 0 < num_devices <= len(devices):
    raise errors.UserError(
      f"--devices {num_devices}: this process can simulate 1 to {len(devices)}"
    )
  whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  name = f"{num_devices} CPU device" + ("s" if num_devices > 1 else "")
  return Target(name, tuple(devices[:num_devices]), None, whole / num_devices)
