"""Rules, meshes and placed arrays, on eight simulated devices."""

import importlib.util
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paligemma_jax import errors, exchange, sharding
from paligemma_jax.configs import meshes
from paligemma_jax.models import paligemma, tree, variants
from paligemma_jax.train import adapters, setup
from paligemma_jax.transfers import common
from tests import toy

RULES = (
  ("batch", ("data", "fsdp")),
  ("heads", "tensor"),
  ("kv_heads", "tensor"),
  ("mlp", "tensor"),
  ("auto", "fsdp"),
)


def specs(name, **axes):
  mesh = sharding.make_mesh({"data": 1, "fsdp": -1, "tensor": 1, **axes})
  leaves = tree.plain(variants.preset(name))
  return {k: tuple(s.spec) for k, s in sharding.param_shardings(leaves, mesh, RULES).items()}


def test_fsdp_splits_the_largest_axis_that_divides_and_never_the_layers():
  got = specs("paligemma2-3b")
  assert got["llm/embedder/input_embedding"] == ("fsdp", None)
  assert got["llm/layers/mlp/linear"] == (None, "fsdp", None)
  assert got["llm/final_norm/scale"] in ((), (None,))  # too small to be worth a gather


def test_one_kv_head_is_replicated_over_tensor():
  got = specs("paligemma-3b", fsdp=4, tensor=2)
  assert got["llm/layers/attn/kv_einsum/w"] == (None, None, None, "fsdp", None)
  assert got["llm/layers/attn/q_einsum/w"] == (None, "tensor", "fsdp", None)


def audit(name, mesh_name, devices=None, form=None):
  layout = meshes.get(mesh_name)
  mesh = jax.sharding.AbstractMesh(tuple(devices), tuple(layout["axes"]))
  return sharding.audit(
    tree.formed(variants.preset(name), form or tree.Form()), mesh, layout["rules"]
  )


@pytest.mark.parametrize("name", ["paligemma-3b", "paligemma2-10b", "paligemma2-28b"])
@pytest.mark.parametrize(
  "mesh, sizes", [("fsdp", (1, 64, 1)), ("data_fsdp:16", (4, 16, 1)), ("fsdp_tensor:4", (1, 8, 4))]
)
def test_the_audit_lists_every_parameter_and_all_large_ones_are_split(name, mesh, sizes):
  lines = audit(name, mesh, sizes)
  assert len(lines) == len(tree.param_shapes(variants.preset(name)))
  assert all(line.ways >= sizes[1] for line in lines if np.prod(line.leaf.shape) > sharding.LARGE)


@pytest.mark.parametrize("name", ["paligemma-3b", "paligemma2-3b", "paligemma2-28b"])
@pytest.mark.parametrize("kind", ["int8", "int4-32", "nf4-dq"])
@pytest.mark.parametrize(
  "mesh, sizes", [("fsdp", (1, 16, 1)), ("fsdp_tensor", (1, 8, 2)), ("fsdp_tensor:4", (1, 4, 4))]
)
def test_weights_in_few_bits_and_adapters_are_split_where_floats_are(name, kind, mesh, sizes):
  config = variants.preset(name)
  options = common.base().train.lora.to_dict() | {"targets": "all-linear"}
  form = tree.Form(
    tree.parse_quant(kind, config), adapters.layout(options, config).adapters(config)
  )
  lines = {line.name: line for line in audit(name, mesh, sizes, form)}
  assert set(lines) == set(tree.formed(config, form))
  for weight, few in form.quant.items():
    codes = lines[f"{weight}/{few.kind}"]
    assert codes.ways % sizes[1] == 0  # a part of the codes on each device
    if "mlp" in weight and weight.startswith("llm"):
      assert codes.ways == sizes[1] * sizes[2]
  held = lambda lines: sum(
    np.prod(x.leaf.shape) * np.dtype(x.leaf.dtype or "float32").itemsize / x.ways for x in lines
  )
  scales = [x for n, x in lines.items() if n.rsplit("/")[-1] in ("absmax", "nested", "offset")]
  assert held(scales) < 0.3 * held(lines.values())


