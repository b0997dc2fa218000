import json
import zipfile

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import formats, lazy, npz
from paligemma_jax.models import tree, variants
from tests import golden, toy
from tests.checkpoint import toys


def savez(path, flat, compressed=False):
  (np.savez_compressed if compressed else np.savez)(path, **flat)
  return str(path)


@pytest.mark.parametrize("tag", golden.TAGS)
def test_golden_files_are_read_to_the_bit(tag):
  source = formats.open(golden.weights_path(tag))
  wanted = golden.weights(tag)
  assert sorted(source.arrays) == sorted(wanted)
  for name, x in wanted.items():
    np.testing.assert_array_equal(source.read(name).astype(np.float32), x)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
@pytest.mark.parametrize("dtype", toys.DTYPES)
def test_all_prefixes_dtypes_and_compressions(tmp_path, dtype, prefix, compressed):
  cfg = toy.config("paligemma2")
  flat = toy.flat_params(cfg, dtype=lazy.FLOATS[dtype])
  extra = {"opt/state/mu": np.zeros(3, np.float32)} if prefix == "opt/target/" else {}
  path = savez(tmp_path / "x.npz", {prefix + k: v for k, v in flat.items()} | extra, compressed)
  source = formats.open(path)
  assert source.config == cfg
  toys.assert_same(source, flat)
  np.testing.assert_array_equal(
    source.read("llm/layers/mlp/linear", 1), flat["llm/layers/mlp/linear"][1]
  )
  source.verify()


def test_numpy_reads_what_we_write(tmp_path):
  _, flat = toys.write(tmp_path / "x.npz", dtype="bfloat16")
  with np.load(tmp_path / "x.npz") as f:
    assert f["params/img/embedding/kernel"].dtype == np.dtype("V2")  # as the published files
    for name, x in flat.items():
      np.testing.assert_array_equal(toys.bits(f["params/" + name]), toys.bits(x))


def test_fortran_order(tmp_path):
  flat = toy.flat_params(toy.config())
  path = savez(tmp_path / "x.npz", {k: np.asfortranarray(v) for k, v in flat.items()})
  toys.assert_same(formats.open(path), flat)


def test_subtrees_with_and_without_a_slash_in_the_path(tmp_path, monkeypatch):
  _, flat = toys.write(tmp_path / "x.npz")
  monkeypatch.chdir(tmp_path)
  for path, prefix in {
    "x.npz:img": "img/",
    "./x.npz:llm": "llm/",
    f"{tmp_path}/x.npz:img/head": "img/head/",
  }.items():
    source = formats.open(path)
    assert source.config is None
    toys.assert_same(source, {k: v for k, v in flat.items() if k.startswith(prefix)})
  with pytest.raises(errors.UserError, match='there is no "image" in it .found: img, llm'):
    formats.open("x.npz:image")


def test_one_entry_per_layer(tmp_path):
  flat = toy.flat_params(toy.config())
  apart = {}
  for name, x in flat.items():
    for stacked, single in (("/encoderblock/", "/encoderblock_{}/"), ("/layers/", "/layer_{}/")):
      if stacked in name:
        apart |= {name.replace(stacked, single.format(i)): layer for i, layer in enumerate(x)}
        break
    else:
      apart[name] = x
  toys.assert_same(formats.open(savez(tmp_path / "x.npz", apart)), flat)
  del apart["llm/layer_0/mlp/linear"]
  with pytest.raises(errors.UserError, match="layers 0 of llm/layers/mlp/linear missing"):
    formats.open(savez(tmp_path / "y.npz", apart))


def raw_gemma(kv_heads: int, transposed: bool):
  """A decoder alone, as DeepMind's flat dictionaries have it; and what it means."""
  c = variants.DecoderConfig(12, 2, 20, 4, kv_heads, 5, vocab_size=256_000)
  rng = np.random.default_rng(3)
  flat = {k: rng.normal(size=s).astype(np.float32) for k, s in tree.shapes(tree.decoder(c)).items()}
  table = flat["llm/embedder/input_embedding"]
  raw = {"transformer/embedder/input_embedding": np.pad(table, ((0, 128), (0, 0)))}
  raw["transformer/final_norm/scale"] = flat["llm/final_norm/scale"]
  for name, x in flat.items():
    if "/layers/" in name:
      for i, layer in enumerate(x):
        if transposed and name.endswith("gating_einsum"):
          layer = layer.swapaxes(1, 2)
        raw[f"transformer/layer_{i}/{name.removeprefix('llm/layers/')}"] = layer
  if kv_heads == c.num_heads:
    for i in range(c.depth):
      q, kv = (raw.pop(f"transformer/layer_{i}/attn/{n}_einsum/w") for n in ("q", "kv"))
      raw[f"transformer/layer_{i}/attn/qkv_einsum/w"] = np.concatenate([q[None], kv])
  return raw, flat


