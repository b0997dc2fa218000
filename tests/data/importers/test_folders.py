import pytest

from paligemma_jax import errors
from tests.data.importers.marked import counts


def test_the_suffix_is_the_name_of_the_folder(draw, put, convert, rows):
  draw("set/traffic light/2.png"), draw("set/traffic light/10.JPG"), draw("set/cat/1.webp")
  src = put("set/cat/Thumbs.db", "x").parents[1]
  source, said = convert("folders", src, prefix="answer en what is it?")
  left = src / "cat" / "Thumbs.db"
  assert said.splitlines() == [
    "3 examples",
    f"files that systems and archives leave behind, left out: 1 ({left})",
  ]
  images = [source[i]["image"] for i in range(3)]
  assert images == ["set/cat/1.webp", "set/traffic light/10.JPG", "set/traffic light/2.png"]
  found = [(r["prefix"], r["suffix"]) for r in rows(source)]
  assert found == [("answer en what is it?", s) for s in ("cat", "traffic light", "traffic light")]


def test_what_is_no_picture_is_counted_by_its_ending(draw, put, convert):
  src = draw("set/cat/1.png").parents[1]
  put("set/cat/2.heic", "x"), put("set/cat/3.heic", "x"), put("set/cat/LICENSE", "x")
  source, said = convert("folders", src, prefix="p")
  assert len(source) == 1 and counts(said) == {
    "files that are no pictures, left out (.heic)": 2,
    "files that are no pictures, left out (without an ending)": 1,
  }


def test_links_are_followed_but_not_in_a_circle(draw, tmp_path, convert):
  draw("elsewhere/1.png"), draw("set/dog/2.png")
  (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
  (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "set")
  (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set" / "dog")
  source, _ = convert("folders", tmp_path / "set", prefix="p")
  assert [r["suffix"] for r in source] == ["cat", "dog"]


def test_splits_are_folders_of_folders(draw, convert):
  src = draw("set/train/cat/1.png").parents[2]
  assert len(convert("folders", src, prefix="p")[0]) == 1  # the only one
  draw("set/val/dog/1.png")
  with pytest.raises(errors.UserError, match=r"several splits; .*; known: train, val"):
    convert("folders", src, "b.jsonl", prefix="p")
  source, _ = convert("folders", src, "b.jsonl", prefix="p", split="val")
  assert source[0]["suffix"] == "dog"


def test_what_is_broken_is_one_line(draw, put, convert):
  src = put("set/cat/1.png", "<html>").parents[1]
  with pytest.raises(errors.UserError, match="1.png: not an image"):
    convert("folders", src, prefix="p")
  draw("set/cat/sub/1.png")
  with pytest.raises(errors.UserError, match="sub: a folder inside a class"):
    (src / "cat" / "1.png").unlink()
    draw("set/cat/1.png")
    convert("folders", src, prefix="p")
  with pytest.raises(errors.UserError, match="1.png: a file; give the folder that holds"):
    convert("folders", src / "cat" / "1.png", prefix="p")
  with pytest.raises(errors.UserError, match="flat: no folders in it"):
    convert("folders", put("flat/1.png", "").parent, prefix="p")
