import jax
import numpy as np
import pytest

from paligemma_jax import errors, sharding
from paligemma_jax.checkpoint import adapt, formats, lazy, load
from tests import golden, toy
from tests.checkpoint import toys

RULES = (("auto", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"), ("vocab", "fsdp"))


def flat_of(params) -> dict:
  return {k: np.asarray(v) for k, v in sharding.flatten(params).items()}


def assert_equal(params, flat):
  found = flat_of(params)
  assert list(found) == list(flat)
  for name, x in flat.items():
    assert found[name].dtype == x.dtype, name
    np.testing.assert_array_equal(toys.bits(found[name]), toys.bits(x), err_msg=name)


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("dtype", toys.DTYPES)
def test_on_cpu_narrow_weights_are_widened_unless_asked(tmp_path, format, dtype):
  path = tmp_path / ("x.npz" if format == "npz" else "x")
  cfg, flat = toys.write(path, "paligemma2", dtype, format)
  source = formats.open(path)
  assert_equal(load.load_params(source, cfg), {k: v.astype(np.float32) for k, v in flat.items()})
  stored = load.load_params(source, cfg, param_dtype=lambda name: source.dtypes[name])
  assert_equal(stored, flat)


def test_a_dtype_by_name_of_the_parameter(tmp_path):
  cfg, _ = toys.write(tmp_path / "x.npz")
  found = flat_of(
    formats.load_params(
      formats.open(tmp_path / "x.npz"), cfg, lambda n: "bfloat16" if "llm/" in n else None
    )
  )
  assert found["llm/final_norm/scale"].dtype == lazy.BFLOAT16
  assert found["img/head/bias"].dtype == np.float32


@pytest.mark.parametrize("format", formats.FORMATS)
def test_eight_devices_get_the_same_as_one(tmp_path, format):
  path = tmp_path / ("x.npz" if format == "npz" else "x")
  cfg, flat = toys.write(path, "paligemma2", format=format)
  mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
  params = load.load_params(formats.open(path), cfg, mesh=mesh, rules=RULES)
  assert_equal(params, flat)
  down = params["llm"]["layers"]["mlp"]["linear"]
  assert len(down.sharding.device_set) == 8
  assert down.addressable_shards[0].data.nbytes < down.nbytes


def test_a_shard_reads_only_its_own_bytes(tmp_path, monkeypatch):
  monkeypatch.setattr(lazy, "MIN_RUN", 1)
  cfg, flat = toys.write(tmp_path / "x.npz")
  source = formats.open(tmp_path / "x.npz")
  name = "llm/embedder/input_embedding"
  read = []
  source.arrays[name].on_read = lambda position, data: read.append(len(data))
  mesh = sharding.make_mesh({"fsdp": 4, "other": 2})  # 1500 rows over 4; replicas are read once
  where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
  x = load.place("x", name, source.arrays[name], np.dtype(np.float32), where)
  assert read == [flat[name].nbytes // 4] * 4
  np.testing.assert_array_equal(np.asarray(x), flat[name])


def test_on_one_cpu_device_the_buffer_that_was_read_is_the_array(tmp_path, monkeypatch):
  cfg, _ = toys.write(tmp_path / "x.npz")
  made = []
  aligned = load._aligned
  monkeypatch.setattr(load, "_aligned", lambda *a: made.append(aligned(*a)) or made[-1])
  params = sharding.flatten(load.load_params(formats.open(tmp_path / "x.npz"), cfg))
  for x, buffer in zip(params.values(), made, strict=True):
    assert x.unsafe_buffer_pointer() == buffer.ctypes.data


def test_donating_what_was_loaded_changes_no_other_array(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  mesh = sharding.make_mesh({"fsdp": 8})
  params = load.load_params(formats.open(tmp_path / "x.npz"), cfg, mesh=mesh)  # replicated
  changed = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(params)
  wanted = {k: v + 1 for k, v in flat.items()}
  for name, x in sharding.flatten(changed).items():
    for shard in x.addressable_shards:
      np.testing.assert_array_equal(np.asarray(shard.data), wanted[name])


@pytest.mark.parametrize("grid", [8, 6, 3])
def test_resampled_position_embeddings_equal_the_reference(grid):
  ops = golden.io("ops")
  found = adapt.resample_posemb(ops["posemb/old"], grid)
  np.testing.assert_allclose(found, ops[f"posemb/new{grid}x{grid}"], atol=1e-6)


def test_resampling_keeps_corners_and_the_same_grid():
  x = np.random.default_rng(0).normal(size=(1, 16, 5)).astype(np.float32)
  assert adapt.resample_posemb(x, 4) is x
  y = adapt.resample_posemb(x, 7)
  np.testing.assert_array_equal(y[0, [0, 6, 42, 48]], x[0, [0, 3, 12, 15]])
  np.testing.assert_allclose(y[0, 1], (x[0, 0] + x[0, 1]) / 2, rtol=1e-6)


def test_another_resolution_resamples_on_load(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz", dtype="bfloat16")
  found = flat_of(load.load_params(formats.open(tmp_path / "x.npz"), cfg.replace(res=56)))
  wanted = adapt.resample_posemb(flat["img/pos_embedding"].astype(np.float32), 4)
  np.testing.assert_array_equal(found["img/pos_embedding"], wanted)


def test_a_part_of_the_parameters(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  some = ["img/head/bias", "llm/final_norm/scale"]
  found = load.load_params(formats.open(tmp_path / "x.npz"), cfg, names=some)
  assert_equal(found, {k: flat[k] for k in some})


def test_a_tower_alone_gives_its_own_parameters(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  found = load.load_params(formats.open(f"{tmp_path}/x.npz:llm"), cfg)
  assert_equal(found, {k: v for k, v in flat.items() if k.startswith("llm/")})


def test_a_short_table_is_extended_only_when_asked(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  longer = cfg.replace(vocab_size=1510)
  source = formats.open(f"{tmp_path}/x.npz:llm")
  with pytest.raises(
    errors.UserError, match="input_embedding is .1500, 48. instead of .1510.*extend"
  ):
    load.load_params(source, longer)
  found = flat_of(load.load_params(source, longer, extend_vocab=True))
  table = found["llm/embedder/input_embedding"]
  np.testing.assert_array_equal(table[:1500], flat["llm/embedder/input_embedding"])
  assert 0.01 < table[1500:].std() < 0.03
  with pytest.raises(errors.UserError, match="1500, 48. instead of .1400"):
    load.load_params(source, cfg.replace(vocab_size=1400), extend_vocab=True)


def test_another_variant_is_said_by_name(tmp_path):
  toys.write(tmp_path / "x.npz", "paligemma2")
  with pytest.raises(errors.UserError) as e:
    load.load_params(formats.open(tmp_path / "x.npz"), toy.config("paligemma"))
  assert "2 unexpected: llm/layers/post_attention_norm/scale" in str(e.value)
  assert "It holds paligemma2-custom-28, the config asks for paligemma-custom-28" in str(e.value)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_value_that_is_not_finite_is_named(tmp_path, bad):
  cfg = toy.config()
  flat = toy.flat_params(cfg)
  flat["llm/layers/attn/q_einsum/w"][1, 0, 0, 0] = bad
  np.savez(tmp_path / "x.npz", **flat)
  with pytest.raises(errors.UserError, match="llm/layers/attn/q_einsum/w, layer 1 holds values"):
    load.load_params(formats.open(tmp_path / "x.npz"), cfg)


def test_a_damaged_file_is_noticed_on_load(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  data = bytearray((tmp_path / "x.npz").read_bytes())
  data[data.find(flat["img/head/bias"].tobytes())] ^= 1  # the lowest bit of a mantissa
  (tmp_path / "x.npz").write_bytes(data)
  with pytest.raises(errors.UserError, match="img/head/bias is damaged"):
    load.load_params(formats.open(tmp_path / "x.npz"), cfg)


def test_an_unknown_dtype(tmp_path):
  cfg, _ = toys.write(tmp_path / "x.npz")
  with pytest.raises(errors.UserError, match="param_dtype 'int8' is not of float32"):
    load.load_params(formats.open(tmp_path / "x.npz"), cfg, "int8")
