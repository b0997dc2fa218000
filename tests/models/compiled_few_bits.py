"""Floats that a compiled program keeps of weights in few bits.

python -m tests.models.compiled_few_bits cpu|v5e:1x1 decode|train FORM prints, as JSON, the shapes of all
arrays of floats in memory that are as large as the smallest quantised stack of layers, or larger.
"""

import functools
import json
import math
import sys

import jax
import jax.numpy as jnp

from paligemma_jax import sharding
from paligemma_jax.configs import meshes
from paligemma_jax.decode import generate
from paligemma_jax.models import paligemma, tree, variants
from paligemma_jax.train import adapters, recipes, step, targets
from paligemma_jax.train import optimizer as optimizers
from paligemma_jax.transfers import common
from tests import hlo, toy

# Four layers a tower, and nothing else is as large as four layers of anything.
CONFIG = variants.ModelConfig(
  variants.ImageConfig(width=256, depth=4, mlp_dim=512, num_heads=4, patch_size=14, res=28),
  variants.DecoderConfig(256, 4, 512, 4, 2, 64, vocab_size=300),
)


def compiled(program: str, form: str, devices) -> str:
  """HLO text of decoding 8 tokens, or of a step that trains adapters, for the first of `devices`."""
  rules = meshes.get("single")["rules"]
  mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, list(devices)[:1])
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  place = functools.partial(
    jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
  )
  layout = adapters.layout(common.lora(), CONFIG)
  shape = tree.Form(
    tree.parse_quant(form, CONFIG), layout.adapters(CONFIG) if program == "train" else {}
  )
  floats = "float32" if mesh.devices.flat[0].platform == "cpu" else "bfloat16"
  leaves = tree.formed(CONFIG, shape)
  of = lambda name: "float32" if recipes.is_adapter(name) else leaves[name].dtype or floats
  params = sharding.unflatten(
    {name: jax.ShapeDtypeStruct(x.shape, jnp.dtype(of(name))) for name, x in leaves.items()}
  )
  model = paligemma.PaliGemma(CONFIG, floats, rules=rules)
  batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, toy.batch(CONFIG, 2)))
  if program == "train":
    made = optimizers.make(
      [name for name in leaves if not name.endswith(".lora/scale")],
      10,
      lr=1e-3,
      schedules=((recipes.ADAPTERS, {"decay_type": "stair"}), (".*", None)),
    )
    state = place(jax.eval_shape(lambda p: step.init_state(p, made, 0), params))
    train_step = jax.jit(step.make_train_step(model, made), donate_argnums=0)
    lower = lambda: train_step.lower(state, place(batch))
  else:
    lower = lambda: generate.lower(model, place(params), place(batch), max_new_tokens=8)
  with jax.set_mesh(mesh):
    return lower().compile().as_text()


def main(where: str, program: str, form: str) -> None:
  devices = jax.devices() if where == "cpu" else targets.tpu(where).devices
  plain = tree.plain(CONFIG)
  least = min(
    math.prod(plain[name].shape) for name in tree.parse_quant(form, CONFIG) if plain[name].stack
  )
  print(json.dumps(sorted(hlo.float_shapes(compiled(program, form, devices), least))))


if __name__ == "__main__":
  main(*sys.argv[1:])
