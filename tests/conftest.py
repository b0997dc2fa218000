"""Stricter than any user: no silent rank promotion, eight CPU devices, a shared compilation cache."""

import os
import pathlib
import sys
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_force_host_platform_device_count=8"
  # eight threads on a busy machine of two cores may meet late
  " --xla_cpu_collective_call_terminate_timeout_seconds=600"
  # small programs that run a few times: what takes the time is compiling them
  " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "paligemma_jax_test_cache")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("PALIGEMMA_TOKENIZER", None)

from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()  # grain's workers ask for absl flags


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
  """The programs of a module would stay in memory to the end, gigabytes in all."""
  yield
  if "jax" in sys.modules:
    sys.modules["jax"].clear_caches()
