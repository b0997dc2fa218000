"""Folders written for bitsandbytes, against those that transformers wrote of the same model."""

import json

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import bnb_save, formats, shards
from paligemma_jax.cli import main, runtime
from paligemma_jax.models import quant, tree
from tests import golden_adapters, toy
from tests.checkpoint import toys

STATE = ".weight.quant_state.bitsandbytes__"


def spelled(name):
  """The form of a golden folder, as users say it."""
  stored = golden_adapters.quantised(golden_adapters.tensors(golden_adapters.DIR / "quant" / name))
  return tree.Quant(*next(iter(stored.values()))[1]).spelled


def same_tensors(found, wanted, rows):
  """All equal, byte for byte; of a state the JSON."""
  assert sorted(found) == sorted(wanted)
  for name, x in wanted.items():
    y = found[name]
    if STATE in name:
      assert json.loads(bytes(y)) == json.loads(bytes(x)), name
      continue
    if name.endswith("embed_tokens.weight"):  # the rows behind the vocabulary are ours to choose
      x, y = x[:rows], y[:rows]
    assert (y.shape, y.dtype) == (x.shape, x.dtype), name
    np.testing.assert_array_equal(toys.bits(y), toys.bits(x), err_msg=name)


@pytest.mark.parametrize("name", golden_adapters.QUANT)
def test_the_tensors_are_those_that_transformers_writes(name, tmp_path):
  entry = golden_adapters.QUANT[name]
  formats.convert(
    golden_adapters.base(entry), tmp_path / "x", dtype=entry["dtype"], quant=spelled(name)
  )
  wanted = golden_adapters.DIR / "quant" / name
  rows = golden_adapters.vocab_size(entry)
  same_tensors(golden_adapters.tensors(tmp_path / "x"), golden_adapters.tensors(wanted), rows)
  found, stored = (json.loads((p / "config.json").read_text()) for p in (tmp_path / "x", wanted))
  found, stored = found["quantization_config"], stored["quantization_config"]
  assert found.keys() == stored.keys()
  assert {k for k in found if found[k] != stored[k]} <= {"bnb_4bit_compute_dtype"}


@pytest.mark.parametrize("name", golden_adapters.QUANT)
def test_a_folder_of_the_same_form_is_copied_code_for_code(name, tmp_path):
  folder = golden_adapters.DIR / "quant" / name
  formats.convert(folder, tmp_path / "x", quant=spelled(name))
  rows = golden_adapters.vocab_size(golden_adapters.QUANT[name])
  same_tensors(golden_adapters.tensors(tmp_path / "x"), golden_adapters.tensors(folder), rows)
  source, copy = formats.open(folder), formats.open(tmp_path / "x")
  assert copy.config == source.config
  for ours in source.arrays:
    np.testing.assert_array_equal(copy.read(ours), source.read(ours), err_msg=ours)
    assert copy.dtypes[ours] == source.dtypes[ours]


@pytest.mark.parametrize("form", bnb_save.FORMS)
@pytest.mark.parametrize("family", toys.FAMILIES)
def test_what_is_written_is_read_back(form, family, tmp_path, monkeypatch):
  monkeypatch.setattr(shards.write_folder, "__defaults__", (50_000,))
  cfg, flat = toys.write(tmp_path / "x.npz", family)
  formats.convert(tmp_path / "x.npz", tmp_path / "y", quant=form)
  assert (tmp_path / "y" / shards.INDEX).is_file()
  source = formats.open(tmp_path / "y")
  assert source.config == cfg
  assert set(source.quantised) == set(tree.matrices(cfg))
  assert all(weight.quant.spelled == form for weight in source.quantised.values())
  for name, leaf in tree.plain(cfg).items():
    x = flat[name]
    if name in source.quantised:  # quantised by another order of axes than the writer's
      stack = x.reshape(-1, *leaf.shape[leaf.stack :])
      axes = [i - leaf.stack for i in (*leaf.outer, *leaf.summed)]
      wide = [_wide(m.transpose(axes), leaf.matrix, bnb_save.FORMS[form], axes) for m in stack]
      x = np.stack(wide).reshape(leaf.shape)
    np.testing.assert_array_equal(source.read(name), x, err_msg=name)


