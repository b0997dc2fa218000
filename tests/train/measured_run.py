"""The memory that training steps really take, beside what the plan says.

`python -m tests.train.measured_run PRESET BATCH STEPS [REMAT [RECIPE]]` prints {"planned", "risen"}, bytes:
the plan's peak, and the rise of this process's peak resident memory over that many steps with all
that they need, from a random state on.
"""

import gc
import json
import os
import pathlib
import sys

import jax
import numpy as np

from paligemma_jax.train import initial, plan, saved, setup, targets
from paligemma_jax.transfers import common


def resident(field: str) -> int:
  """Bytes of a field of /proc/self/status, e.g. "VmRSS", "VmHWM" (the peak of it)."""
  lines = pathlib.Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(
  preset: str, batch_size: int, steps: int, remat: str = "nothing_saveable", recipe: str = "full"
) -> dict[str, int]:
  """The two figures."""
  c = common.base(res=0, text_len=128)
  c.model.update(preset=preset, init="", remat=remat)
  c.train.data.none = common.jsonl("none.jsonl")
  c.train.update(batch_size=batch_size, steps=100, recipe=recipe)
  made = plan.make(c, targets.cpu())
  planned = plan.train_step(made).memory.peak
  abstract, shardings = initial.abstract_state(made.config, made.parts, made.optimizer)
  batch = plan.abstract_batch(made, batch_size, 129)
  rng = np.random.default_rng(0)
  with jax.set_mesh(made.parts.mesh):
    train_step = setup.jit_step(
      made.parts, made.optimizer, shardings, **setup.step_options(made.config)
    )
    train_step = train_step.lower(saved.with_shardings(abstract, shardings), batch).compile()
    gc.collect()
    before = resident("VmRSS")

    def fill(x):
      small = 0.02 * rng.standard_normal(x.shape[-1:], np.float32) if x.ndim else np.float32(0)
      return jax.device_put(np.broadcast_to(small, x.shape).astype(x.dtype), x.sharding)

    state = jax.tree.map(fill, saved.with_shardings(abstract, shardings))
    batch = jax.tree.map(fill, batch)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the steps
    for _ in range(steps):
      state, scalars = train_step(state, batch)
      jax.block_until_ready(scalars)
  return {"planned": planned, "risen": resident("VmHWM") - before}


if __name__ == "__main__":
  os.environ["JAX_PLATFORMS"] = "cpu"
  name, size, count, *rest = sys.argv[1:]
  print(json.dumps(main(name, int(size), int(count), *rest)))