@pytest.mark.parametrize("kv_heads, transposed", [(1, True), (4, False)])
def test_raw_gemma_files(tmp_path, kv_heads, transposed):
  raw, flat = raw_gemma(kv_heads, transposed)
  source = formats.open(savez(tmp_path / "gemma.npz", raw))
  assert source.config is None
  toys.assert_same(source, flat)


def test_a_siglip_file_gives_its_tower(tmp_path):
  flat = {k: v for k, v in toy.flat_params(toy.config()).items() if k.startswith("img/")}
  tower = {k: v for k, v in flat.items() if not k.startswith("img/head/")}
  other = {"img/MAPHead_0/probe": np.ones((1, 1, 24)), "txt/head/bias": np.ones(3), "t": np.ones(1)}
  path = savez(tmp_path / "siglip.npz", {f"params/{k}": v for k, v in {**tower, **other}.items()})
  toys.assert_same(formats.open(path), tower)
  toys.assert_same(formats.open(path + ":img"), tower)
  bare = {k.removeprefix("img/"): v for k, v in tower.items()}
  toys.assert_same(formats.open(savez(tmp_path / "vit.npz", bare)), tower)


def test_config_and_assets_travel_beside_the_file(tmp_path):
  cfg, _ = toys.write(
    tmp_path / "x.bf16.npz", "paligemma2", assets={"tokenizer.model": b"abc"}, sliding_window=7
  )
  source = formats.open(tmp_path / "x.bf16.npz")
  assert source.config == cfg and source.config.llm.sliding_window == 7
  assert source.assets == {"tokenizer.model": b"abc"}
  stored = json.loads((tmp_path / "x.bf16.assets" / npz.CONFIG).read_text())
  assert variants.ModelConfig.from_dict(stored["model"]) == cfg


def test_a_tokenizer_beside_a_published_file_is_found(tmp_path):
  (tmp_path / "paligemma_tokenizer.model").write_bytes(b"t")
  path = savez(tmp_path / "x.npz", toy.flat_params(toy.config()))
  assert formats.open(path).assets == {"paligemma_tokenizer.model": b"t"}


@pytest.mark.parametrize(
  "prefix", ["", "params/", "state/params/", "module.", "a/b.params/", "my/"]
)
def test_what_all_names_share_is_read_away(tmp_path, prefix):
  flat = toy.flat_params(toy.config())
  path = savez(tmp_path / "x.npz", {prefix + name: x for name, x in flat.items()})
  toys.assert_same(formats.open(path), flat)
  toys.assert_same(formats.open(path + ":img/head"), {n: flat[n] for n in flat if "/head/" in n})


@pytest.mark.parametrize("dtype", [np.float64, ">f4", ">f8", np.longdouble])
def test_wider_floats_and_other_byte_orders_are_read_as_float32(tmp_path, dtype):
  flat = toy.flat_params(toy.config())
  path = savez(tmp_path / "x.npz", {n: x.astype(dtype) for n, x in flat.items()})
  toys.assert_same(formats.open(path), flat)


def broken(flat, change):
  flat = dict(flat)
  change(flat)
  return flat


@pytest.mark.parametrize(
  "change, said",
  [
    (lambda f: f.pop("llm/final_norm/scale"), "1 missing: llm/final_norm/scale"),
    (lambda f: f.pop("llm/layers/attn/q_einsum/w"), "llm/layers/attn/q_einsum/w is missing"),
    (lambda f: f.update({"img/extra": np.zeros(2, np.float32)}), "1 unexpected: img/extra"),
    (
      lambda f: f.update({"img/head/bias": np.zeros(2, np.float32)}),
      r"1 mis-shaped: img/head/bias is \[2\] instead of \[48\]",
    ),
    (lambda f: f.update({"img/head/bias": np.zeros(48, np.int32)}), "img/head/bias is int32"),
    (lambda f: [f.pop(k) for k in list(f) if "norm" in k.lower()], r"9 missing: .*… \(9 in all\)"),
  ],
)
def test_wrong_tensors_are_named(tmp_path, change, said):
  flat = broken(toy.flat_params(toy.config()), change)
  with pytest.raises(errors.UserError, match=said):
    formats.open(savez(tmp_path / "x.npz", flat))


