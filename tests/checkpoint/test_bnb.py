"""Folders that bitsandbytes quantised, against what it makes of them; and damaged ones."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from paligemma_jax import errors
from paligemma_jax.checkpoint import adapt, contents, formats, names
from paligemma_jax.models import quant, tree
from tests import golden_adapters

FOLDERS = {name: golden_adapters.DIR / "quant" / name for name in golden_adapters.QUANT}
PLAIN = "model.safetensors"


def forms(folder):
  """Module -> (kind, block, double) as the tensors of a folder say."""
  found = golden_adapters.quantised(golden_adapters.tensors(folder))
  return {module: form for module, (_, form) in found.items()}


def of(kind, double=False):
  """The folder of a form."""
  for folder in FOLDERS.values():
    if next(iter(forms(folder).values()))[::2] == (kind, double):
      return folder
  pytest.skip(f"no golden folder of {kind}")


def places(source):
  """(our name, index in its stack, module of transformers, slot) of every matrix that can be quantised."""
  matrices = tree.matrices(source.config)
  for slot in names.slots(source.shapes, source.config.llm.post_norms):
    if slot.ours in matrices:
      yield slot.ours, slot.index, "model." + slot.theirs.removesuffix(".weight"), slot


def theirs(slot, x):
  """A matrix of ours as [out, in]."""
  return names.to_theirs(slot, np.asarray(x))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_quantised_folder_reads_as_the_weights_it_stands_for(name):
  source = formats.open(FOLDERS[name])
  wanted = golden_adapters.below(golden_adapters.arrays(f"quant/{name}"), "weights/")
  seen = set()
  for ours, index, module, slot in places(source):
    np.testing.assert_array_equal(theirs(slot, source.arrays[ours][index]), wanted[module])
    seen.add(module)
  assert seen == set(wanted)
  source.verify()


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_not_quantised_reads_as_in_the_base(name):
  entry = golden_adapters.QUANT[name]
  base = formats.open(golden_adapters.base(entry))
  source = formats.open(FOLDERS[name])
  assert source.config == base.config
  for ours in set(source.arrays) - set(tree.matrices(source.config)):
    wanted = base.read(ours).astype(np.dtype(entry["dtype"]))
    np.testing.assert_array_equal(source.read(ours), wanted, err_msg=ours)


@pytest.mark.parametrize("name", FOLDERS)
def test_codes_are_those_of_the_file(name):
  source = formats.open(FOLDERS[name])
  wanted = golden_adapters.below(golden_adapters.arrays(f"quant/{name}"), "weights/")
  stored = forms(FOLDERS[name])
  leaves = tree.formed(
    source.config, tree.Form({n: weight.quant for n, weight in source.quantised.items()})
  )
  assert sorted(source.quantised) == sorted(tree.matrices(source.config))
  for ours, index, module, slot in places(source):
    weight = source.quantised[ours]
    parts = weight.read(index)
    assert weight.quant == stored[module]
    for key, x in parts.items():
      leaf = leaves[f"{ours}/{key}"]
      assert (x.shape, x.dtype.name) == (leaf.shape[leaf.stack :], leaf.dtype)
    np.testing.assert_array_equal(quant.widen(parts, slot.shape), wanted[module])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_box_is_that_part_of_the_whole(name):
  source = formats.open(FOLDERS[name])
  rng = np.random.default_rng(0)
  for ours in source.quantised:
    whole = source.read(ours)
    for _ in range(8):
      ends = [sorted(rng.integers(0, n + 1, 2)) for n in whole.shape]
      box = tuple(slice(int(a), int(max(b, a + 1))) for a, b in ends)
      np.testing.assert_array_equal(source.arrays[ours][box], whole[box])


def test_it_is_converted_to_the_values_it_stands_for(tmp_path):
  source = formats.open(of("nf4", True))
  formats.convert(source, tmp_path / "x.npz")
  converted = formats.open(tmp_path / "x.npz")
  assert not converted.quantised
  for ours in source.arrays:
    np.testing.assert_array_equal(converted.read(ours), source.read(ours))


def test_another_setting_keeps_the_codes():
  source = formats.open(of("nf4"))
  assert adapt.changed(source, {"final_logits_softcap": 30.0}).quantised == source.quantised


# Copies of a folder in one file, changed.


@pytest.fixture
def changed(tmp_path):
  """changed(folder, function of the tensors, renamed or not) -> path of the copy."""

  def copy(folder, change):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
      found |= safetensors.numpy.load_file(path)
    found = change(found) or found
    (tmp_path / "x").mkdir(exist_ok=True)
    shutil.copy(folder / "config.json", tmp_path / "x")
    safetensors.numpy.save_file(found, tmp_path / "x" / PLAIN, {"format": "pt"})
    return tmp_path / "x"

  return copy


def assert_same_weights(folder, other):
  a, b = formats.open(folder), formats.open(other)
  assert {n: w.quant for n, w in a.quantised.items()} == {
    n: w.quant for n, w in b.quantised.items()
  }
  for name in a.arrays:
    np.testing.assert_array_equal(a.read(name), b.read(name), err_msg=name)


def in_memory(name):
  name = name.replace("language_model.model.", "language_model.")
  return "model." + name.replace("vision_tower.vision_model.", "vision_tower.")


def published(name):
  name = name.replace("vision_tower.vision_model.", "vision_tower.")
  return name.replace("vision_tower.", "vision_tower.vision_model.")


@pytest.mark.parametrize("spelled", [in_memory, published])
@pytest.mark.parametrize("name", FOLDERS)
def test_every_spelling_and_one_file_instead_of_shards(name, spelled, changed):
  copy = changed(FOLDERS[name], lambda t: {spelled(k): v for k, v in t.items()})
  assert_same_weights(copy, FOLDERS[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("double", [False, True])
def test_codes_stored_as_another_dtype_are_the_same_bytes(dtype, double, changed):
  """bnb_4bit_quant_storage."""

  def change(t):
    return {
      k: v.reshape(-1).view(dtype)[:, None] if f"{k}.absmax" in t else v for k, v in t.items()
    }

  assert_same_weights(changed(of("nf4", double), change), of("nf4", double))


def test_without_a_word_of_it_in_the_config_the_tensors_tell(changed):
  folder = of("nf4")
  copy = changed(folder, lambda t: None)
  stored = json.loads((copy / "config.json").read_text())
  del stored["quantization_config"]
  (copy / "config.json").write_text(json.dumps(stored))
  assert_same_weights(copy, folder)


def test_modules_that_the_config_skips_may_be_quantised_and_others_plain(changed):
  folder = of("nf4")
  source = formats.open(folder)
  ours, index, module, slot = next(p for p in places(source) if len(p[1]) == 2)
  whole = theirs(slot, source.arrays[ours][index])
  plain = next(n for n in golden_adapters.tensors(folder) if n == f"{module}.weight")

  def change(t):
    file = next(k for k in t if golden_adapters._in_memory(k) == plain)
    return {k: v for k, v in t.items() if not k.startswith(file)} | {file: whole}

  copy = changed(folder, change)
  stored = json.loads((copy / "config.json").read_text())
  stored["quantization_config"]["llm_int8_skip_modules"] = ["vision_tower", "lm_head"]
  (copy / "config.json").write_text(json.dumps(stored))
  found = formats.open(copy)
  assert set(source.quantised) - set(found.quantised) == {ours}
  for name in source.arrays:
    np.testing.assert_array_equal(found.read(name), source.read(name), err_msg=name)


def test_int8_without_its_format_is_row_by_row(changed):
  folder = of("int8")
  drop = lambda t: {k: v for k, v in t.items() if not k.endswith("weight_format")}  # noqa: E731
  assert_same_weights(changed(folder, drop), folder)


def state_with(**values):
  """A change of the JSON of a quant_state."""

  def change(x):
    d = json.loads(bytes(x)) | values
    return np.frombuffer(json.dumps(d).encode(), np.uint8)

  return change


DAMAGED = {  # what -> (kind, double, end of a tensor's name, its change or None for dropped, words)
  "no scales": ("nf4", False, ".weight.absmax", None, "its weight.absmax is missing"),
  "no book": ("nf4", False, ".weight.quant_map", None, "its weight.quant_map is missing"),
  "no state": ("nf4", False, ".bitsandbytes__nf4", None, "it has 0 tensors weight.quant_state"),
  "no codes": ("nf4", False, "q_proj.weight", None, "but no .*weight, which it belongs to"),
  "no nested scales": ("nf4", True, ".nested_absmax", None, "its weight.nested_absmax is missing"),
  "no SCB": ("int8", False, ".SCB", None, "its SCB is missing"),
  "fewer codes": ("nf4", False, "q_proj.weight", lambda x: x[1:], "bytes, not those of"),
  "fewer scales": ("nf4", False, ".weight.absmax", lambda x: x[1:], "its weight.absmax is .* not"),
  "fewer nested": ("nf4", True, ".nested_absmax", lambda x: x[:0], "its weight.nested_absmax is"),
  "fewer bytes": ("nf4", True, ".weight.absmax", lambda x: x[1:], "its weight.absmax is not"),
  "halves": ("nf4", False, ".weight.absmax", lambda x: x.astype(np.float16), "of float16, not"),
  "another book": ("nf4", False, ".quant_map", lambda x: x * 2, "its weight.quant_map has other"),
  "another map": ("nf4", True, ".nested_quant_map", lambda x: -x, "nested_quant_map has other"),
  "no JSON": ("nf4", False, ".bitsandbytes__nf4", lambda x: x[:-1], "its quant_state is no JSON"),
  "other type": ("nf4", False, "bitsandbytes__nf4", state_with(quant_type="af4"), "its type is"),
  "blocks of 48": ("nf4", False, "bitsandbytes__nf4", state_with(blocksize=48), "blocksize is 48"),
  "no shape": ("nf4", False, "bitsandbytes__nf4", state_with(shape=None), "says shape: None"),
  "nested 128": ("nf4", True, "__nf4", state_with(nested_blocksize=128), "nested_blocksize is 128"),
  "no offset": ("nf4", True, "__nf4", state_with(nested_offset="x"), "says nested_offset: 'x'"),
  "col32": (
    "int8",
    False,
    ".weight_format",
    lambda x: np.asarray(x + 1),
    "weight_format is .1., a layout of",
  ),
  "floats": ("int8", False, "q_proj.weight", lambda x: x.astype(np.float32), "float32, not a mat"),
  "short SCB": ("int8", False, ".SCB", lambda x: x[1:], "its SCB is"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_matrices_are_named(what, changed):
  kind, double, end, change, words = DAMAGED[what]
  folder = of(kind, double)

  def changes(t):
    name = next(n for n in t if n.endswith(end))
    rest = {k: v for k, v in t.items() if k != name}
    return rest if change is None else rest | {name: change(t[name])}

  with pytest.raises(errors.UserError, match=rf"(weight is quantised by bits.*)?{words}") as e:
    formats.open(changed(folder, changes))
  assert "\n" not in str(e.value) and "weight" in str(e.value)


def test_a_matrix_of_another_size_is_named(changed):
  def change(t):
    name = next(n for n in t if n.endswith("q_proj.weight"))
    state = f"{name}.quant_state.bitsandbytes__nf4"
    shape = json.loads(bytes(t[state]))["shape"]
    t[state] = state_with(shape=shape[::-1])(t[state])

  folder = of("nf4")
  sizes = formats.open(folder).config.llm
  if sizes.num_heads * sizes.head_dim == sizes.width:
    pytest.skip("its q_proj are square")
  with pytest.raises(errors.UserError, match="mis-shaped: .*q_proj.weight is"):
    formats.open(changed(folder, change))


def test_methods_that_are_not_read_stay_refused(changed):
  copy = changed(of("nf4"), lambda t: None)
  stored = json.loads((copy / "config.json").read_text())
  for method in ("gptq", "awq", "torchao"):
    stored["quantization_config"] = {"quant_method": method, "bits": 4}
    assert method in contents.quantisation(stored)
    (copy / "config.json").write_text(json.dumps(stored))
    with pytest.raises(errors.UserError, match=f"quantised .{method}.*not read"):
      formats.open(copy)
