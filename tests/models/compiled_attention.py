"""Bytes of temporaries of one attention layer at 896 px, with gradients, compiled for a TPU.

python -m tests.models.compiled_attention v5e:1x1 tower|decoder prints "BEST WHOLE": as `attend`
chooses, and as one einsum. The dimensions are those of PaliGemma 3b, 128 text tokens, batch 4.
"""

import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from paligemma_jax import sharding
from paligemma_jax.configs import meshes
from paligemma_jax.models import attention, gemma_block, siglip, variants
from paligemma_jax.train import targets

BATCH, TEXT = 4, 128


def main(topology: str, name: str):
  mesh_config = meshes.get("fsdp")
  rules = mesh_config["rules"]
  mesh = sharding.make_mesh(mesh_config["axes"], list(targets.tpu(topology).devices))
  c = variants.preset("paligemma-3b", res=896)
  where = sharding.batch_sharding(mesh, rules, BATCH)
  rows = lambda dtype, *shape: jax.ShapeDtypeStruct((BATCH, *shape), dtype, sharding=where)
  everywhere = NamedSharding(mesh, PartitionSpec())
  norm = lambda width: jax.ShapeDtypeStruct((width,), jnp.float32, sharding=everywhere)
  N, S = c.img.num_tokens, c.img.num_tokens + TEXT
  if name == "tower":
    layer = siglip.SelfAttention(c.img.num_heads, "bfloat16", rules)
    args = rows(jnp.float32, N, c.img.width), (norm(c.img.width), norm(c.img.width))
    call = lambda *args: layer.apply(*args)
  else:
    layer = gemma_block.Attention(c.llm, "bfloat16", rules)
    args = (
      rows(jnp.float32, S, c.llm.width),
      norm(c.llm.width),
      rows(jnp.int32, S),
      rows(bool, S, S),
    )
    call = lambda *args: layer.apply(*args, num_image=N)[0]

  def temporaries() -> int:
    params = jax.eval_shape(layer.init, jax.random.key(0), *args)
    params = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), params
    )
    total = lambda *args: jnp.sum(jnp.square(call(*args).astype(jnp.float32)))
    with jax.set_mesh(mesh):
      compiled = jax.jit(jax.grad(total, (0, 1))).lower(params, *args).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  best = temporaries()
  attention.attend = lambda q, k, v, mask=None, softcap=0.0, **_: attention.attend_whole(
    q, k, v, mask, softcap
  )
  print(best, temporaries())


if __name__ == "__main__":
  main(*sys.argv[1:])
