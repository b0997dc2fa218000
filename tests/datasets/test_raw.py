"""Reading official files: JSON of any size piece by piece, pickles without code, pictures as they are."""

import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.datasets import pictures, raw, walk
from paligemma_jax.datasets.samples import scenes

VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
  ),
  max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=6), st.booleans(), st.integers(1, 40))
def test_values_are_those_of_the_json_module_wherever_the_pieces_end(values, ascii_only, piece):
  whole = {"info": [values, {"rows": 1}], "rows": values, "after": None}
  data = json.dumps(whole, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
  walker = walk.Walk(io.BytesIO(data), "x.json", piece)
  found = list(walker.entries("rows"))
  assert [value for _, _, value in found] == values
  for _, offset, value in found:  # each can be read again from where it begins
    file = io.BytesIO(data)
    file.seek(offset)
    assert walk.Walk(file, "x.json", piece).value()[1] == value


@pytest.fixture
def folder(tmp_path):
  return raw.Folder(tmp_path)


@pytest.mark.parametrize("text", ["", "[", '[{"a": 1', "[1 2]", '{"rows": [1,]}', "[1, nonsense]"])
def test_broken_json_is_named_with_its_file(folder, text):
  (folder.root / "x.json").write_text(text)
  with pytest.raises(errors.UserError, match="x.json.*(broken JSON|no key)"):
    list(folder.rows("x.json", "rows" if "rows" in text else ""))


def test_a_table_looks_rows_up_in_any_order_and_names_both_files_when_one_is_missing(folder):
  rows = [{"id": i, "text": "né " * i} for i in range(50)]
  scenes.save_json(folder.root / "a.json", {"head": {}, "rows": rows}, ascii_only=False)
  table = folder.table("a.json", "rows", by="id")
  for i in (49, 0, 7):
    assert table[i] == rows[i]
  with pytest.raises(errors.UserError, match=r"a\.json: id 1 has no row in .*b\.json"):
    table.check_all_used("b.json")
  folder.place = "b.json: questions[3]"
  with pytest.raises(errors.UserError, match=r"b\.json: questions\[3\]: .*a\.json has no row.* 99"):
    table[99]


def test_a_pickle_with_code_is_refused(folder):
  refs = [{"ref_id": 1, "split": "train", "sent_ids": (1, 2), "box": [1.5]}]
  (folder.root / "good.p").write_bytes(pickle.dumps(refs, 2))
  assert folder.pickled("good.p") == refs
  (folder.root / "bad.p").write_bytes(pickle.dumps(print))
  with pytest.raises(errors.UserError, match="asks for builtins.print"):
    folder.pickled("bad.p")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_picture_that_claims_to_lie_on_its_side_is_stored_as_pillow_decodes_it(folder, name):
  scenes.save(folder.root / name, scenes.scene(2).picture(), orientation=6)
  picture = folder.picture(name)
  assert picture.probe() == (folder.root / name).stat().st_size
  stored = Image.open(io.BytesIO(picture.read()))
  assert stored.getexif().get(0x0112, 1) == 1
  plain = np.asarray(Image.open(folder.root / name).convert("RGB"))
  np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), plain)


def test_an_upright_picture_is_stored_byte_for_byte(folder):
  scenes.save(folder.root / "a.jpg", scenes.scene(0).picture())
  assert folder.picture("a.jpg").read() == (folder.root / "a.jpg").read_bytes()


def test_a_picture_is_turned_counter_clockwise(folder):
  scenes.save(folder.root / "a.png", scenes.scene(0).picture())
  turned = np.asarray(Image.open(io.BytesIO(folder.picture("a.png", quarter_turns=1).read())))
  upright = np.asarray(scenes.scene(0).picture())
  assert turned.shape == (96, 48, 3)
  assert np.abs(turned.astype(int) - np.rot90(upright)).mean() < 3  # JPEG


@pytest.mark.parametrize(
  "damage, words",
  [
    (lambda data: None, "no picture"),
    (lambda data: b"<html>", "is no picture"),
    (lambda data: b"", "is no picture"),
    (lambda data: data[:-200], "is cut off"),
  ],
)
def test_a_picture_that_cannot_be_used_is_named_with_what_names_it(folder, damage, words):
  scenes.save(folder.root / "a.jpg", scenes.scene(0).picture())
  found = damage((folder.root / "a.jpg").read_bytes())
  (folder.root / "a.jpg").unlink()
  if found is not None:
    (folder.root / "a.jpg").write_bytes(found)
  folder.place = "questions.json: questions[3]"
  with pytest.raises(
    pictures.BadPicture, match=rf"questions\.json: questions\[3\]: .*{words}"
  ) as e:
    folder.picture("a.jpg").probe()
  assert str(folder.root / "a.jpg") in str(e.value)


def test_bytes_behind_a_picture_do_no_harm(folder):
  scenes.save(folder.root / "a.jpg", scenes.scene(0).picture())
  with open(folder.root / "a.jpg", "ab") as f:
    f.write(b"appended by a camera")
  assert folder.picture("a.jpg").probe() == (folder.root / "a.jpg").stat().st_size
