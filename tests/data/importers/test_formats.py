import json

import pytest

from paligemma_jax import errors
from paligemma_jax.data.importers import formats, texts


@pytest.fixture
def csv(draw, put):
  draw("pics/a.png")
  return put("in/t.csv", "image,prefix,suffix\n../pics/a.png,p,s\n")


@pytest.mark.parametrize(
  "dst, image",
  [("out.jsonl", "pics/a.png"), ("in/out.jsonl", "../pics/a.png"), ("x/y/o.jsonl", "../../pics/a.png")],
)  # fmt: skip
def test_paths_are_relative_to_what_is_written(csv, tmp_path, dst, image):
  formats.convert("csv", csv, tmp_path / dst)
  assert json.loads((tmp_path / dst).read_text())["image"] == image


def test_a_picture_with_which_only_the_root_is_shared_keeps_its_whole_path(csv, tmp_path):
  inside = formats._seen_from(str(tmp_path / "pics/a.png"), tmp_path.parents[-1] / "elsewhere")
  assert inside == str(tmp_path / "pics/a.png")


def test_what_is_there_is_not_replaced(csv, tmp_path):
  (tmp_path / "out.jsonl").write_text("mine")
  with pytest.raises(errors.UserError, match="out.jsonl exists already"):
    formats.convert("csv", csv, tmp_path / "out.jsonl")
  assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_two_imports_are_the_same_bytes(csv, tmp_path):
  for name in "ab":
    formats.convert("csv", csv, tmp_path / f"{name}.jsonl")
  assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize(
  "text, want",
  [
    ("0,25", 0.25),
    ("-12,5", -12.5),
    (" 640,0 ", 640),
    ("0,125", 0.125),
    ("1,250", None),
    ("12,250", None),
    ("1,2,3", None),
    (",5", None),
    ("1234,567", 1234.567),
    ("1e3", 1000),
  ],
)
def test_a_decimal_comma_is_read_where_it_cannot_be_one_of_thousands(text, want):
  assert texts.number(text) == want


@pytest.mark.parametrize("value", [True, 1, "1", "1.0", "true", " True\n", "YES"])
def test_yes_in_any_notation(value):
  assert texts.flag(value)


@pytest.mark.parametrize("value", [False, 0, "0", "false", "no", "", None, [], "2 or 3"])
def test_all_else_is_no(value):
  assert not texts.flag(value)
