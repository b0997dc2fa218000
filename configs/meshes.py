"""Meshes by name: the sizes of the axes, and which logical axis lies on which of them.

Plain data; `paligemma_jax/sharding.py` reads it. -1 is "all other devices". What has no rule is
whole on every device. Devices follow each other along "tensor" first, then "fsdp", then "data": so
"data" is the axis that crosses from slice to slice, where there are several.
"""

_AXES = {"data": 1, "fsdp": 1, "tensor": 1}
_RULES = (
  ("batch", ("data", "fsdp")),
  ("auto", "fsdp"),  # parameters by size: the largest dimension that divides is split
)
_TENSOR = (("heads", "tensor"), ("kv_heads", "tensor"), ("mlp", "tensor"))

MESHES = {
  # One device, whatever else there is.
  "single": {"axes": _AXES, "rules": ()},
  # Every device holds all parameters and its share of the batch.
  "data": {"axes": _AXES | {"data": -1}, "rules": _RULES},
  # Every device holds its share of the parameters and of the batch.
  "fsdp": {"axes": _AXES | {"fsdp": -1}, "rules": _RULES},
  # The same within every 8 devices, of which all hold the same: "data_fsdp", or "data_fsdp:64".
  "data_fsdp": {"axes": _AXES | {"data": -1, "fsdp": 8}, "rules": _RULES},
  # Heads and hidden units are split as well, for models or batches that leave a device too little
  # or too much: "fsdp_tensor" over 2 devices, "fsdp_tensor:4" over 4.
  "fsdp_tensor": {"axes": _AXES | {"fsdp": -1, "tensor": 2}, "rules": _RULES + _TENSOR},
}


def get(name: str) -> dict:
  """Returns {"axes": {axis: size}, "rules": ((logical axis, mesh axes), …)} of a mesh.

  Args:
    name: NAME; NAME:SIZE, of the axis that the name ends with; or all sizes, as in
      "data=2,fsdp=-1,tensor=4", where one left out is 1.

  Raises:
    KeyError: the name is not in `MESHES`, or no axis has that name.
    ValueError: a size is no number.
  """
  if "=" in name:
    sizes = {axis: int(n) for axis, n in (part.split("=") for part in name.split(","))}
    if unknown := sizes.keys() - _AXES.keys():
      raise KeyError(min(unknown))
    return {"axes": _AXES | sizes, "rules": _RULES + _TENSOR}
  base, _, size = name.partition(":")
  mesh = MESHES[base]
  return mesh if not size else mesh | {"axes": mesh["axes"] | {base.split("_")[-1]: int(size)}}
