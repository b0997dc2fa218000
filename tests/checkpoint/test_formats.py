import os

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import atomic, formats, lazy
from tests import golden, toy
from tests.checkpoint import toys

SUFFIX = {"npz": ".npz", "hf": "", "orbax": ""}


@pytest.mark.parametrize("dtype", toys.DTYPES)
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_npz_hf_npz_is_exact(tmp_path, family, dtype):
  cfg, flat = toys.write(tmp_path / "a.npz", family, dtype)
  formats.convert(tmp_path / "a.npz", tmp_path / "hf", progress=False)
  formats.convert(tmp_path / "hf", tmp_path / "b.npz", progress=False)
  source = formats.open(tmp_path / "b.npz")
  toys.assert_same(source, flat)
  assert source.config == cfg


@pytest.mark.parametrize("tag", golden.TAGS)
def test_hf_npz_hf_is_exact_but_for_the_extra_rows(tmp_path, tag):
  import safetensors.numpy

  formats.convert(golden.DIR / f"{tag}_hf", tmp_path / "a.npz", progress=False)
  formats.convert(tmp_path / "a.npz", tmp_path / "hf", progress=False)
  there, back = (
    {k: v for p in f.glob("*.safetensors") for k, v in safetensors.numpy.load_file(p).items()}
    for f in (golden.DIR / f"{tag}_hf", tmp_path / "hf")
  )
  assert sorted(there) == sorted(back)
  for name, x in there.items():
    rows = formats.open(tmp_path / "hf").config.llm.vocab_size if "embed_tokens" in name else None
    assert back[name].dtype == x.dtype and back[name].shape == x.shape
    np.testing.assert_array_equal(toys.bits(back[name][:rows]), toys.bits(x[:rows]), err_msg=name)


@pytest.mark.parametrize("last", formats.FORMATS)
@pytest.mark.parametrize("first", formats.FORMATS)
def test_every_format_to_every_other(tmp_path, first, last):
  assets = {"tokenizer.model": b"t", "preprocessor_config.json": b"{}"}
  cfg, flat = toys.write(
    tmp_path / f"a{SUFFIX[first]}", "paligemma2", "bfloat16", first, assets=assets, sliding_window=9
  )
  source = formats.open(tmp_path / f"a{SUFFIX[first]}")
  formats.convert(source, tmp_path / f"b{SUFFIX[last]}", to=last, progress=False)
  source = formats.open(tmp_path / f"b{SUFFIX[last]}")
  assert (source.format, source.config, source.assets) == (last, cfg, assets)
  toys.assert_same(source, flat)


@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_fingerprint_changes_with_the_weights_alone(tmp_path, format):
  def fingerprint(name, seed):
    path = tmp_path / f"{name}{SUFFIX[format]}"
    if not path.exists():
      toys.write(path, format=format, seed=seed)
    return formats.fingerprint(formats.open(path))

  first = fingerprint("a", seed=0)
  (tmp_path / "metrics.json").write_text("{}")
  if format == "hf":
    (tmp_path / "a/metrics.json").write_text("{}")
  assert fingerprint("a", seed=0) == first
  os.rename(tmp_path / f"a{SUFFIX[format]}", tmp_path / f"b{SUFFIX[format]}")
  if format == "npz":
    os.rename(tmp_path / "a.assets", tmp_path / "b.assets")
  assert fingerprint("a", seed=1) != first


@pytest.mark.parametrize("dtype", toys.DTYPES)
def test_another_dtype_is_a_cast(tmp_path, dtype):
  _, flat = toys.write(tmp_path / "a.npz")
  formats.convert(tmp_path / "a.npz", tmp_path / "hf", dtype=dtype, progress=False)
  toys.assert_same(
    formats.open(tmp_path / "hf"), {k: v.astype(lazy.FLOATS[dtype]) for k, v in flat.items()}
  )


def test_a_value_beyond_float16_is_an_error_not_an_infinity(tmp_path):
  cfg = toy.config()
  flat = toy.flat_params(cfg)
  flat["img/head/kernel"][0, 0] = 1e6
  with pytest.raises(errors.UserError, match=r"img/head/kernel holds 1e\+06, beyond float16"):
    formats.save(tmp_path / "x.npz", toys.reader(flat), cfg, {}, "float16")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("to", formats.FORMATS)
def test_a_value_that_is_not_finite_is_named_and_nothing_is_left(tmp_path, caplog, to, bad):
  cfg = toy.config()
  flat = toy.flat_params(cfg)
  flat["llm/layers/mlp/linear"][1, 2, 3] = bad
  path = str(tmp_path / "x.npz")
  np.savez(path, **flat)
  with pytest.raises(errors.UserError, match="x.npz: llm/layers/mlp/linear, layer 1 holds values"):
    formats.convert(path, tmp_path / f"y{SUFFIX[to]}", to=to, progress=False)
  assert os.listdir(tmp_path) == ["x.npz"] and not caplog.records