def _wide(matrix, size, form, axes):
  parts = quant.quantise(np.ascontiguousarray(matrix).reshape(size), form)
  return quant.widen(parts, size).reshape(matrix.shape).transpose(np.argsort(axes))


def test_every_matrix_is_read_once(tmp_path):
  cfg = toy.config()
  flat, seen = toy.flat_params(cfg), []

  def read(name, layer):
    seen.append((name, layer))
    return flat[name] if layer is None else flat[name][layer]

  formats.save(tmp_path / "x", read, cfg, {}, "float32", quant=bnb_save.form("nf4-dq"))
  for name, leaf in tree.matrices(cfg).items():
    for layer in range(leaf.shape[0]) if leaf.stack else [None]:
      parts = 1 if leaf.stack < 2 else leaf.shape[1]
      assert seen.count((name, layer)) <= parts + (layer in (0, None))  # once more for its dtype


def test_other_forms_and_formats_are_refused(tmp_path):
  cfg, flat = toys.write(tmp_path / "x.npz")
  for form, words in (("int4", "is no form that bits"), ("nf5", "did you mean")):
    with pytest.raises(errors.UserError, match=words):
      formats.convert(tmp_path / "x.npz", tmp_path / "y", quant=form)
  with pytest.raises(errors.UserError, match="nf4 cannot be written as npz"):
    formats.convert(tmp_path / "x.npz", tmp_path / "y.npz", quant="nf4")
  with pytest.raises(errors.UserError, match="int4-32 cannot be written as hf"):
    quant = tree.Quant("int4", 32)
    formats.save(tmp_path / "y", toys.reader(flat), cfg, {}, quant=quant)


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_values_that_are_not_finite_are_named(form, tmp_path):
  cfg = toy.config()
  flat = toy.flat_params(cfg)
  flat["llm/layers/mlp/linear"][1, 3, 3] = np.nan
  with pytest.raises(errors.UserError, match="mlp/linear, layer 1 holds values"):
    formats.save(tmp_path / "x", toys.reader(flat), cfg, {}, "float32", quant=bnb_save.form(form))
  assert not (tmp_path / "x").exists()


def test_the_command_line_quantises(tmp_path, capsys):
  toys.write(tmp_path / "x.npz")
  assert not main.main(["convert", f"{tmp_path}/x.npz", f"{tmp_path}/y", "--quant", "nf4-dq"])
  weights = formats.open(tmp_path / "y").quantised.values()
  assert {weight.quant.spelled for weight in weights} == {"nf4-dq"}
  assert main.main(["convert", f"{tmp_path}/x.npz", f"{tmp_path}/z", "--quant", "q4_k_m"]) == 2
  assert "is no form" in capsys.readouterr().err


@pytest.mark.parametrize("name", golden_adapters.QUANT)
def test_inspect_tells_the_form_and_the_bytes_of_codes_and_scales(name, capsys):
  folder = golden_adapters.DIR / "quant" / name
  assert not main.main(["inspect", str(folder)])
  shown = capsys.readouterr().out
  stored = golden_adapters.quantised(golden_adapters.tensors(folder))
  module = "model.multi_modal_projector.linear"
  keys = ("weight", "absmax", "nested_absmax", "SCB")
  size = sum(x.nbytes for key, x in stored[module][0].items() if key in keys)
  size += 4 * stored[module][1][2]  # the offset, which lies in the JSON
  row = next(line.split() for line in shown.splitlines() if line.startswith("img/head/kernel"))
  assert row[1] == spelled(name)
  assert " ".join(row[-2:]) == runtime.size(size)
