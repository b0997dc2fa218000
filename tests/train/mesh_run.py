"""A run of two processes whose devices do not follow each other in the mesh: all that they exchange.

`python -m tests.train.mesh_run WORKDIR DATA LAYOUT [LAST]` is one of two processes of two devices
each; after step LAST one of them sends itself a SIGTERM.
"""

import json
import os
import pathlib
import signal
import sys

from paligemma_jax.transfers import common
from tests.train import toy_run

# Name -> (mesh, the processes of its devices in turn): a ring, as TPU slices are laid, and groups of
# "tensor" that cross the processes.
LAYOUTS = {"ring": ("fsdp", (0, 1, 1, 0)), "crossing": ("fsdp_tensor", (0, 1, 0, 1))}


def write_data(folder: pathlib.Path) -> pathlib.Path:
  """The toy data, and five pictures with a box of one of two labels."""
  toy_run.write_data(folder)
  lines = []
  for i in range(5):
    thing = {"label": ("cat", "dog")[i % 2], "box": [1, 2, 8, 14 - i]}
    lines.append({"image": f"{i % 4}.png", "objects": [thing], "id": i})
  (folder / "objects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return folder


def config(data: pathlib.Path, mesh: str = "fsdp"):
  """Four steps on a mixture; then boxes, drawn at random, answers of given ones, likelihoods."""
  c = toy_run.config(data, steps=4, mesh=mesh)
  texts, boxes = (common.jsonl(str(data / f"{name}.jsonl")) for name in ("train", "objects"))
  boxes.task = "detect"
  c.input.text_len = 32
  del c.evals.val
  c.train.data.boxes = boxes
  for name, source, metric, options in (
    ("boxes", boxes, "boxes", {"constrain": "detect", "sampler": "temperature:1.0"}),
    ("chosen", texts, "exact_match", {"answers": toy_run.ANSWERS}),
    ("nll", texts, "perplexity", {}),
  ):
    c.evals[name] = common.evaluate(source, metric, max_new_tokens=6, batch_size=3, **options)
  return c


def main(workdir, data, layout, last="99"):
  import jax

  from paligemma_jax import sharding
  from paligemma_jax.train import loop, processes

  processes.join()
  mesh, order = LAYOUTS[layout]
  left = {p: [d for d in jax.devices() if d.process_index == p] for p in set(order)}
  devices, make = [left[p].pop() for p in order], sharding.make_mesh
  sharding.make_mesh = lambda axes, _: make(axes, devices)

  def send(done, scalars):
    if jax.process_index() == 1 and done == int(last):
      os.kill(os.getpid(), signal.SIGTERM)

  loop.train(config(pathlib.Path(data), mesh), workdir, callbacks=[send])


if __name__ == "__main__":
  main(*sys.argv[1:])
