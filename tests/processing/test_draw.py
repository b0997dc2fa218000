import numpy as np
import pytest
from PIL import Image

from paligemma_jax import structs
from paligemma_jax.processing import draw

GREY = np.full((40, 60, 3), 128, np.uint8)


def test_a_box_is_drawn_on_its_own_pixels_and_nowhere_else():
  mark = draw.Mark((10, 5, 30, 25))
  got = np.asarray(draw.annotate(GREY, [mark]))
  changed = np.argwhere((got != 128).any(-1))
  assert changed.min(0).tolist() == [5, 10]  # first row and column of the box
  assert changed.max(0).tolist() == [24, 29]  # the last ones: the end is exclusive
  assert (got[10:20, 15:25] == 128).all()  # not filled


def test_a_mask_tints_its_pixels_only():
  mask = np.zeros((40, 60), bool)
  mask[8:30, 12:40] = True
  got = np.asarray(draw.annotate(GREY, [draw.Mark(None, mask=mask, color=(255, 0, 0))]))
  assert ((got != 128).any(-1) == mask).all()
  assert got[20, 20, 0] > 128 > got[20, 20, 1]


def test_the_result_has_the_asked_side_and_the_marks_move_with_it():
  got = draw.annotate(GREY, [draw.Mark((0, 0, 60, 40))], side=120)
  assert got.size == (120, 80)
  assert got.getpixel((119, 79)) == draw.PREDICTION
  assert draw.annotate(GREY, [], side=30).size == (30, 20)


def test_the_input_stays_untouched():
  picture = Image.fromarray(GREY)
  draw.annotate(picture, [draw.Mark((0, 0, 9, 9), "cat")])
  assert (np.asarray(picture) == 128).all()


def test_a_mark_at_any_edge_is_seen_and_leaves_the_size_alone():
  corners = [(-5, -5, 5, 5), (55, -2, 70, 8), (50, 35, 60, 40), (0, 30, 4, 40), (30, 20, 30, 20)]
  for box in corners:
    for dashed in (False, True):
      drawn = draw.annotate(GREY, [draw.Mark(box, "a rather long label", dashed=dashed)])
      assert drawn.size == (GREY.shape[1], GREY.shape[0])
      assert (np.asarray(drawn) != 128).any()


def test_every_label_has_its_colour_unless_one_is_given():
  objects = [
    structs.Box("cat", 0, 0, 5, 5),
    {"label": "dog", "box": [1, 2, 3, 4]},
    {"label": "cat", "box": [5, 6, 7, 8]},
  ]
  cat, dog, second_cat = draw.marks(objects)
  assert cat.color == second_cat.color != dog.color
  assert dog.box == (1, 2, 3, 4)
  assert {m.color for m in draw.marks(objects, draw.TRUTH)} == {draw.TRUTH}


def test_masks_beside_the_boxes():
  mask = np.ones((40, 60), bool)
  only, none = draw.marks([structs.Box("a", 0, 0, 1, 1)] * 2, masks=[mask, None])
  assert only.mask is mask and none.mask is None


@pytest.mark.parametrize(
  "box, ends",  # first and last row, first and last column
  [
    ((0.25, 0.28, 0.77, 0.75), (2, 7, 2, 7)),  # int(y * 10) and so on, all edges included
    ((0.0, 0.0, 1.0, 1.0), (0, 10, 0, 10)),
    ((0.5, 0.5, 1.5, 1.5), (5, 15, 5, 15)),  # two edges outside are not drawn
  ],
)
def test_an_outline_has_the_pixels_of_tensorflows(box, ends):
  y0, y1, x0, x1 = ends
  want = np.zeros((20, 20), bool)
  want[[y0, y1], x0 : x1 + 1] = True
  want[y0 : y1 + 1, [x0, x1]] = True
  got = draw.outline(np.zeros((11, 11, 3), np.uint8), box)
  np.testing.assert_array_equal((got == (255, 0, 0)).all(-1), want[:11, :11])
  assert (got[~want[:11, :11]] == 0).all()


def test_an_outline_of_exchanged_corners_is_nothing_and_the_picture_is_kept():
  picture = np.zeros((11, 11, 3), np.uint8)
  assert not draw.outline(picture, (0.7, 0.2, 0.3, 0.5)).any()
  draw.outline(picture, (0, 0, 1, 1))
  assert not picture.any()