@pytest.mark.parametrize(
  "mesh, sizes, message",
  [
    ("fsdp", (1, 256, 1), "img/.*kernel .* no dimension .* 256 devices .* e.g. data_fsdp:128"),
    ("fsdp", (1, 96, 1), "llm/.*input_embedding .* 96 devices .* e.g. data_fsdp:32"),
    ("fsdp_tensor:32", (1, 1, 32), "heads, which does not divide over 32 devices"),
  ],
)
def test_what_cannot_be_split_as_meant_is_an_error(mesh, sizes, message):
  with pytest.raises(errors.UserError, match=message):
    audit("paligemma-3b", mesh, sizes)


def test_the_audit_in_a_few_lines():
  layout = meshes.get("fsdp_tensor:4")
  mesh = jax.sharding.AbstractMesh((1, 2, 4), tuple(layout["axes"]))
  lines = setup.check_shares(tree.plain(variants.preset("tiny")), mesh, layout["rules"])
  assert len(lines) == 4 and lines[0].startswith("parameters split over fsdp 2 and tensor 4: ")
  assert lines[-1].startswith("parameters whole on every device: ")


def test_a_rule_that_matches_nothing_is_an_error():
  mesh = sharding.make_mesh({"data": 8})
  leaves = tree.plain(variants.preset("tiny"))
  with pytest.raises(errors.UserError, match='"head" matches no axis .* "heads"'):
    sharding.audit(leaves, mesh, (("head", "data"),))


def test_sizes_of_a_mesh_by_name_and_by_number():
  sizes = lambda name: tuple(meshes.get(name)["axes"].values())
  assert sizes("data_fsdp:64") == (-1, 64, 1) and sizes("fsdp_tensor:4") == (1, -1, 4)
  assert sizes("data=2,tensor=4") == (2, 1, 4)
  for wrong in ("fspd", "fsdp:two", "datum=2"):
    with pytest.raises((KeyError, ValueError)):
      meshes.get(wrong)


@pytest.mark.parametrize(
  "axes, message",
  [
    ({"data": 3, "fsdp": -1}, "mesh data=3, fsdp=-1 does not fill 8 devices"),
    ({"data": 0, "fsdp": -1}, "mesh data=0, fsdp=-1: every size must be at least 1"),
    ({"data": -2, "fsdp": -4}, "mesh data=-2, fsdp=-4: every size must be at least 1"),
    ({"data": -1, "fsdp": -1}, "one may be -1"),
  ],
)
def test_a_mesh_that_does_not_fill_the_devices_is_refused(axes, message):
  with pytest.raises(errors.UserError, match=message):
    sharding.make_mesh(axes)


@pytest.mark.parametrize(
  "name", ["fsdp", "fsdp_tensor", "fsdp_tensor:8", "data=2,fsdp=-1,tensor=2"]
)
def test_an_axis_of_a_slice_may_be_split_between_two_of_the_mesh(name):
  devices = toy.tpu_slice(4, 4)
  mesh = sharding.make_mesh(meshes.get(name)["axes"], devices)
  assert {d.id for d in mesh.devices.flat} == set(range(16))
  if name == "fsdp":  # a ring: the hosts do not follow each other
    assert [d.process_index for d in mesh.devices.flat] != sorted([0, 1, 2, 3] * 4)


def test_what_cannot_be_laid_out_is_one_line(monkeypatch):
  def fail(*args, **kwargs):
    raise NotImplementedError("Failed to find assignment for axis 2. The sizes\nmust divide")

  monkeypatch.setattr(sharding.mesh_utils, "create_device_mesh", fail)
  with pytest.raises(errors.UserError) as e:
    sharding.make_mesh({"fsdp": 4, "tensor": 2})
  assert str(e.value) == (
    "mesh fsdp=4, tensor=2 cannot be laid out over 8 cpu; choose other sizes"
    " (Failed to find assignment for axis 2)"
  )


@pytest.mark.parametrize(
  "sizes, slices, want",
  [((4, 8, 2), 2, (2, 1, 1)), ((1, 16, 2), 4, (1, 4, 1)), ((2, 16, 1), 8, (2, 4, 1))],
)
def test_slices_follow_each_other_along_the_first_axes_that_they_divide(sizes, slices, want):
  assert sharding.between_slices(dict(zip(("data", "fsdp", "tensor"), sizes)), slices) == want


