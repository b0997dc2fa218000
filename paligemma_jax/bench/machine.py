"""What the machine can do at most: the limits that everything else is measured by."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

NAME = "the machine"
SIDE = 2048  # of the square matrices on a CPU
GPU_SIDE = 8192
READ = 2**28  # numbers


def limits() -> dict[str, Callable[[], Any]]:
  """{"matmul": one product of square matrices, "read": one pass over many numbers}, as jobs."""
  on_cpu = jax.default_backend() == "cpu"
  dtype = jnp.float32 if on_cpu else jnp.bfloat16
  a = jnp.ones((_side(), _side()), dtype)
  # A vector times a matrix reads every number once and, unlike a sum, on all cores.
  table, x = jnp.ones((READ // 2**13, 2**13), dtype), jnp.ones((1, READ // 2**13), dtype)
  matmul, read = jax.jit(jnp.matmul), jax.jit(jnp.matmul)

  def done(y):
    jax.block_until_ready(y)

  return {"matmul": lambda: done(matmul(a, a)), "read": lambda: done(read(x, table))}


def rates(seconds: dict[str, float]) -> dict[str, float]:
  """{"flops": operations a second, "bytes": read a second} from the seconds of the jobs."""
  width = 4 if jax.default_backend() == "cpu" else 2
  return {"flops": 2 * _side() ** 3 / seconds["matmul"], "bytes": width * READ / seconds["read"]}


def describe() -> dict[str, Any]:
  """Processor, cores, memory in bytes, accelerators, and the versions of what is compared."""
  model = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else model
  versions = {}
  for name in ("jax", "torch", "transformers"):
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass
  return {
    "processor": model,
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "devices": sorted({d.device_kind for d in jax.devices()}),
    "python": platform.python_version(),
    "versions": versions,
  }


def free_memory() -> int:
  """Bytes that can be used without swapping."""
  info = pathlib.Path("/proc/meminfo")
  if not info.exists():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  line = next(x for x in info.read_text().splitlines() if x.startswith("MemAvailable"))
  return int(line.split()[1]) * 1024


def _side() -> int:
  return SIDE if jax.default_backend() == "cpu" else GPU_SIDE
