"""Folders that tools leave: two sets of weights, adapters, other formats, quantised ones."""

import json
import shutil

import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import contents, formats, shards
from tests import golden
from tests.checkpoint import toys

FOREIGN = {  # what lies beside or alone -> words of it
  "pytorch_model.bin": "PyTorch weights",
  "pytorch_model-00001-of-00002.bin": "PyTorch weights",
  "consolidated.00.pth": "PyTorch weights",
  "epoch=1.ckpt": "PyTorch weights",
  "model-Q4_K_M.gguf": "GGUF weights",
  "tf_model.h5": "TensorFlow weights",
  "flax_model.msgpack": "Flax weights",
  "adapter_model.safetensors": "an adapter",
  "adapter_model.bin": "an adapter",
  "adapter_config.json": "an adapter",
}


@pytest.fixture
def folder(tmp_path):
  toys.write(tmp_path / "x")
  return tmp_path / "x"


def said(folder) -> str:
  with pytest.raises(errors.UserError) as e:
    formats.open(folder)
  assert "\n" not in str(e.value)
  return str(e.value)


def shard(folder, name="model", scale=None):
  """Writes the folder's weights a second time, as shards with an index."""
  files = [f"{name}-0000{i}-of-00002.safetensors" for i in (1, 2)]
  for file in files:
    shutil.copy(folder / "model.safetensors", folder / file)
  found = shards.read(folder / "model.safetensors")
  index = {"weight_map": {n: files[i % 2] for i, n in enumerate(found)}}
  (folder / (name + contents.INDEX)).write_text(json.dumps(index))
  return files


def test_new_weights_beside_old_shards_are_refused(folder):
  shard(folder)
  words = said(folder)
  assert "model.safetensors.index.json (2 shards) and model.safetensors (one file)" in words
  assert "move the others away" in words


def test_two_indices_are_refused(folder):
  shard(folder)
  shard(folder, "model.fp16")
  (folder / "model.safetensors").unlink()
  assert "model.fp16.safetensors.index.json (2 shards) and model.safetensors.index" in said(folder)


def test_shards_that_no_index_names_are_refused(folder):
  files = shard(folder)
  (folder / "model.safetensors").rename(folder / "model-00003-of-00003.safetensors")
  assert "model-00003-of-00003.safetensors (one of 3 shards, in no index)" in said(folder)
  for file in (*files, "model.safetensors.index.json"):
    (folder / file).unlink()
  assert "has no model.safetensors.index.json" in said(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model-00001-of-00001.safetensors"])
def test_one_file_of_any_name_is_read(folder, name):
  (folder / "model.safetensors").rename(folder / name)
  assert formats.open(folder).config is not None


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "consolidated.safetensors", "x.npz"])
def test_a_second_file_of_weights_is_refused(folder, name):
  shutil.copy(folder / "model.safetensors", folder / name)
  words = said(folder)
  assert "more than one set of weights" in words and name in words and "model.safetensors" in words


@pytest.mark.parametrize("name", FOREIGN)
def test_weights_of_another_kind_beside_a_model_are_refused(folder, name):
  (folder / name).write_bytes(b"x")
  assert f"model.safetensors (one file) and {name} ({FOREIGN[name]})" in said(folder)


@pytest.mark.parametrize("name", FOREIGN)
def test_weights_of_another_kind_alone_are_said_to_be(folder, name):
  (folder / "model.safetensors").rename(folder / name)
  assert f"holds {FOREIGN[name]} ({name})" in said(folder)


@pytest.mark.parametrize("name", [*FOREIGN, "x.safetensors", "optimizer.pt", "model.onnx", "a.h5"])
def test_a_path_to_one_file_is_said_to_be_of_its_kind(tmp_path, name):
  (tmp_path / name).write_bytes(b"x")
  words = said(tmp_path / name)
  assert name in words and FOREIGN.get(name, "") in words and "is it an npz" not in words


def test_what_trainers_leave_beside_a_model_is_no_weights(folder):
  for name in (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "training_args.bin",
    "optimizer.bin",
  ):
    (folder / name).write_bytes(b"x")
  (folder / "mask_codec.npz").write_bytes(b"x")
  assert formats.open(folder).config is not None


@pytest.mark.parametrize("name", ["x/model.safetensors", "y.npz"])
def test_a_file_that_was_never_fetched_is_said_to_be(tmp_path, folder, name):
  (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
  assert "a pointer of Git LFS, fetch the file itself" in said(tmp_path / name.split("/")[0])


def test_an_adapter_alone_says_whose_it_is():
  words = said(golden.DIR / "pg1_tiny_lora")
  assert "an adapter (adapter_config.json: LORA, r 4, of " in words and "--adapter DIR" in words


def test_folders_without_weights_are_said_to_be(folder):
  for file in ("tokenizer.json", "preprocessor_config.json"):
    (folder / file).write_text("{}")
  (folder / "config.json").rename(folder / "config.txt")
  assert "holds safetensors but no config.json" in said(folder)
  (folder / "config.txt").rename(folder / "config.json")
  (folder / "model.safetensors").unlink()
  assert "holds a config.json but no weights" in said(folder)
  (folder / "config.json").unlink()
  assert "holds a processor (preprocessor_config.json, tokenizer.json) but no weights" in said(
    folder
  )


QUANTISED = {  # as the tools write it into config.json -> words
  "MLX": ({"quantization": {"group_size": 64, "bits": 4}}, "MLX, 4 bits"),
  "MLX, both keys": (
    {
      "quantization": {"group_size": 64, "bits": 8, "mode": "affine"},
      "quantization_config": {"group_size": 64, "bits": 8},
    },
    "MLX, 8 bits",
  ),
  "torchao": (
    {
      "quantization_config": {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {}}},
      }
    },
    "torchao, Int4WeightOnlyConfig",
  ),
  "torchao, by name": (
    {"quantization_config": {"quant_method": "torchao", "quant_type": "int8_weight_only"}},
    "torchao, int8_weight_only",
  ),
  "GPTQ": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, 4 bits"),
  "AWQ": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq, 4 bits"),
  "fp8": ({"quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}}, "fp8, e4m3"),
  "compressed-tensors": (
    {"compression_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
    "compressed-tensors, pack-quantized",
  ),
  "of the decoder": ({"text_config": {"quantization_config": {"quant_method": "hqq"}}}, "hqq"),
}


@pytest.mark.parametrize("tool", QUANTISED)
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_quantised_folders_name_the_quantisation(folder, tool, weights):
  more, words = QUANTISED[tool]
  stored = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(stored | more))
  (folder / "model.safetensors").rename(folder / weights)
  assert f"its weights are quantised ({words}), which is not read" in said(folder)
