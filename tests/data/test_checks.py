import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import checks

OK = {"image": "p0.png", "prefix": "caption en", "suffix": "yes"}
ASKED = {"choices": ["red", "blue"], "answer": 0}
OPTIONS = {"task": "options", "prefix": "{indexed_choices}", "suffix": "{indexed_answer}"}
BOX = {"label": "cat", "box": [0, 0, 20, 15]}


def _findings(path, **config):
  return checks.findings({"path": path, **config}, "train.data")


def test_a_good_source_has_no_findings(pictures, write, processor):
  path = write([OK, {**OK, "image": ["p1.png", "p2.png"], "suffix": ["a", "b"], "more": 1}])
  checks.check({"train.data": {"path": path}}, processor, text_len=64)


def test_a_misspelt_key_reads_as_promised(pictures, write):
  path = write([OK] * 16 + [{"image": "p0.png", "prefix": "p", "sufix": "s"}])
  assert _findings(path) == [
    f'{path}:17: no key "suffix" (found: image, prefix, sufix). Rename the key or set '
    "--config.train.data.suffix=sufix"
  ]


@pytest.mark.parametrize(
  "record, config, message",
  [
    ({"imgae": "p0.png", "prefix": "p", "suffix": "s"}, {}, r'no key "image" .* Rename the key$'),
    ({**OK, "image": []}, {}, '"image" is an empty list; wanted a path or a list of paths'),
    ({**OK, "prefix": 3}, {}, '"prefix" is a number; wanted a string'),
    ({**OK, "suffix": 3}, {}, '"suffix" is a number; wanted a string or a list of strings'),
    (OK, {"prefix": "answer {q}"}, 'no key "q" for the prefix "answer {q}"'),
    ({"image": "p0.png", "prompt": "p", "suffix": "s"}, {}, 'no key "prefix"'),
    (OK, {"task": "detect"}, 'no key "objects"'),
    ({**OK, "objects": [{"box": [0, 0, 1, 1]}]}, {"task": "detect"}, r'objects\[0\]: no key "label"'),
    ({**OK, "objects": [{**BOX, "box": [5, 0, 1, 1]}]}, {"task": "detect"}, "x0 < x1"),
    ({**OK, "objects": [{**BOX, "box": [0, 0, 1, 10**400]}]}, {"task": "detect"}, "wanted .x0, y0"),
    (OK, {"outline": "bbox"}, '"bbox" is to be drawn: y0, x0, y1, x1 in 0..1; found none'),
    ({**OK, "bbox": [0, 0, 1]}, {"outline": "bbox"}, r"found \[0, 0, 1\]"),
    ({**OK, "objects": [BOX]}, {"task": "segment"}, r'objects\[0\]: no key "mask"'),
    ({**OK, "objects": [{**BOX, "mask": "no.png"}]}, {"task": "segment"}, "no mask file .*no.png"),
    ({**OK, "objects": [{**BOX, "label": "a;b"}]}, {"task": "detect"}, 'holds ";", which ends a'),
    ({**OK, "objects": [{**BOX, "mask": 7}]}, {"task": "segment"}, r'mask" is a number; wanted a'),
    ({**OK, "prefix": "\ud83d"}, {}, r"holds \\ud83d alone, half of a character"),
    ({**OK, "objects": []}, {"task": "detect"}, '"objects" is empty'),
    ({**OK, "image": "no.png"}, {}, "no image file .*no.png"),
    ({**OK, "image": "data.jsonl"}, {}, "data.jsonl: not an image"),
    ({**OK, "objects": [{**BOX, "box": [0, 0, 41, 15]}]}, {}, "outside the picture of 40 x 30"),
    (
      {**OK, "objects": [{**BOX, "mask": {"size": [9, 9], "counts": [81]}}]}, {},
      r"mask has the size \[9, 9\], the picture \[30, 40\]",
    ),
    ({**OK, "q": None}, {"prefix": "ask {q}"}, '"q" is null, but is to be a part of the text'),
    ({**OK, "q": ["a", None]}, {"prefix": "ask {q: or }"}, '"q" holds null'),
    ({**OK, "q": None}, {"suffix": "It is {q}"}, '"q" is null'),
    ({**OK, **ASKED, "answer": 2}, OPTIONS, '"answer" is 2; wanted 0 to 1, the number of one of'),
    ({**OK, **ASKED, "answer": "B"}, OPTIONS, "\"answer\" is 'B'; wanted 0 to 1"),
    ({**OK, **ASKED, "answer": -1}, OPTIONS, "it says that it has no answer"),
    ({**OK, **ASKED, "answer": 2}, {"suffix": "choices[answer]"}, '"answer" is 2; wanted 0 to 1'),
    ({**OK, "choices": ["a"] * 27, "answer": 0}, OPTIONS, '"choices" holds 27; there are letters'),
    ('{"image": "p0.png", ', {}, "broken JSON"),
  ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(pictures, write, record, config, message):
  first = {**OK, **ASKED, "q": ["7"], "bbox": [0, 0, 1, 1], "objects": [{**BOX, "mask": "p0.png"}]}
  path = write([first, record])
  found = [f for f in _findings(path, **config) if f.startswith(f"{path}:2: ")]
  assert any(re.search(message, f) for f in found), _findings(path, **config)


def test_one_line_per_kind_all_sources_at_once(pictures, write):
  one = write([OK, *[{"image": "p0.png", "prefix": "p"}] * 3], "one.jsonl")
  two = write([{**OK, "image": "no.png"}], "two.jsonl")
  configs = {"train.data.a": {"path": one}, "evals.b.data": {"path": two}}
  with pytest.raises(errors.UserError) as e:
    checks.check(configs)
  first, second = str(e.value).split("\n")
  assert (
    first.startswith(f'{one}:2: no key "suffix"')
    and "(the same kind in 2 more: lines 3, 4)" in first
  )
  assert second.startswith(f"{two}:1: no image file")


def test_an_empty_and_a_missing_file(write, tmp_path):
  assert "no examples" in _findings(write([]))[0]
  assert "No such file" in _findings(str(tmp_path / "no.jsonl"))[0]


def test_boxes_refer_to_the_picture_turned_by_its_exif(pictures, write):
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(pictures / "t.jpg", exif=exif)
  inside, outside = [0, 0, 30, 40], [0, 0, 40, 30]
  records = [{**OK, "image": "t.jpg", "objects": [{**BOX, "box": b}]} for b in (inside, outside)]
  (found,) = _findings(write(records))
  assert ":2: objects[0].box" in found


def test_a_suffix_that_would_be_cut_is_counted(pictures, write, processor):
  count = lambda text: len(processor.tokenizer.encode(text))
  long = {**OK, "suffix": ["yes", "a cat and a dog"]}
  path = write([OK, long, long])
  needs = 1 + count("caption en") + 1 + count("a cat and a dog")
  config = {"path": path}
  assert not checks.findings(config, "d", processor, needs)
  (found,) = checks.findings(config, "d", processor, needs - 1)
  assert (
    f"text_len {needs - 1} would cut 2 of 3 examples (d); the longest, {path}:2, needs" in found
  )
  assert f"--config.input.text_len={needs}" in found
  assert not checks.findings(config, "d", processor, needs - 1, train=False)
