"""Makes the table of docs/plan.md: what the published models need on TPU slices.

  nice python scripts/plan_tables.py [REGEX]      needs libtpu: pip install '.[tpu]'

Every line is a training step that is compiled, one to four minutes on two cores. Its figures go to
docs/plan.json at once, so the script may be ended and started again; what is there is not compiled
anew (delete it to have it measured with the code of today). REGEX chooses among names such as
"paligemma-3b-448 v5e:4x4". The table is written at the end, from all figures there are.
"""

import json
import os
import pathlib
import re
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs on an accelerator

import jax
import libtpu

from paligemma_jax.configs import models
from paligemma_jax.train import hlo, plan, targets
from paligemma_jax.transfers import common

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- plan_tables.py begins -->", "<!-- plan_tables.py ends -->"
SLICES = {  # variant -> slices that a group may have, small ones first
  "paligemma-3b": ("v5e:4x4", "v5p:2x2x1", "v6e:2x4"),
  "paligemma2-10b": ("v5e:8x8", "v5p:2x2x4", "v6e:4x4"),
  "paligemma2-28b": ("v5e:16x16", "v5p:4x4x4", "v6e:8x8"),
}
MOST = 128  # devices that share the parameters: the image tower's width does not divide over more
CASES = {
  f"{variant}-{res} {topology}": (f"{variant}-{res}", topology)
  for variant, slices in SLICES.items()
  for topology in slices
  for res in (224, 448, 896)
}


def config(name: str, num_devices: int):
  """A full fine-tune with Adam, everything else as the transfers have it."""
  c = common.base()
  c.model.update(models.MODELS[name]["model"] | {"init": ""})
  c.input.update(models.MODELS[name]["input"])
  c.train.data.none = common.jsonl("none.jsonl")
  c.train.update(batch_size=max(64, num_devices), steps=1000)
  if num_devices > MOST:
    c.mesh = f"data_fsdp:{MOST}"
  return c


def measure(name: str, topology: str) -> dict:
  """The figures of one training step: bytes of a device, seconds, FLOPs over all devices."""
  target = targets.tpu(topology)
  made = plan.make(config(name, len(target.devices)), target)
  p = plan.train_step(made)
  return {
    "batch_size": p.batch_size,
    "devices": len(target.devices),
    "fits": p.memory.fits,
    "peak": p.memory.peak,
    "limit": p.memory.limit,
    "params": p.memory.params,
    "optimizer": p.memory.optimizer,
    "temporaries": None if p.memory.is_refused else p.memory.temporaries,
    "model_flops": p.model_flops,
    "hardware_flops": p.hardware_flops,
    "sent": hlo.total_bytes(p.collectives) if p.memory.fits else None,
    "seconds": p.roofline.seconds if p.memory.fits else None,
    "exposed": p.roofline.exposed if p.memory.fits else None,
    "mfu": p.mfu(target.chip, len(target.devices)) if p.memory.fits else None,
    "compile_seconds": round(p.compile_seconds, 1),
    "made_with": f"jax {jax.__version__}, libtpu {libtpu.__version__}",
  }


def table(found: dict[str, dict]) -> str:
  """The figures as a Markdown table, in the order of `CASES`."""
  head = (
    "| model | slice | batch | peak GiB | of | step s | examples/s | MFU | compiled s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
  )
  rows = []
  for case, (name, topology) in CASES.items():
    if case not in found:
      continue
    f = found[case]
    cells = [
      name,
      topology,
      f["batch_size"],
      f"{f['peak'] / 2**30:.2f}",
      f"{f['limit'] / 2**30:.2f}",
    ]
    if f["fits"]:
      rate = f["batch_size"] / f["seconds"]
      cells += [f"{f['seconds']:.2f} to {f['exposed']:.2f}", f"{rate:.0f}", f"{f['mfu']:.0%}"]
    else:
      cells += ["does not fit", "", ""]
    rows.append("| " + " | ".join(str(c) for c in (*cells, f"{f['compile_seconds']:.0f}")) + " |")
  return "\n".join((*head, *rows))


def write(path: pathlib.Path, text: str) -> None:
  """Whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(text)
  os.replace(temporary, path)


def main(regex: str = "") -> None:
  figures, page = DOCS / "plan.json", DOCS / "plan.md"
  found = json.loads(figures.read_text()) if figures.exists() else {}
  for case, (name, topology) in CASES.items():
    if case not in found and re.search(regex, case):
      print(f"{case} …", flush=True)
      found[case] = measure(name, topology)
      print(f"{case}: {json.dumps(found[case])}", flush=True)
      write(figures, json.dumps(found, indent=1) + "\n")
  before, rest = page.read_text().split(BEGIN)
  write(page, f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
  main(*sys.argv[1:])