@pytest.mark.parametrize("folder", [True, False])
def test_a_destination_that_cannot_be_written_to_is_told_before_anything_is_read(tmp_path, folder):
  (tmp_path / "file").touch()
  for place in ("file/x", "file/x/y", "n" * 250):
    with pytest.raises(errors.UserError, match="nothing can be written there") as e:
      with atomic.new(tmp_path / place, folder):
        raise AssertionError("it was entered")
    assert "\n" not in str(e.value)
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_destination_that_is_taken_is_left_alone(tmp_path):
  toys.write(tmp_path / "x.npz")
  (tmp_path / "hf").mkdir()
  toys.write(tmp_path / "hf")  # an empty folder may be there
  for taken in ("x.npz", "hf"):
    with pytest.raises(errors.UserError, match=f"{taken} exists already"):
      toys.write(tmp_path / taken)


def test_an_interrupted_write_leaves_nothing(tmp_path):
  for folder in (True, False):
    with pytest.raises(KeyboardInterrupt):
      with atomic.new(tmp_path / "x", folder) as temporary:
        (temporary / "y" if folder else temporary).write_text("half")
        raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())


def test_assets_of_a_save_that_was_killed_before_its_npz_are_replaced(tmp_path):
  toys.write(tmp_path / "x.npz", assets={"tokenizer.json": b"old"})
  (tmp_path / "x.npz").unlink()
  toys.write(tmp_path / "x.npz", assets={"tokenizer.model": b"new"})
  assert formats.open(tmp_path / "x.npz").assets == {"tokenizer.model": b"new"}


def test_jax_arrays_are_saved_as_well(tmp_path):
  import jax.numpy as jnp

  cfg = toy.config()
  flat = {k: jnp.asarray(v, jnp.bfloat16) for k, v in toy.flat_params(cfg).items()}
  formats.save(tmp_path / "x", toys.reader(flat), cfg, {})
  toys.assert_same(formats.open(tmp_path / "x"), {k: np.asarray(v) for k, v in flat.items()})


def test_a_shape_that_does_not_fit_is_named(tmp_path):
  cfg = toy.config()
  flat = toy.flat_params(cfg) | {"img/head/bias": np.zeros(3, np.float32)}
  with pytest.raises(errors.UserError, match=r"img/head/bias has shape \[3\].*asks for \[48\]"):
    formats.save(tmp_path / "x.npz", toys.reader(flat), cfg, {})


def test_what_is_no_checkpoint(tmp_path, monkeypatch):
  (tmp_path / "notes.txt").write_text("x")
  (tmp_path / "sub").mkdir()
  with pytest.raises(errors.UserError, match="notes.txt is no checkpoint"):
    formats.open(tmp_path / "notes.txt")
  with pytest.raises(errors.UserError, match="holds no checkpoint .found: notes.txt, sub"):
    formats.open(tmp_path)
  with pytest.raises(errors.UserError, match="gone.npz does not exist"):
    formats.open(tmp_path / "gone.npz")
  with pytest.raises(errors.UserError, match="/a/b/c does not exist"):
    formats.open("/a/b/c")
  with pytest.raises(errors.UserError, match="owner/name is no local path and cannot be fetched"):
    formats.open("owner/name")  # HF_HUB_OFFLINE is set for the tests


def test_a_hub_id_is_downloaded_and_opened(tmp_path, monkeypatch):
  import huggingface_hub

  asked = []

  def snapshot_download(repo_id, revision, allow_patterns):
    asked.append((repo_id, revision))
    return str(tmp_path)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
  toys.write(tmp_path / "pt_224.npz")  # as the -jax repositories
  assert formats.open("google/paligemma@bfloat16").format == "npz"
  assert asked == [("google/paligemma", "bfloat16")]


def test_a_tower_cannot_be_converted(tmp_path):
  toys.write(tmp_path / "x.npz")
  with pytest.raises(errors.UserError, match=r"holds only a part of a model \(img\)"):
    formats.convert(f"{tmp_path}/x.npz:img", tmp_path / "y")


@pytest.mark.parametrize(
  "path, args, said",
  [
    ("x", {"format": "npy"}, 'unknown; did you mean "npz"'),
    ("x", {"format": "npz"}, "ends in .npz if and only if"),
    ("x.npz", {"format": "hf"}, "ends in .npz if and only if"),
    ("x", {"dtype": "float8"}, "dtype 'float8' is unknown"),
  ],
)
def test_arguments_of_save_are_checked(tmp_path, path, args, said):
  cfg = toy.config()
  with pytest.raises(errors.UserError, match=said):
    formats.save(tmp_path / path, toys.reader(toy.flat_params(cfg)), cfg, {}, **args)
