"""Boxes that are off by one look right; those at the edges of their pictures tell."""

import pytest

from paligemma_jax.data import edges, survey

INSIDE = [7, 7, 9, 9]


@pytest.mark.parametrize(
  "boxes, words",
  [
    ([[0, 5, 9, 9]] * 3 + [[5, 5, 40, 9]], ""),
    ([[1, 5, 9, 9]] * 3, "no box begins at 0, 3 begin at 1: their tool may have counted from 1"),
    ([[1, 5, 9, 9]] * 2 + [INSIDE], ""),  # may be chance
    ([[1, 5, 9, 9]] * 3 + [[0, 5, 9, 9]], ""),
    ([[0, 5, 39, 9], [5, 0, 9, 29], [4, 4, 39, 8]], "3 end a pixel before the edge and none at it"),
    ([[0, 5, 39, 9]] * 3 + [[4, 4, 40, 8]], ""),
    ([[0.1, 0.2, 0.5, 1.0]] * 3, "all 3 boxes lie between 0 and 1: they may be fractions"),
    ([[0.1, 0.2, 0.5, 1.0]] * 3 + [INSIDE], ""),
    ([], ""),
  ],
)
def test_what_the_edges_tell(boxes, words):
  found = edges.Edges()
  for box in boxes:
    found.add([{"box": box}], 30, 40)
  assert words in found.finding() and bool(found.finding()) == bool(words)


def test_data_check_notes_it(pictures, write):
  objects = [{"label": "cat", "box": [1, 5 + k, 9, 9 + k]} for k in range(3)]
  path = write([{"image": "p0.png", "objects": objects}])
  (found,) = survey.run({"train": {"path": path, "task": "detect"}}, {})
  assert found.lines() == []
  assert "no box begins at 0, 3 begin at 1" in found.lines(notes=True)[0][2]
