"""`python -m tests.slices`: every kind of TPU slice laid out in every mesh, by libtpu's topologies.

Prints what fails, if anything does, and at last the processes along the mesh of a v5e:4x4.
"""

import jax

from paligemma_jax import errors, sharding
from paligemma_jax.configs import meshes
from paligemma_jax.train import setup, targets

SLICES = {
  "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x4x12", "4x8x8", "8x8x8"),
  "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
  "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
}
LAYOUTS = (
  *meshes.MESHES,
  *("data_fsdp:4", "data_fsdp:16", "data_fsdp:64", "fsdp_tensor:4", "fsdp_tensor:8"),
  *("data=2,fsdp=-1,tensor=2", "data=2,fsdp=-1,tensor=4", "data=4,fsdp=2,tensor=-1"),
)


def held(devices, layout: str) -> set[int]:
  """The rows of a batch that all processes hold together; all of them are wanted."""
  mesh, rules = setup.make_mesh(layout, devices=devices)
  size, found = sharding.batch_ways(mesh, rules), set()
  for process in {d.process_index for d in mesh.devices.flat}:
    jax.process_index = lambda: process  # noqa: B023 - used at once
    found |= set(sharding.rows_here(mesh, rules, size).tolist())
  return set(range(size)) - found


def main():
  for name, shapes in SLICES.items():
    for shape in shapes:
      devices = targets.tpu(f"{name}:{shape}").devices
      for layout in LAYOUTS:
        try:
          missing = held(devices, layout)
        except errors.UserError as e:
          if "does not fill" in str(e):
            continue  # more than there are
          missing = e
        if missing:
          print(f"{name}:{shape} {layout}: {missing}")
  mesh, _ = setup.make_mesh("fsdp", devices=targets.tpu("v5e:4x4").devices)
  print([d.process_index for d in mesh.devices.flat])


if __name__ == "__main__":
  main()