def test_no_slice_is_crossed_inside_the_last_axis():
  with pytest.raises(errors.UserError, match="2 slices of devices do not divide data x fsdp"):
    sharding.between_slices({"data": 1, "fsdp": 3, "tensor": 8}, 2)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
def test_devices_of_two_tpu_slices():
  code = (
    "from jax.experimental import topologies as t\n"
    "from paligemma_jax import sharding\n"
    "devices = t.get_topology_desc(topology_name='v5e:4x4', platform='tpu', num_slices=2).devices\n"
    "mesh = sharding.make_mesh({'data': 2, 'fsdp': -1, 'tensor': 2}, list(devices))\n"
    "print([{d.slice_index for d in half.ravel()} for half in mesh.devices])"
  )
  env = {
    "JAX_PLATFORMS": "cpu",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  }
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, check=True
  )
  assert run.stdout.split("\n")[-2] == "[{0}, {1}]"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
def test_every_slice_is_laid_out_in_every_mesh_and_no_row_is_left_out():
  run = subprocess.run(
    [sys.executable, "-m", "tests.slices"], capture_output=True, text=True, check=True
  )
  assert run.stdout == "[0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0]\n"  # a ring


def test_flatten_and_unflatten_are_inverse():
  tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
  assert sharding.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
  assert sharding.unflatten(sharding.flatten(tree)) == tree


@pytest.mark.parametrize(
  "processes, tensor, wanted",
  [
    ("0011", 1, ("0123", "4567")),
    ("0110", 1, ("0167", "2345")),  # a ring, as TPU slices are laid
    ("0011", 2, ("0123", "4567")),
    ("0101", 2, ("01234567", "01234567")),  # both groups of "tensor" cross
    ("01101001", 2, ("01234567", "01234567")),
    ("00011122", 2, ("0123", "2345", "67")),  # one of four does
  ],
)
def test_a_process_holds_the_rows_of_its_devices_each_once(processes, tensor, wanted, monkeypatch):
  mesh = toy.mesh(processes, tensor)
  for process, rows in enumerate(wanted):
    monkeypatch.setattr(jax, "process_index", lambda: process)  # noqa: B023 - used at once
    here = sharding.rows_here(mesh, RULES, 8)
    assert "".join(map(str, here)) == rows
    monkeypatch.setattr(jax, "process_count", lambda: len(wanted))
    assert sharding.global_size(len(here), mesh, RULES) == 8


def test_rows_that_no_batch_gives_to_a_process_are_a_broken_promise(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="3 rows, but this process holds 2 of every 4 of a batch"):
    sharding.put_batch({"x": np.arange(3)}, toy.mesh("0110"), RULES)


def test_a_batch_is_filled_up_to_the_devices():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
  assert [sharding.whole_batch(n, mesh, RULES) for n in (1, 4, 6)] == [4, 4, 8]
  assert sharding.whole_batch(3, None, None) == 3


def test_rows_are_gathered_by_place_and_each_place_counts_once(monkeypatch):
  other = [(1, "b"), (2, "c"), (3, "d")]
  monkeypatch.setattr(exchange, "gather", lambda rows: [*rows, *other])
  assert exchange.by_place(["d", "a"], [3, 0]) == ["a", "b", "c", "d"]


def test_put_batch_splits_rows_or_replicates_what_does_not_divide():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 4})
  for rows, spec in ((16, P(("data", "fsdp"))), (3, P())):
    x = sharding.put_batch({"x": np.arange(rows)}, mesh, RULES)["x"]
    np.testing.assert_array_equal(x, np.arange(rows))
    assert x.sharding.spec == spec


def test_activations_are_constrained_only_inside_a_mesh():
  config = toy.config("paligemma", vocab_size=64)
  model = paligemma.PaliGemma(config, rules=RULES)
  params = sharding.unflatten(toy.flat_params(config))
  image, text = np.zeros((8, 28, 28, 3), np.uint8), np.ones((8, 4), np.int32)
  count = lambda: (
    jax.jit(lambda p: model.apply({"params": p}, image, text, text)[0])
    .lower(params)
    .as_text()
    .count("sharding_constraint")
  )
  assert count() == 0
  with jax.set_mesh(sharding.make_mesh({"fsdp": 4, "tensor": 2})):
    assert count() > 0