@pytest.mark.parametrize("share", [0.999, 0.5, 0.0])
def test_a_truncated_file_is_said_to_be(tmp_path, share):
  toys.write(tmp_path / "x.npz")
  data = (tmp_path / "x.npz").read_bytes()
  (tmp_path / "x.npz").write_bytes(data[: int(len(data) * share)])
  with pytest.raises(errors.UserError, match="x.npz cannot be read as npz.*truncated"):
    formats.open(tmp_path / "x.npz")


MEMBERS = {  # content of one member of a zip -> words
  b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4', (": "",
  b"\x93NUMPY\x01\x00\xff\xff{}": "",
  b"not an array": "magic string",
  b"": "magic string",
}


@pytest.mark.parametrize("content", MEMBERS)
def test_a_member_that_is_no_array_is_one_line(tmp_path, content):
  with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
    z.writestr("img/head/bias.npy", content)
  with pytest.raises(
    errors.UserError, match=f"x.npz cannot be read as npz .*{MEMBERS[content]}"
  ) as e:
    formats.open(tmp_path / "x.npz")
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("shape", ["(2, -48)", "(1000000,)", "(47,)", "(2.0,)", "('a',)"])
def test_a_member_of_another_size_than_its_header_says(tmp_path, shape):
  path = savez(tmp_path / "x.npz", {"img/head/bias": np.zeros(48, np.float32)})
  data = (tmp_path / "x.npz").read_bytes()
  with zipfile.ZipFile(path) as z:
    member = z.read("img/head/bias.npy")
  member = member.replace(
    b"'shape': (48,), }" + b" " * 12, f"'shape': {shape}, }}".ljust(29).encode()
  )
  assert len(member) == 128 + 192 and member not in data
  with zipfile.ZipFile(path, "w") as z:
    z.writestr("img/head/bias.npy", member)
  with pytest.raises(errors.UserError, match="x.npz cannot be read as npz"):
    formats.open(path)


def test_two_members_of_one_name_are_refused(tmp_path):
  path = savez(tmp_path / "x.npz", {"img/head/bias": np.zeros(48, np.float32)})
  with zipfile.ZipFile(path, "a") as z, pytest.warns(UserWarning, match="Duplicate name"):
    z.writestr("img/head/bias.npy", z.read("img/head/bias.npy"))
  with pytest.raises(errors.UserError, match="two members img/head/bias"):
    formats.open(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_bit_is_noticed_by_its_tensor(tmp_path, compressed):
  flat = toy.flat_params(toy.config())
  path = savez(tmp_path / "x.npz", flat, compressed)
  with zipfile.ZipFile(path) as z:
    info = z.getinfo("llm/layers/mlp/linear.npy")
  data = bytearray((tmp_path / "x.npz").read_bytes())
  data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 4
  (tmp_path / "x.npz").write_bytes(data)
  source = formats.open(path)
  with pytest.raises(errors.UserError, match="llm/layers/mlp/linear is damaged"):
    source.read("img/head/bias")  # verify reads through what was not read
    source.read("llm/layers/mlp/linear", 1)
    source.verify()
  with pytest.raises(errors.UserError, match="llm/layers/mlp/linear is damaged"):
    formats.convert(path, tmp_path / "hf")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz"]  # nothing half-written


def test_bytes_read_in_order_are_checked_without_reading_them_again(tmp_path, monkeypatch):
  toys.write(tmp_path / "x.npz")
  source = formats.open(tmp_path / "x.npz")
  for name in source.arrays:
    source.read(name)
  monkeypatch.setattr(lazy.File, "read_into", None)
  source.verify()


def test_nothing_is_unpickled(tmp_path):
  np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
  with pytest.raises(errors.UserError, match="holds Python objects"):
    formats.open(tmp_path / "x.npz")


def test_own_files_are_not_mixed_with_those_of_the_folder(tmp_path):
  (tmp_path / "tokenizer.json").write_bytes(b"another")
  toys.write(tmp_path / "x.npz", assets={"tokenizer.model": b"own"})
  assert formats.open(tmp_path / "x.npz").assets == {"tokenizer.model": b"own"}


def test_a_folder_with_one_npz_stands_for_it(tmp_path):
  _, flat = toys.write(tmp_path / "pt_224.npz")
  (tmp_path / "mask_codec.npz").write_bytes(b"an asset")
  toys.assert_same(formats.open(tmp_path), flat)
