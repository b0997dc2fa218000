import pytest

from paligemma_jax.metrics import boxes

CAT = {"label": "cat", "box": [0, 0, 10, 10]}
CAT_8 = {"label": "cat", "box": [0, 0, 10, 8]}  # IoU 0.8 with CAT
CAT_4 = {"label": "cat", "box": [0, 0, 10, 4]}  # IoU 0.4
DOG = {"label": "dog", "box": [0, 0, 10, 10]}


@pytest.mark.parametrize(
  "truths, found, iou, recall, precision",
  [
    ([CAT], [CAT], 1, 1, 1),
    ([CAT], [CAT_8], 0.8, 1, 1),
    ([CAT], [CAT_4], 0.4, 0, 0),
    ([CAT], [DOG], 0, 0, 0),  # right place, wrong name
    ([CAT], [], 0, 0, 0),
    ([CAT], [CAT, CAT], 1, 1, 0.5),  # twice the same box is one find
    ([CAT, DOG], [DOG, CAT_8], 0.9, 1, 1),  # the order does not matter
    ([CAT, CAT_8], [CAT_4], 0.25, 0.5, 1),  # goes to CAT_8 with IoU 4/8; exactly 0.5 counts
  ],
)
def test_one_row(truths, found, iou, recall, precision):
  got = boxes.score([{"objects": truths, "pred_objects": found}])
  want = {"box_iou": iou, "recall_at_0.5": recall, "precision_at_0.5": precision}
  assert got == pytest.approx(want)


@pytest.mark.parametrize("found, value", [([], 1), ([CAT], 0)])
def test_a_picture_without_objects_is_right_when_nothing_is_made_up(found, value):
  (got,) = boxes.score.per_row([{"objects": [], "pred_objects": found}])
  assert set(got.values()) == {value}


CROWD = {"label": "cat", "box": [0, 0, 100, 100], "iscrowd": 1}


@pytest.mark.parametrize(
  "truths, found, iou, precision",
  [
    ([CAT, CROWD], [CAT], 1, 1),  # the crowd is not to be found
    ([CAT, CROWD], [CAT, {"label": "cat", "box": [50, 50, 60, 60]}], 1, 1),  # a cat of the crowd
    ([CAT, CROWD], [CAT, DOG], 1, 0.5),  # a dog is none
    ([CAT, CROWD], [CAT, {"label": "cat", "box": [95, 0, 110, 10]}], 1, 0.5),  # a third of it
    ([CAT, {**CROWD, "iscrowd": 0, "ignore": True}], [CAT], 1, 1),
  ],
)
def test_what_is_left_out_of_answers_is_not_to_be_found_in_them(truths, found, iou, precision):
  got = boxes.score([{"objects": truths, "pred_objects": found}])
  assert (got["box_iou"], got["precision_at_0.5"]) == (iou, precision)


def test_objects_weigh_the_same_whatever_row_they_are_in():
  rows = [
    {"objects": [CAT, DOG], "pred_objects": [CAT, DOG]},
    {"objects": [CAT], "pred_objects": []},
  ]
  got = boxes.score(rows)
  assert got == pytest.approx({"box_iou": 2 / 3, "recall_at_0.5": 2 / 3, "precision_at_0.5": 1})


def test_boxes_of_one_row_never_match_those_of_another():
  rows = [{"objects": [CAT], "pred_objects": []}, {"objects": [], "pred_objects": [CAT]}]
  assert boxes.score(rows)["box_iou"] == 0
