"""Damaged safetensors: each is one line that names the file, whatever is wrong with it."""

import json

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.checkpoint import contents, formats, lazy, shards
from tests.checkpoint import toys

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]}


def written(path, header, data=bytes(16), length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  path.write_bytes(size.to_bytes(8, "little") + text + data)
  return path


def test_a_sound_file_is_read(tmp_path):
  data = np.array([1, -2], np.float32).tobytes() + np.arange(4).astype(lazy.BFLOAT16).tobytes()
  found = shards.read(written(tmp_path / "x", {"a": A, "b": B, "__metadata__": {}}, data))
  np.testing.assert_array_equal(found["a"][:], [1, -2])
  np.testing.assert_array_equal(found["b"][1].astype(int), [2, 3])


@pytest.mark.parametrize(
  "header, said",
  [
    ({"a": {k: A[k] for k in A if k != "dtype"}, "b": B}, "wrong about a: dtype None"),
    ({"a": {k: A[k] for k in A if k != "data_offsets"}}, "wrong about a: .*data_offsets None"),
    ({"a": {**A, "dtype": 32}, "b": B}, "wrong about a: dtype 32"),
    ({"a": {**A, "shape": "two"}, "b": B}, "shape 'two'"),
    ({"a": {**A, "shape": ["two"]}, "b": B}, r"shape \['two'\]"),
    ({"a": {**A, "shape": [2.0]}, "b": B}, r"shape \[2.0\]"),
    ({"a": {**A, "shape": [-2]}, "b": B}, r"shape \[-2\]"),
    ({"a": {**A, "shape": [3]}, "b": B}, r"a has 8 bytes, not those of F32 \[3\]"),
    ({"a": {**A, "data_offsets": [-8, 8]}, "b": B}, r"data_offsets \[-8, 8\]"),
    ({"a": {**A, "data_offsets": [8, 0]}, "b": B}, r"data_offsets \[8, 0\]"),
    ({"a": {**A, "data_offsets": [0, 4, 8]}, "b": B}, "data_offsets"),
    ({"a": {**A, "data_offsets": "0-8"}, "b": B}, "data_offsets '0-8'"),
    ({"a": A, "b": {**B, "data_offsets": [4, 12]}}, "a and b overlap"),
    ({"a": A, "b": {**B, "data_offsets": [0, 8]}}, "a and b overlap"),
    ({"a": A}, "a and its end leave bytes between them"),
    ({"b": B}, "the header and b leave bytes"),
    ({"a": A, "b": {**B, "data_offsets": [8, 2**70]}}, "its header describes"),
    ({"a": [1]}, "no table of tensors"),
    ({"a": None}, "no table of tensors"),
    ([A], "no table of tensors"),
    (b'{"a": {', "Expecting"),
    (b'{"\xff": 1}', "codec"),
    (b"[" * 100_000, "recursion"),
    (json.dumps({"a": A}).encode()[:-1] + b', "a": ' + json.dumps(A).encode() + b"}", "twice"),
  ],
)
def test_a_damaged_header_is_one_line(tmp_path, header, said):
  path = written(tmp_path / "x.safetensors", header)
  with pytest.raises(errors.UserError, match=f"x.safetensors cannot be read .*{said}") as e:
    shards.read(path)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("length", [2**63, 10**9, 200])
def test_a_header_longer_than_its_file_is_not_read(tmp_path, length):
  path = written(tmp_path / "x", {"a": A, "b": B}, length=length)
  with pytest.raises(errors.UserError, match=f"its header asks for {length} bytes"):
    shards.read(path)


@pytest.mark.parametrize("code", ["F8_E4M3", "I64", "BOOL", "F4", "X9"])
def test_tensors_of_other_dtypes_are_there_but_not_read(tmp_path, code):
  found = shards.read(written(tmp_path / "x", {"a": {**A, "dtype": code}, "b": B}))
  assert found["a"].shape == (2,) and found["b"].dtype == lazy.BFLOAT16
  with pytest.raises(errors.UserError, match=f"a is {code}, which is no dtype of a model"):
    found["a"][:]


@pytest.fixture
def sharded(tmp_path, monkeypatch):
  """A folder of several shards; returns (it, its index)."""
  monkeypatch.setattr(shards.write_folder, "__defaults__", (100_000,))
  toys.write(tmp_path / "x")
  return tmp_path / "x", json.loads((tmp_path / "x" / shards.INDEX).read_text())


HEAD = "multi_modal_projector.linear.bias"


@pytest.mark.parametrize(
  "change, said",
  [
    (lambda d: d.pop("weight_map"), "weight_map"),
    (lambda d: d.update(weight_map=[1]), "is damaged"),
    (lambda d: d.update(weight_map={}), "maps no tensors"),
    (lambda d: d["weight_map"].update({HEAD: 7}), "maps no tensors to files"),
    (lambda d: d["weight_map"].update({HEAD: "../y.safetensors"}), "is no file of this folder"),
    (lambda d: d["weight_map"].update({HEAD: "/etc/passwd"}), "is no file of this folder"),
    (lambda d: d["weight_map"].update({HEAD: "gone.safetensors"}), "are missing: gone.safetensors"),
    (lambda d: d["weight_map"].pop(HEAD), f"{HEAD} is in .*, which model.* does not say"),
    (lambda d: d["weight_map"].update(more=d["weight_map"][HEAD]), "more is not in model-"),
  ],
)
def test_an_index_that_does_not_fit_is_one_line(sharded, change, said):
  folder, index = sharded
  change(index)
  (folder / shards.INDEX).write_text(json.dumps(index))
  with pytest.raises(errors.UserError, match=said) as e:
    formats.open(folder)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_an_index_that_is_no_index_is_one_line(sharded, text):
  (sharded[0] / shards.INDEX).write_text(text)
  with pytest.raises(errors.UserError, match=f"{contents.INDEX} is damaged"):
    formats.open(sharded[0])
