"""The kinds of examples, and how one of their drafts is drawn."""

import itertools
import re

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.data import problems, tasks, templates

CAT = {"label": "cat", "box": [0, 0, 20, 15]}
DOG = {"label": "dog", "box": [10, 15, 40, 30]}
CAT_LOC, DOG_LOC = "<loc0000><loc0000><loc0512><loc0512>", "<loc0512><loc0256><loc1023><loc1023>"
SEG = "".join(f"<seg{i:03d}>" for i in range(16))


def drafts(record, rng=None, codes=None, order=None, **rules):
  return tasks.drafts(record, tasks.Rules(**rules), (30, 40), codes, rng, order)


def strings(record, rng=None, codes=None, order=None, **rules):
  return [(d.prefix, d.suffix) for d in drafts(record, rng, codes, order, **rules)]


def every_order(record, **rules):
  """The texts of all orders that may be drawn."""
  count = tasks.num_shuffled(record, tasks.Rules(**rules))
  orders = itertools.permutations(range(count))
  return {text for order in orders for text in strings(record, order=order or None, **rules)}


@pytest.mark.parametrize(
  "prefix, want",
  [
    ("choose {options}", "choose red, blue"),  # joined by ", " unless said
    ("choose {options: \t }", "choose red \t blue"),
    ("{options[1]} of {n:03d}", "blue of 007"),
  ],
)
def test_a_list_in_a_template_is_joined(prefix, want):
  assert templates.fill(prefix, {"options": ["red", "blue"], "n": 7}) == want


@pytest.mark.parametrize(
  "record, suffix, want",
  [
    ({"options": ["red", "blue"], "right": 1}, "options[right]", ["blue"]),
    ({"options": ["red", "blue"], "right": -1}, "options[right]", [None]),  # of a test split
    ({"n": 12}, "{n}", ["12"]),
    ({"letter": "B"}, "It is {letter}.", ["It is B."]),
    ({"answers": ["Red", "blue"]}, "answers", ["Red", "blue"]),
    ({"answers": []}, "answers", [None]),
  ],
)
def test_an_answer_is_a_key_one_of_a_list_or_a_template(record, suffix, want):
  assert [s for _, s in strings(record, prefix="p", suffix=suffix)] == want


def test_answers_may_be_lower_cased_the_prefix_is_not():
  record = {"suffix": ["A Cat", "DOG"]}
  assert strings(record, prefix="P", lower=True) == [("P", "a cat"), ("P", "dog")]


def test_options_are_numbered_by_letters_and_shuffled_with_their_answer():
  record = {"choices": ["red", "blue", "green"], "answer": 1}
  rules = dict(task="options", prefix="{indexed_choices}", suffix="It is {indexed_answer}.")
  in_order = [("(A) red, (B) blue, (C) green", "It is B.")]
  assert strings(record, **rules) == in_order
  assert every_order(record, **rules) == set(in_order)  # not asked for
  seen = every_order(record, draw="shuffle", **rules)
  for shown, answer in seen:
    letter = answer.removeprefix("It is ").removesuffix(".")
    assert f"({letter}) blue" in shown
  assert len(seen) == 6


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"answer": 4}, '"answer" is 4; wanted 0 to 2, the number of one of the 3 "choices", or -1'),
    ({"answer": -2}, '"answer" is -2; wanted 0 to 2'),
    ({"answer": "B"}, "\"answer\" is 'B'; wanted 0 to 2"),
    ({"answer": None}, '"answer" is None; wanted 0 to 2'),
    ({"answer": True}, '"answer" is True; wanted 0 to 2'),
    ({"choices": "red"}, "\"choices\" is 'red'; wanted a list"),
    ({"choices": ["red"] * 27}, '"choices" holds 27; there are letters for 26'),
    ({"choices": ["red", None, "blue"]}, None),
  ],
)
def test_options_that_cannot_be_asked_are_refused(changes, words):
  record = {"choices": ["red", "blue", "green"], "answer": 1, **changes}
  rules = dict(task="options", prefix="{choices}", suffix="{indexed_answer}")
  with pytest.raises(errors.UserError, match=words and re.escape(words)):
    drafts(record, **rules)
  if "answer" in changes:
    with pytest.raises(errors.UserError, match=re.escape(words)):
      drafts(record, prefix="p", suffix="choices[answer]")


def test_there_are_letters_for_26_options_and_none_for_no_answer():
  record = {"choices": [str(k) for k in range(26)], "answer": 25}
  rules = dict(task="options", prefix="{indexed_choices}", suffix="{indexed_answer}")
  ((shown, answer),) = strings(record, **rules)
  assert shown.endswith("(Z) 25") and answer == "Z"
  for suffix in ("{indexed_answer}", "indexed_answer", "It is {indexed_answer}."):
    (draft,) = drafts({**record, "answer": -1}, **rules | {"suffix": suffix})
    assert draft.suffix is None  # not an empty answer, nor the word None


@pytest.mark.parametrize("key", ["prefix", "suffix"])
def test_a_null_is_no_part_of_a_text(key):
  rules = {"prefix": "p", "suffix": "s", key: "ask {q}"}
  with pytest.raises(errors.UserError, match='"q" is null, but is to be a part of the text'):
    drafts({"q": None, "s": "x"}, **rules)
  with pytest.raises(errors.UserError, match='"q" holds null'):
    drafts({"q": ["a", None], "s": "x"}, **rules)


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_objects_are_written_in_random_order_and_those_for_scores_alone_not_at_all(key):
  record = {"objects": [CAT, DOG, {**CAT, key: True}]}
  rules = dict(task="detect", prefix="detect all classes", draw="shuffle")
  one, other = f"{CAT_LOC} cat ; {DOG_LOC} dog", f"{DOG_LOC} dog ; {CAT_LOC} cat"
  assert strings(record, **rules) == [("detect all classes", one)]
  assert {suffix for _, suffix in every_order(record, **rules)} == {one, other}
  assert drafts(record, **rules)[0].objects == (0, 1, 2)  # scores know all


