"""Meshes by name: the sizes of the axes, and which logical axis lies on which of them.

Plain data; `paligemma_jax/sharding.py` reads it. -1 is "all other devices". What has no rule is
whole on every device.
"""

_AXES = {"data": 1, "fsdp": 1, "tensor": 1}
_FSDP = (
  ("batch", ("data", "fsdp")),
  ("auto", "fsdp"),  # parameters by size: the largest dimension that divides is split
)

MESHES = {
  # One device, whatever else there is.
  "single": {"axes": _AXES, "rules": ()},
  # Every device holds its share of the parameters and of the batch.
  "fsdp": {"axes": _AXES | {"fsdp": -1}, "rules": _FSDP},
  # Heads and hidden units are split as well, for models or batches that leave a device too little
  # or too much: "fsdp_tensor" over 2 devices, "fsdp_tensor:4" over 4.
  "fsdp_tensor": {
    "axes": _AXES | {"fsdp": -1, "tensor": 2},
    "rules": (*_FSDP, ("heads", "tensor"), ("mlp", "tensor")),
  },
}


def get(name: str) -> dict:
  """Returns {"axes": {axis: size}, "rules": ((logical axis, mesh axes), …)} of NAME or NAME:TENSOR.

  Raises:
    KeyError: the name is not in `MESHES`.
    ValueError: what follows the colon is no number.
  """
  base, _, tensor = name.partition(":")
  mesh = MESHES[base]
  return mesh if not tensor else mesh | {"axes": mesh["axes"] | {"tensor": int(tensor)}}
