"""Pictures as people have them: cut off, turned in every way, of odd depths. What `data check` says."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from paligemma_jax.data import checks, examples, layout, reading, sources, survey, tasks
from paligemma_jax.data.importers import formats
from tests.processing import oriented

REPORTS = pathlib.Path(__file__).parent / "reports"


def _surveyed(path, **config) -> survey.Survey:
  (found,) = survey.run({"data": {"path": str(path), **config}}, {})
  return found


def test_every_broken_picture_is_a_defect_of_its_own_kind_and_hides_no_other():
  found = _surveyed(REPORTS / "truncated_pictures" / "data.jsonl")
  said = {line.split(": ")[0].rpartition(":")[2]: line for _, _, line in found.lines()}
  assert "cut_in_header.jpg: the image is cut off after 2000 bytes" in said["1"]
  assert "(the same kind in 3 more: lines 2, 3, 5)" in said["1"]
  assert "big_text.png: the texts in the PNG are too large to be read" in said["4"]
  assert len(said) == 2 and not found.lines(notes=True)


def test_training_is_told_before_it_starts_what_cannot_be_opened():
  found = checks.findings({"path": str(REPORTS / "truncated_pictures" / "data.jsonl")})
  assert len(found) == 2 and "(the same kind in 1 more: line 3)" in found[0]
  assert "big_text.png" in found[1]


def test_a_picture_whose_size_was_needed_for_its_boxes_costs_its_example_alone(tmp_path):
  data = (REPORTS / "truncated_pictures" / "half.webp").read_bytes()
  boxed = layout.Layout((("objects/box", "b"), ("objects/label", "l")), "yxyx_unit")
  broken = {"image": data, "b": [[0.0, 0.0, 1.0, 1.0]], "l": ["cat"]}

  class Prepared(list):  # as TFDS and the Hub give records: boxes become pixels when they are read
    holds_pictures, folder, path, changed = True, "", "pets", {}
    place = staticmethod(lambda i: f"pets train:{i}")
    __getitem__ = lambda self, i: boxed.record(list.__getitem__(self, i), self.place(i))

  source, rules = Prepared([broken]), tasks.Rules("detect")
  with pytest.raises(examples.UnreadableImage, match="^pets train:0: image: the image is cut off"):
    examples.make(source, 0, rules)
  ((kind, text),) = reading.Reader(source, rules, "data", False)(0).problems
  assert kind == "cut off" and text.startswith("image: the image is cut off")


def test_boxes_made_for_stored_pixels_are_turned_with_every_form_of_orientation(tmp_path):
  folder = shutil.copytree(REPORTS / "png_orientation", tmp_path / "in")
  stored = np.array(Image.open(folder / "exif_before.png"))
  for name, form in (("exif_after", "eXIf, late"), ("imagemagick", "raw profile, late")):
    (folder / f"{name}.png").write_bytes(oriented.files(stored, 6)[f"PNG, {form}"])
  out = folder / "out.jsonl"
  formats.convert("coco", str(folder / "ann.json"), str(out))
  source, rules = sources.open_source({"path": str(out)}), tasks.Rules("detect")
  for i in range(len(source)):
    made = examples.make(source, i, rules, extras=True)
    assert (made.extras["height"], made.extras["width"]) == (64, 48)
    for item in made.extras["objects"]:
      assert item["box"] == [18, 5, 42, 20]
  kinds = [kind for kind, _, _ in _surveyed(out, task="detect").lines()]
  assert len(source) == 5 and kinds == ["copy"]  # the same pixels, boxes and labels


@pytest.mark.parametrize("form", ["PNG, eXIf, late", "PNG, raw profile", "JPEG, XMP", "TIFF, tag"])
def test_an_upright_box_is_judged_by_the_upright_picture(tmp_path, form):
  pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
  (tmp_path / "a").write_bytes(oriented.files(pixels, 6)[form])
  lines = [{"image": "a", "objects": [{"label": "cat", "box": box}]} for box in _BOXES]
  (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
  config = {"path": str(tmp_path / "a.jsonl"), "task": "detect"}
  for found in (checks.findings(config), [line for _, _, line in _surveyed(**config).lines()]):
    (line,) = found
    assert "a.jsonl:2: objects[0].box" in line and "outside the picture of 48 x 64" in line


_BOXES = [0, 0, 48, 64], [0, 0, 64, 48]


def test_pictures_that_use_a_small_part_of_their_range_are_worth_a_look():
  found = _surveyed(REPORTS / "picture_depth" / "data.jsonl")
  (line,) = [line for kind, _, line in found.lines(notes=True) if kind == "few levels"]
  assert "in 1 more: line 6" in line
  assert "gray12in16.png: its pixels use the levels 0 to 15 of 0 to 255" in line
  ((kind, _, line),) = found.lines()
  assert kind == "brightness" and "float01.tif: 32 bits a pixel" in line


def _rgba(alpha: int, black: bool = False) -> Image.Image:
  rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
  rgba[..., 3] = alpha
  rgba[..., :3] *= not black
  return Image.fromarray(rgba)


@pytest.mark.parametrize(
  "picture, words",
  [
    (Image.new("RGB", (4, 4), "red"), {"one colour": r"all its pixels are (255, 0, 0)"}),
    (Image.new("1", (1, 1)), {"one colour": "all its pixels are (0, 0, 0)"}),
    (Image.linear_gradient("L").point(lambda v: 100 + v // 5), {"few levels": "levels 100 to 151"}),
    (Image.linear_gradient("L").point(lambda v: v // 4), {"few levels": "levels 0 to 63"}),
    (Image.linear_gradient("L").point(lambda v: v // 3), {}),
    (_rgba(0), {"nothing to be seen": "all of it is transparent"}),
    (_rgba(0, True), {"nothing to be seen": "is transparent", "one colour": "(0, 0, 0)"}),
    (_rgba(1), {}),
  ],
)
def test_a_picture_of_next_to_nothing_is_worth_a_look(tmp_path, picture, words):
  picture.save(tmp_path / "a.png")
  record = {"image": "a.png", "prefix": "p", "suffix": "s"}
  (tmp_path / "a.jsonl").write_text(json.dumps(record))
  found = _surveyed(tmp_path / "a.jsonl")
  notes = {kind: line for kind, _, line in found.lines(notes=True)}
  assert set(notes) == set(words) and all(words[kind] in notes[kind] for kind in words)
  assert not found.lines()