def test_noise_comes_after_the_objects_in_training_alone():
  rules = dict(task="detect", prefix="detect all classes", noise=2)
  find = lambda record, rng: strings(record, rng, **rules)[0][1]
  assert find({"objects": [CAT]}, None) == f"{CAT_LOC} cat"
  text = find({"objects": [CAT]}, np.random.default_rng(0))
  first, *others = text.split(" ; ")
  assert first == f"{CAT_LOC} cat" and len(others) == 2
  for other in others:
    y0, x0, y1, x1 = (int(v) for v in re.findall(r"<loc(\d{4})>", other))
    assert y0 <= y1 and x0 <= x1 and other.endswith("> <noise>")
  assert find({"objects": [CAT]}, np.random.default_rng(1)) != text
  assert find({"objects": []}, np.random.default_rng(0)).count("<noise>") == 2


def test_a_sentence_refers_to_one_object_without_its_label():
  record = {"objects": [{**CAT, "sentences": ["left", "small"]}, {**DOG, "sentences": ["big"]}]}
  found = drafts(record, codes=[tuple(range(16))] * 2, task="refer")
  assert [(d.prefix, d.suffix, d.objects) for d in found] == [
    ("left", CAT_LOC + SEG, (0,)),
    ("small", CAT_LOC + SEG, (0,)),
    ("big", DOG_LOC + SEG, (1,)),
  ]


def test_an_object_without_mask_is_referred_to_by_its_box_alone():
  record = {"objects": [{**CAT, "sentences": ["left"]}, {**DOG, "sentences": ["big"]}]}
  for codes in (None, [tuple(range(16)), None]):
    assert drafts(record, codes=codes, task="refer")[1].suffix == DOG_LOC
  record["objects"][1]["mask"] = "mask.png"
  assert len(drafts(record, task="refer")[1].suffix) == len(DOG_LOC + SEG)  # stand-ins
  rows = {"image": "a.png", **record}
  assert list(problems.of_record(rows, tasks.Rules("refer"), "data")) == []


def test_a_table_has_coordinates_where_a_cell_is_not_empty():
  record = {
    "structure": ["<tr>", "<td>", "</td>", "<td", ' colspan="2"', ">", "</td>", "</tr>"],
    "objects": [{"label": "", "box": [0, 0, 0, 0]}, {"label": "<b>a</b>", "box": [10, 15, 40, 30]}],
  }
  ((prefix, found),) = strings(record, task="table", prefix="table to html")
  loc = "<loc0256><loc0512><loc1023><loc1023>"  # x0 y0 x1 y1
  assert prefix == "table to html"
  assert found == f'<tr><td></td><td coords="{loc}" colspan="2"><b>a</b></td></tr>'


def test_each_draws_every_answer_once_before_any_comes_again():
  drawn = [tasks.turn(5, 0, 3, visit) for visit in range(50)]
  passes = [tuple(drawn[k : k + 5]) for k in range(0, 50, 5)]
  assert all(sorted(one) == list(range(5)) for one in passes)
  assert len(set(passes)) > 5  # in another order each time
  assert drawn != [tasks.turn(5, 1, 3, v) for v in range(50)]  # of another seed
  assert drawn != [tasks.turn(5, 0, 4, v) for v in range(50)]  # of another record


def test_object_draws_objects_in_turn_and_any_of_their_sentences():
  record = {"objects": [{**CAT, "sentences": ["left", "small"]}, {**DOG, "sentences": ["big"]}]}
  rules = tasks.Rules(task="refer", draw="object")
  options, rng, asked = tasks.drafts(record, rules), np.random.default_rng(0), []

  def choose(n):
    asked.append(n)
    return 0

  seen = {tasks.take(options, rules, choose, rng).prefix for _ in range(20)}
  assert seen == {"left", "small"} and set(asked) == {2}  # objects, not sentences
  assert tasks.take(options, rules, choose, None).prefix == "left"


@pytest.mark.parametrize(
  "count, want",
  [
    (12, [0, 3, 6, 9]),
    (13, [0, 3, 6, 9]),
    (6, [0, 3, 0, 3]),  # too short: again from the first
    (1, [0, 0, 0, 0]),
  ],
)
def test_frames_of_a_video(count, want):
  assert tasks.frames(count, tasks.Rules(frames=4, stride=3), None) == want


def test_a_long_video_begins_anywhere_in_training():
  rules = tasks.Rules(frames=4, stride=3)
  starts = {tasks.frames(14, rules, np.random.default_rng(s))[0] for s in range(30)}
  assert starts == {0, 1, 2}


@pytest.mark.parametrize(
  "config, words",
  [
    ({"draw": "once"}, 'd.draw: "once" is unknown'),
    ({"fit": "padd"}, 'd.fit: "padd" is unknown; did you mean "pad"'),
    ({"resize": "bilinar"}, 'd.resize: "bilinar" is unknown; did you mean "bilinear"'),
    ({"suffix": "{a"}, 'd.suffix: "{a" is no template'),
    ({"frames": -1}, "d.frames is a number of them"),
    ({"task": "detect", "noise": -1}, "d.noise is a number of them"),
    ({"noise": 2}, 'd.noise is for the task "detect", not "text"'),
  ],
)
def test_rules_name_what_is_wrong(config, words):
  with pytest.raises(errors.UserError, match=words):
    tasks.Rules.of(config, "d")
