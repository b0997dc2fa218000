"""Collectives of a compiled program: kinds, how often they run, what a device sends."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from paligemma_jax import sharding
from paligemma_jax.train import hlo

TEXT = """HloModule jit_step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: bf16[8,4]) -> bf16[16,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %ag.2 = bf16[16,4]{1,0} all-gather(%p), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}
}

%body (x: (s32[], f32[10])) -> (s32[], f32[10]) {
  %x = (s32[], f32[10]{0}) parameter(0)
  %y = f32[10]{0} get-tuple-element(%x), index=1
  %ar = f32[10]{0} all-reduce(%y), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %t = (s32[], f32[10]{0}) tuple(%i, %ar)
}

%condition (x: (s32[], f32[10])) -> pred[] {
  %limit = s32[]{:T(128)} constant(27)
  %x.1 = (s32[], f32[10]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%x.1), index=0
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (p0: bf16[8,4], p1: f32[10]) -> f32[] {
  %p0 = bf16[8,4]{1,0} parameter(0)
  %ag.1 = bf16[16,4]{1,0} all-gather(%p0), channel_id=7, replica_groups=[2,2]<=[4], dimensions={0}
  %fusion = bf16[16,4]{1,0} fusion(%p0), kind=kLoop, calls=%fused
  %loop = (s32[], f32[10]{0}) while(%init), condition=%condition, body=%body
  %start = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%p1), channel_id=2, source_target_pairs={{0,1},{1,0}}
  %done = f32[6]{0} collective-permute-done(%start)
  ROOT %rs = f32[5]{0} reduce-scatter(%p1), channel_id=3, replica_groups=mesh['a'=2,'b'=2] {'b'}, to_apply=%add
}
"""


def found(text, **options):
  return {c.kind: c for c in hlo.collectives(text, 4, **options)}


def test_a_body_counts_as_often_as_its_loop_turns_and_a_fused_chain_once():
  assert found(TEXT) == {
    "all-reduce": ("all-reduce", 27, 27 * 40 * 2 * 3 / 4, True),
    "all-gather": ("all-gather", 1, 16 * 4 * 2 * 1 / 2, True),  # groups of two
    "collective-permute": ("collective-permute", 1, 24, True),
    "reduce-scatter": ("reduce-scatter", 1, 2 * 20 * 1 / 2, True),  # 10 floats go in
  }


def test_the_one_that_sends_most_comes_first():
  assert [c.kind for c in hlo.collectives(TEXT, 4)][0] == "all-reduce"
  assert hlo.total_bytes(hlo.collectives(TEXT, 4)) == 27 * 60 + 64 + 24 + 20


def test_the_compilers_note_goes_before_the_condition():
  noted = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
  assert found(noted)["all-reduce"].count == 5


def test_a_loop_of_unknown_length_is_said_to_be_one():
  unknown = TEXT.replace("constant(27)", "parameter(1)")
  assert found(unknown)["all-reduce"] == ("all-reduce", 1, 60, False)
  assert found(unknown, unknown=9)["all-reduce"] == ("all-reduce", 9, 540, False)


@pytest.mark.parametrize("groups, size", [("{}", 4), ("[1,4]<=[4]", 4), ("{{0,2},{1,3}}", 2)])
def test_the_ways_of_writing_groups(groups, size):
  text = TEXT.replace("replica_groups={{0,1,2,3}}", f"replica_groups={groups}")
  assert found(text)["all-reduce"].num_bytes == 27 * 40 * 2 * (size - 1) / size


def test_a_real_program_gathers_its_weights_once_a_layer():
  mesh = sharding.make_mesh({"fsdp": 4}, jax.devices()[:4])
  split = lambda *spec: NamedSharding(mesh, P(*spec))

  def fn(x, weights):
    def layer(x, w):
      w = jax.lax.with_sharding_constraint(w, split())
      return jnp.tanh(x @ w), None

    return jax.lax.scan(layer, x, weights)[0]

  x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=split("fsdp"))
  weights = jax.ShapeDtypeStruct((6, 16, 16), jnp.float32, sharding=split(None, "fsdp"))
  text = jax.jit(fn).lower(x, weights).compile().as_text()
  gather = found(text)["all-gather"]
  assert (gather.count, gather.is_exact) == (6, True)
  assert gather.num_bytes == 6 * 16 * 16 * 4 * 3 / 4
