"""Sources are read whole: what is found, with its place, and what is not a defect."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from paligemma_jax import structs
from paligemma_jax.data import prepare, survey
from paligemma_jax.processing import boxes, masks

OK = {"image": "p0.png", "prefix": "caption en", "suffix": "yes"}
MASK = np.zeros((30, 40), bool)
MASK[3:9, 5:20] = True
RLE = masks.encode_rle(MASK)
CAT = {"label": "cat", "box": [5, 3, 20, 9], "mask": RLE}
TASKS = {"text": OK, "segment": {"image": "p0.png", "objects": [CAT]}}


@pytest.fixture
def look(pictures, write, processor):
  """look(records, task) -> survey of one source that is trained on."""

  def call(records, task="text", **options):
    config = {"path": write(records), "task": task}
    (found,) = survey.run({"train.data.x": config}, {}, processor, **options)
    return found

  return call


def _cat(**changes):
  return {
    "image": "p1.png",
    "objects": [{**CAT, "box": [5, 3, 20, 9], "mask": _rle(28, 28)} | changes],
  }


def _rle(height, width):
  return masks.encode_rle(np.ones((height, width), bool))


DEFECTS = [
  # task, the line that is planted, what is said about it
  ("text", '{"image": "p1.png", "pref', 'broken JSON'),
  ("text", '{"image": "p1.png"}\r{"image": "p1.png"}', 'Extra data .*p1.png"} {"image'),
  ("text", '["p1.png"]', "found a list, wanted an object"),
  ("text", "7", "found a number, wanted an object"),
  ("text", {"prefix": "p", "suffix": "s"}, 'no key "image"'),
  ("text", {"image": "p1.png", "prefix": "p", "sufix": "s"}, 'no key "suffix" .* Rename the key'),
  ("text", {**OK, "image": "gone.png"}, "no image file .*gone.png; correct the path"),
  ("text", {**OK, "image": "iVBOR" + "A" * 5000}, "no image file .*iVBORA{9,295}…; correct"),
  ("text", {**OK, "image": "cut.jpg"}, "cut.jpg: the image is cut off .*; copy it anew"),
  ("text", {**OK, "image": "text.png"}, "text.png: not an image but a web page"),
  ("text", {**OK, "image": ["p1.png", "empty.png"]}, "empty.png: not an image .the file is empty"),
  ("text", {**OK, "image": "p1.png", "prefix": 7}, '"prefix" is a number; wanted a string'),
  ("text", {**OK, "image": "p1.png", "suffix": " "}, '"suffix" is empty; write the answer'),
  ("text", {**OK, "image": "p1.png", "suffix": ["yes", ""]}, r'"suffix"\[1\] is empty'),
  ("text", {**OK, "image": "p1.png", "suffix": []}, '"suffix" is an empty list'),
  ("text", {**OK, "image": "p1.png", "suffix": "yes " * 40}, "needs .* tokens, text_len 24 would cut"),
  ("text", {**OK, "image": "p1.png", "suffix": "<loc12> cat"}, "holds <loc12>, which is no token"),
  ("text", {**OK, "image": "p1.png", "prefix": "half \ud83d"}, r"holds \\ud83d alone, half of a char"),
  ("text", {**OK, "prefix": "r", "id": 1}, 'the "id" 1 is that of .*data.jsonl:1 too'),
  ("text", OK, "a copy of .*data.jsonl:1: same picture, prefix and answer"),
  ("text", {**OK, "image": "again.bmp"}, "a copy of .*data.jsonl:1"),  # the same pixels
  ("segment", {"image": "p1.png", "objects": [{"label": "cat", "mask": _rle(28, 28)}]}, 'no key "box"'),
  ("segment", _cat(box=[0, 0, 29, 9]), r"objects\[0\].box: .* outside the picture of 28 x 28"),
  ("segment", _cat(box=[20, 3, 5, 9]), r"objects\[0\].box is .*; wanted .* x0 < x1"),
  ("segment", _cat(box=[5, 3, 5, 9]), r"objects\[0\].box is .*; wanted .* x0 < x1"),
  ("segment", _cat(box=[5, 3, 20]), r"objects\[0\].box is \[5, 3, 20\]; wanted"),
  ("segment", _cat(label=None), r'"objects\[0\].label" is null; wanted a string'),
  ("segment", {"image": "p0.png", "objects": [{"box": [5, 3, 20, 9], "mask": RLE}]},
   r'objects\[0\]: no key "label" \(found: box, mask\)'),
  ("segment", _cat(label="cat; dog"), r'objects\[0\].label "cat; dog" holds ";", which ends a label'),
  ("segment", _cat(label="<loc0001>"), 'holds "<", which ends a label'),
  ("segment", _cat(mask=None), r'"objects\[0\].mask" is null; wanted a path'),
  ("segment", _cat(mask=RLE), r"mask has the size \[30, 40\], the picture \[28, 28\]"),
  ("segment", _cat(mask="p0.png"), r"objects\[0\].mask has 40 x 30 pixels, the picture 28 x 28"),
  ("segment", _cat(mask="gone.png"), "no mask file .*gone.png"),
  ("segment", _cat(mask={"size": [28, 28], "counts": [9]}), "the runs cover 9 pixels"),
  ("segment", _cat(mask={"size": [28, 28], "counts": [784]}), "holds no pixel; draw it"),
  ("segment", _cat(mask={"size": [28, 28], "counts": [783, 1]}), "no pixel inside its box"),
  ("segment", _cat(image=1), r"objects refer to picture 1; there are 1"),
  ("segment", _cat(image=["p1.png"]), r"objects refer to picture \['p1.png'\]; there are 1"),
  ("segment", {"image": "p1.png", "objects": []}, '"objects" is empty'),
]  # fmt: skip


@pytest.fixture
def broken(pictures):
  """Files that are no pictures, and one that is a copy of p0.png in another format."""
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  Image.fromarray(noise).save(pictures / "whole.jpg")
  (pictures / "cut.jpg").write_bytes((pictures / "whole.jpg").read_bytes()[:900])
  (pictures / "text.png").write_text("<html>404</html>")
  (pictures / "empty.png").write_bytes(b"")
  Image.open(pictures / "p0.png").save(pictures / "again.bmp")


@pytest.mark.parametrize("task, line, words", DEFECTS, ids=[d[2][:30] for d in DEFECTS])
def test_a_planted_defect_is_found_where_it_is(look, broken, task, line, words):
  good = TASKS[task]
  found = look(
    [{**good, "id": 1}, {**good, "image": "p0.png", "prefix": "q"}, line], task, text_len=24
  )
  ((_, count, said),) = [d for d in found.lines() if f"{found.report.source.path}:3: " in d[2]]
  assert count == 1 and re.search(words, said), said


def test_a_good_source_has_no_defects_and_is_counted(look, codec):
  records = [
    {"image": ["p0.png", "p1.png"], "objects": [{**CAT, "image": 0}], "id": 1},
    {"image": "p0.png", "objects": [{**CAT, "label": "dog"}], "id": 2},
  ]
  found = look(records, "segment", text_len=64, codec=codec)
  assert found.lines() == []
  assert (len(found.report.source), found.num_pictures, found.num_objects) == (2, 2, 2)
  assert found.lengths.shape == found.ious.shape == (2,) and (found.lengths > 24).all()


def test_all_defects_are_told_one_line_a_kind(look):
  records = [OK, {**OK, "suffix": "", "prefix": "a"}, "{", {**OK, "suffix": "", "prefix": "b"}]
  (empty, broken) = look(records).lines()
  assert (empty[:2], broken[:2]) == (("empty suffix", 2), ("json", 1))
  assert "data.jsonl:2: " in empty[2] and "(the same kind in 1 more: line 4)" in empty[2]


def test_a_text_may_have_any_objects_and_no_record_stops_the_rest(look):
  odd = [{**OK, "prefix": str(o), "objects": o} for o in (3, [3], {}, "cat", [{"image": {}}])]
  lines = look([*odd, "{"]).lines()
  assert [kind for kind, *_ in lines] == ["object image", "json"]


def test_lengths_are_what_training_feeds_to_the_model(look, processor):
  found = look([{**OK, "suffix": ["yes", "a cat and a dog"]}, "{"], text_len=3)
  count = lambda text: len(processor.tokenizer.encode(text))
  need = 1 + count("caption en") + 1 + count("a cat and a dog")
  assert found.lengths.tolist() == [need, 0]
  assert f"--config.input.text_len={need}" in dict((k, t) for k, _, t in found.lines())["too long"]


@pytest.fixture
def splits(pictures, write, processor):
  """splits(train, val) -> surveys of a source that is trained on and one that is evaluated."""

  def call(train, val):
    train = {"train.data.x": {"path": write(train, "train.jsonl")}}
    return survey.run(train, {"evals.v.data": {"path": write(val, "val.jsonl")}}, processor)

  return call


@pytest.mark.parametrize("other", ["p0.png", "copy.png", "again.bmp"])
def test_what_is_evaluated_must_not_be_trained_on(splits, pictures, broken, other):
  (pictures / "copy.png").write_bytes((pictures / "p0.png").read_bytes())
  _, val = splits([OK], [{**OK, "image": "p1.png"}, {**OK, "image": other, "suffix": "no"}])
  ((kind, count, line),) = val.lines()
  assert (kind, count) == ("trained on", 1)
  assert re.search(
    r"val.jsonl:2: same picture and prefix as .*train.jsonl:1, which is trained", line
  )


def test_another_prefix_or_another_picture_is_no_copy(splits, pictures):
  pixels = np.array(Image.open(pictures / "p0.png"))
  pixels[0, 0, 0] ^= 1
  Image.fromarray(pixels).save(pictures / "near.png")
  found = splits([OK, {**OK, "prefix": "q"}], [{**OK, "prefix": "r"}, {**OK, "image": "near.png"}])
  assert not survey.lines(found) and not survey.lines(found, notes=True)


def test_another_answer_to_the_same_question_is_worth_a_note(splits):
  train, _ = splits([OK, {**OK, "suffix": "no"}], [{**OK, "prefix": "q"}])
  assert not train.lines()
  ((kind, _, line),) = train.lines(notes=True)
  assert kind == "another answer" and "train.jsonl:2: same picture and prefix as" in line


def test_the_same_file_in_both_is_meant_and_told_once(pictures, write, processor):
  config = {"path": write([OK, {**OK, "suffix": "", "prefix": "q"}])}
  found = survey.run({"train.data.x": config}, {"evals.mini.data": config}, processor)
  assert [line[1:3] for line in survey.lines(found)] == [("empty suffix", 1)]
  assert [line[1:3] for line in survey.lines(found, notes=True)] == [("trained on itself", 2)]


def test_prompts_of_an_evaluation_must_fit_alone_unless_it_is_scored(pictures, write, processor):
  config = {"path": write([{**OK, "suffix": "yes " * 40}])}
  for scored, want in (((), []), (("evals.v.data",), ["too long"])):
    (found,) = survey.run({}, {"evals.v.data": config}, processor, text_len=24, scored=scored)
    assert [kind for kind, *_ in found.lines()] == want


def test_a_source_that_cannot_be_opened_does_not_hide_the_others(pictures, write, processor):
  configs = {"train.data.a": {"path": "gone.jsonl"}, "train.data.b": {"path": write(["{"])}}
  found = survey.run(configs, {}, processor)
  assert [line[1] for line in survey.lines(found)] == ["source", "json"]
  assert "gone.jsonl" in survey.lines(found)[0][3]


def test_masks_are_compared_with_what_comes_back_from_the_codec(look, codec):
  given = [[5, 3, 20, 9], [4.4, 2.7, 21.5, 9.2], [-0.3, 0, 40, 30.2]]
  records = [{"image": "p0.png", "objects": [{**CAT, "box": box}]} for box in given]
  found = look(records, "segment", codec=codec)
  for box, iou in zip(given, found.ious, strict=True):
    _, (small,) = prepare.round_trip([masks.crop_for_codec(MASK, box)], codec)
    answer = boxes.format_boxes([structs.Box("cat", *box)], 30, 40)
    back = masks.paste(small, boxes.parse_boxes(answer, 30, 40)[0], 30, 40)
    assert iou == pytest.approx((back & MASK).sum() / (back | MASK).sum())
  assert [kind for kind, *_ in found.lines(notes=True)][-1] == "round trip"


def test_pictures_and_masks_inside_the_records(look, pictures):
  inside = lambda path: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
  Image.fromarray(MASK).save(pictures / "m.png")
  record = {
    "image": inside(pictures / "p0.png"),
    "objects": [{**CAT, "mask": inside(pictures / "m.png")}],
  }
  broken = {"image": "data:image/png;base64,AAAA", "objects": [CAT]}
  found = look([record, {**record, "objects": [{**CAT, "box": [0, 0, 41, 9]}]}, broken], "segment")
  assert [(kind, n) for kind, n, _ in found.lines()] == [("outside", 1), ("not an image", 1)]
  assert found.num_pictures == 2


def test_sources_of_other_kinds_are_read_alike(pictures, processor):
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(pictures / "a.array_record"), "group_size:1")
  for record in ({**OK, "image": str(pictures / "p0.png")}, {**OK, "image": "lost.png"}):
    writer.write(json.dumps(record).encode())
  writer.close()
  config = {"kind": "arrayrecord", "path": f"{pictures}/*.array_record"}
  (found,) = survey.run({"train.data.x": config}, {}, processor)
  ((kind, _, line),) = found.lines()
  assert kind == "image file" and line.startswith(f"{pictures}/*.array_record:1: no image file")
  assert found.lengths.shape == (2,)


def test_the_order_of_findings_does_not_depend_on_which_thread_is_first(look, broken):
  lines = [{**OK, "image": f"{name}", "prefix": str(i)} for i, name in enumerate(
    ["gone.png", "p0.png", "cut.jpg", "text.png", "p1.png"] * 20)]  # fmt: skip
  assert len({str(look(lines).lines()) for _ in range(4)}) == 1


@pytest.mark.parametrize(
  "records, want",
  [
    ([{"image": "a", "objects": [CAT]}, "{"], "segment"),
    ([{"image": "a", "objects": [CAT, {"label": "a", "box": [0, 0, 1, 1]}]}], "detect"),
    ([{"image": "a", "objects": [{**CAT, "sentences": ["the cat"]}]}], "refer"),
    ([OK], "text"),
    ([{"image": "a", "suffix": "s", "objects": [CAT]}], "text"),
    ([{"image": "a"}], "text"),
  ],
)
def test_the_task_of_a_lone_file_is_told_from_its_records(write, records, want):
  assert survey.guess_task(write(records)) == want


def test_a_sample_begins_with_the_defects_and_reaches_over_the_source(look):
  records = [{**OK, "prefix": str(i)} for i in range(50)]
  records[30]["suffix"] = ""
  found = look(records)
  picked = [i for _, i in survey.sample([found], 5)]
  assert picked == [30, 0, 12, 24, 36, 49]
