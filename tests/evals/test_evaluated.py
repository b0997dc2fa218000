import math

import pytest

from paligemma_jax.evals import evaluated, predictions, results

SETTINGS = {"seed": 0, "checkpoint": "abc"}
SCORES = {"acc": (0.5, 0.25, 0.75), "num": (4.0, None, None), "cider": (math.inf, None, None)}
LINES = [results.Score("vqa", "val/acc", ("val",), *SCORES["acc"])]


@pytest.fixture
def folder(tmp_path):
  """One evaluation is done and shown."""
  predictions.write(tmp_path, "val", [{"id": 0, "prediction": "yes"}])
  evaluated.add(tmp_path, "val", SETTINGS, SCORES)
  results.write_page(tmp_path / results.PAGE, "vqa", LINES)
  evaluated.show(tmp_path, LINES)
  return tmp_path


def test_scores_are_found_for_the_same_settings_alone(folder):
  assert evaluated.find(folder, {"val": SETTINGS}) == {"val": SCORES}
  assert evaluated.find(folder, {"val": SETTINGS | {"seed": 1}, "test": SETTINGS}) == {}
  assert evaluated.find(folder / "none", {"val": SETTINGS}) == {}


def test_predictions_that_are_not_those_of_the_scores_are_noticed(folder):
  predictions.write(folder, "val", [{"id": 0, "prediction": "no"}])  # killed before the scores
  assert evaluated.find(folder, {"val": SETTINGS}) == {}
  predictions.path(folder, "val").unlink()
  assert evaluated.find(folder, {"val": SETTINGS}) == {}


def test_a_page_is_of_its_lines_and_of_all_predictions(folder):
  assert evaluated.is_shown(folder, LINES)
  assert not evaluated.is_shown(folder, [*LINES, *LINES])
  evaluated.add(folder, "test", SETTINGS, SCORES)
  assert not evaluated.is_shown(folder, LINES)
  assert evaluated.find(folder, {"val": SETTINGS}) == {"val": SCORES}


def test_a_page_that_was_removed_is_not_shown(folder):
  (folder / results.PAGE).unlink()
  assert not evaluated.is_shown(folder, LINES)
