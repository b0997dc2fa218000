#!/usr/bin/env bash
# jax.make_mesh of JAX 0.10.2 does not keep the devices of a process together on a TPU slice: along the one axis of a
# mesh over v5e:4x4, processes 0 to 3 come as 0 0 1 1 1 1 0 2 3 …, because neighbours on the mesh are made
# neighbours in the torus.
#
# So "process k holds rows k B to (k + 1) B of the batch" is wrong there, though it holds on GPUs and on CPUs, and
# nothing fails: make_array_from_process_local_data takes the rows of a process for the pieces that it holds,
# wherever these lie, and what comes back by position belongs to other examples. Which rows a process holds
# is told by Sharding.devices_indices_map. And the same call that lays an axis over a part of a
# physical one on v5e raises NotImplementedError on v6e, unless allow_split_physical_axes=True.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q 'jax[tpu]==0.10.2' libtpu==0.0.42.1
cd "$tmp"
export JAX_PLATFORMS=cpu TPU_WORKER_HOSTNAMES=localhost TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1
venv/bin/python - 2>/dev/null <<'PY'
import jax
from jax.experimental import topologies


def devices(slice_name):
  return list(topologies.get_topology_desc(platform="tpu", topology_name=slice_name).devices)


mesh = jax.make_mesh((16,), ("x",), devices=devices("v5e:4x4"))
order = [d.process_index for d in mesh.devices.flat]
print("v5e:4x4", *order)
changes = sum(a != b for a, b in zip(order, order[1:]))
assert sorted(order) == sorted([0, 1, 2, 3] * 4) and changes > 3, "processes lie together now"

for name in ("v5e:4x4", "v6e:4x4"):
  try:
    jax.make_mesh((1, 8, 2), ("a", "b", "c"), devices=devices(name))
    said = "a mesh"
  except NotImplementedError as e:
    said = f"NotImplementedError: {str(e)[:60]}"
  print(name, "1 x 8 x 2:", said)
  assert said.startswith("a mesh" if name[1] == "5" else "NotImplementedError")
PY
