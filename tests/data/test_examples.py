import numpy as np
import pytest
from PIL import Image

from paligemma_jax import errors
from paligemma_jax.data import examples, sources, tasks
from paligemma_jax.processing import masks

CAT = {"label": "cat", "box": [0, 0, 20, 15]}
DOG = {"label": "dog", "box": [10, 15, 40, 30]}
# 40 x 30 pixels: 20 of 40 is round(511.5) = 512, half to even
CAT_LOC, DOG_LOC = "<loc0000><loc0000><loc0512><loc0512>", "<loc0512><loc0256><loc1023><loc1023>"
SEG = "".join(f"<seg{i:03d}>" for i in range(16))


def _strings(record, size=(30, 40), codes=None, **rules):
  found = tasks.drafts(record, tasks.Rules(**rules), size, codes)
  return [(d.prefix, d.suffix) for d in found]


@pytest.mark.parametrize(
  "record, rules, want",
  [
    ({"prefix": "p", "suffix": "s"}, {}, [("p", "s")]),
    ({"prefix": "p", "suffix": ["s", "t"]}, {}, [("p", "s"), ("p", "t")]),
    ({"prefix": "p", "answer": "s"}, {"suffix": "answer"}, [("p", "s")]),
    ({"q": "what?", "suffix": "s"}, {"prefix": "answer en {q}"}, [("answer en what?", "s")]),
    ({"prefix": "p"}, {}, [("p", None)]),
  ],
)
def test_text(record, rules, want):
  assert _strings(record, **rules) == want


def test_detect_names_each_label_once_and_boxes_in_their_order():
  record = {"objects": [CAT, DOG, CAT]}
  want = f"{CAT_LOC} cat ; {DOG_LOC} dog ; {CAT_LOC} cat"
  assert _strings(record, task="detect") == [("detect cat ; dog", want)]


def test_the_prefix_of_a_detect_example_may_be_the_records_own():
  record = {"prefix": "detect bird", "objects": []}
  assert _strings(record, task="detect", prefix="{prefix}") == [("detect bird", "")]


def test_segment_makes_a_question_of_every_label():
  codes = [tuple(range(16))] * 3
  found = _strings({"objects": [CAT, DOG, CAT]}, codes=codes, task="segment")
  assert found == [
    ("segment cat", f"{CAT_LOC}{SEG} cat ; {CAT_LOC}{SEG} cat"),
    ("segment dog", f"{DOG_LOC}{SEG} dog"),
  ]


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_nothing_to_find_is_an_error(task):
  with pytest.raises(errors.UserError, match='"objects" is empty'):
    _strings({"objects": []}, task=task)


def test_a_whole_example(pictures, write):
  record = {"image": "p0.png", "prefix": "p", "suffix": ["s", "t"], "id": 7, "source": "web"}
  source = sources.Jsonl(write([record]))
  made = examples.make(source, 0, tasks.Rules(), choose=lambda n: n - 1, extras=True)
  assert (made.prefix, made.suffix) == ("p", "t")
  np.testing.assert_array_equal(made.images[0], np.array(Image.open(pictures / "p0.png")))
  assert made.extras == {
    "image": str(pictures / "p0.png"), "prefix": "p", "suffix": ["s", "t"], "id": 7,
    "source": "web", "height": 30, "width": 40,
  }  # fmt: skip


def test_several_pictures_boxes_refer_to_the_last_unless_said(pictures, write):
  record = {"image": ["p0.png", "p1.png"], "objects": [{"label": "cat", "box": [0, 0, 28, 14]}]}
  other = {**record, "objects": [{"label": "cat", "box": [0, 0, 20, 15], "image": 0}]}
  named = {**record, "objects": [{"label": "cat", "box": [0, 0, 20, 15], "image": "p0.png"}]}
  source = sources.Jsonl(write([record, other, named]))
  made = [examples.make(source, i, tasks.Rules("detect"), extras=True) for i in range(3)]
  assert made[0].suffix == "<loc0000><loc0000><loc0512><loc1023> cat"
  assert made[1].suffix == made[2].suffix == f"{CAT_LOC} cat"
  assert made[0].extras["height"] == 28 and made[1].extras["height"] == 30
  assert len(made[0].images) == 2


def test_masks_are_pictures_or_run_lengths_and_only_those_asked_for_are_given(pictures, write):
  mask = np.zeros((30, 40), bool)
  mask[3:9, 5:20] = True
  Image.fromarray(mask.astype(np.uint8)).save(pictures / "m.png")  # 0 and 1
  record = {"image": "p0.png", "objects": [{**CAT, "mask": "m.png"}, DOG]}
  record["objects"].append({**CAT, "mask": masks.encode_rle(mask)})
  source = sources.Jsonl(write([record]))
  rows = examples.make(source, 0, tasks.Rules("segment"), extras=True).extras
  assert [o["label"] for o in rows["objects"]] == ["cat", "cat"]
  for item in rows["objects"]:
    np.testing.assert_array_equal(item["mask"], mask)


@pytest.mark.parametrize(
  "record, message",
  [
    ({"prefix": "p"}, 'data.jsonl:1: no key "image"'),
    ({"image": "no.png", "prefix": "p"}, "data.jsonl:1: cannot read .*no.png"),
    ({"image": "data.jsonl", "prefix": "p"}, "data.jsonl:1: .*data.jsonl: not an image"),
  ],
)
def test_what_cannot_be_read_is_named(pictures, write, record, message):
  source = sources.Jsonl(write([record]))
  with pytest.raises(errors.UserError, match=message):
    examples.make(source, 0, tasks.Rules())


def test_objects_that_another_data_set_lays_out_in_its_own_way_are_no_rows_of_ours(pictures, write):
  record = {"image": "p0.png", "prefix": "p", "suffix": "s", "objects": {"bbox": [[0, 0, 1, 1]]}}
  made = examples.make(sources.Jsonl(write([record])), 0, tasks.Rules(), extras=True)
  assert made.suffix == "s" and "objects" not in made.extras


def test_a_mask_of_another_size_is_an_error(pictures, write):
  mask = {"size": [2, 2], "counts": [4]}
  source = sources.Jsonl(write([{"image": "p0.png", "objects": [{**CAT, "mask": mask}]}]))
  with pytest.raises(errors.UserError, match="mask has 2 x 2 pixels, the picture 40 x 30"):
    examples.make(source, 0, tasks.Rules("segment"), extras=True)


@pytest.mark.parametrize(
  "named, want",
  [
    ((None, None), 1),  # a null is no name
    ((0, "p0.png"), 0),  # two names of the same
    (("p1.png", ...), 1),  # one says what the other means
    ((0, ...), None),
    ((..., 0), None),
    ((0, 1), None),
    ((True, ...), 1),
  ],
)
def test_an_object_without_a_name_refers_to_the_last_picture_whatever_others_name(named, want):
  objects = [CAT if name is ... else {**CAT, "image": name} for name in named]
  record = {"image": ["p0.png", "p1.png"], "objects": objects}
  if want is None:
    with pytest.raises(errors.UserError, match=r"refer to several pictures, \[0, 1\]"):
      examples.object_image(record)
  else:
    assert examples.object_image(record) == want


def test_rules_are_checked():
  with pytest.raises(errors.UserError, match=r'd.task: "detct" is unknown; did you mean "detect"'):
    tasks.Rules.of({"task": "detct"}, "d")
  with pytest.raises(errors.UserError, match='d.prefix: "answer {q" is no template'):
    tasks.Rules.of({"prefix": "answer {q"}, "d")
