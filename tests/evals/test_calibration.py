import numpy as np
import pytest

from paligemma_jax.evals import calibration


def box(x, label="cat", **more):
  return {"label": label, "box": [x, 0, x + 10, 10], **more}


ROWS = [
  # right; shifted by half of its width (IoU 1/3); of another label; without a score
  {
    "objects": [box(0), box(50)],
    "pred_objects": [box(0, score=0.95), box(55, score=0.85), box(0, "dog", score=0.05), box(50)],
  },
  {"objects": [], "pred_objects": [box(0, score=0.95)]},  # nothing is to be found there
]


def test_points_are_scores_and_the_best_overlap_with_the_same_label():
  scores, ious = calibration.points(ROWS)
  np.testing.assert_allclose(scores, [0.95, 0.85, 0.05, 0.95])
  np.testing.assert_allclose(ious, [1, 1 / 3, 0, 0])


def test_bins_hold_boxes_of_a_tenth_of_the_scores():
  found = calibration.binned(*calibration.points(ROWS))
  np.testing.assert_allclose(found, [(1, 0.05, 0, 0), (1, 0.85, 1 / 3, 0), (2, 0.95, 0.5, 0.5)])


def test_a_score_of_one_is_in_the_last_bin():
  assert calibration.binned(np.array([0.9, 1.0]), np.array([1.0, 1.0])) == [(2, 0.95, 1.0, 1.0)]


def test_the_error_weighs_bins_by_their_boxes():
  want = (1 * 0.05 + 1 * 0.85 + 2 * 0.45) / 4
  assert calibration.error(*calibration.points(ROWS)) == pytest.approx(want)


def test_a_figure_for_each_evaluation_whose_boxes_have_scores():
  unscored = [{"objects": [box(0)], "pred_objects": [box(0)]}]
  page = calibration.figures({"<a>": ROWS, "b": unscored, "c": [{"prediction": "yes"}]})
  assert page.count("<svg") == 1 and "&lt;a&gt;" in page and "4 boxes" in page
  assert "score 0.95\nmean IoU: 0.5" in page
  assert calibration.figures({"b": unscored}) == ""
