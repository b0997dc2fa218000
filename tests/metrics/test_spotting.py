import pytest

from paligemma_jax.metrics import spotting

EXIT = {"label": "EXIT", "box": [0, 0, 10, 10]}
HALF = {"label": "EXIT", "box": [0, 0, 10, 5]}  # IoU 0.5 with EXIT
LESS = {"label": "EXIT", "box": [0, 0, 10, 4]}
LOWER = {"label": "exit", "box": [0, 0, 10, 10]}
ELSEWHERE = {"label": "SHOP", "box": [50, 0, 60, 10]}
ILLEGIBLE = {"label": "###", "box": [50, 0, 60, 10], "ignore": True}


@pytest.mark.parametrize(
  "truths, found, precision, recall",
  [
    ([EXIT], [EXIT], 1, 1),
    ([EXIT], [HALF], 1, 1),  # half is enough
    ([EXIT], [LESS], 0, 0),
    ([EXIT], [LOWER], 0, 0),  # the text as it stands
    ([EXIT], [EXIT, HALF], 0.5, 1),  # a word is found once
    ([EXIT, ELSEWHERE], [ELSEWHERE], 1, 0.5),
    ([EXIT, ILLEGIBLE], [EXIT, ELSEWHERE], 1, 1),  # neither found nor made up
    ([EXIT, ILLEGIBLE | {"box": [0, 0, 10, 6]}], [EXIT], None, 0),  # lies on it by more than half
    ([EXIT], [LOWER, HALF], 0, 0),  # the better place has the wrong text
    ([EXIT, LOWER | {"box": [0, 0, 10, 9]}], [EXIT], 1, 0.5),  # the truth it is best at
  ],
)
def test_words(truths, found, precision, recall):
  got = spotting.text_spotting([{"objects": truths, "pred_objects": found}])
  assert (got.get("precision"), got["recall"]) == (precision, recall)
  both = (precision or 0) + recall
  assert got["f1"] == pytest.approx(2 * precision * recall / both if both else 0)


def test_words_count_over_all_pictures():
  rows = [{"objects": [EXIT], "pred_objects": []}, {"objects": [], "pred_objects": [EXIT]}]
  assert spotting.text_spotting(rows) == {"f1": 0, "precision": 0, "recall": 0}
  rows = [{"objects": [EXIT], "pred_objects": [EXIT]}, {"objects": [EXIT], "pred_objects": []}]
  assert spotting.text_spotting(rows) == pytest.approx({"f1": 2 / 3, "precision": 1, "recall": 0.5})
