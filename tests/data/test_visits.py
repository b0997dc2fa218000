"""What of a record a batch gets: which answer, how much of a text, which pictures and how they fit."""

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.data import pipeline
from tests.data import feeding


def _answers(processor, batch):
  return [t.rpartition("\n")[2] for t in feeding.texts(processor, [batch])]


def test_draw_each_takes_every_answer_once_in_as_many_epochs_wherever_it_starts(
  pictures, write, processor
):
  answers = ["yes", "no", "red"]
  path = write([{"image": "p0.png", "prefix": "a", "suffix": answers}])
  sources = {"a": {"path": path, "draw": "each"}}
  taken = [_answers(processor, b)[0] for b in feeding.train(sources, processor, 9, batch_size=1)]
  for start in (0, 3, 6):
    assert sorted(taken[start : start + 3]) == sorted(answers)
  rest = feeding.train(sources, processor, 4, batch_size=1, start_step=5)
  assert [_answers(processor, b)[0] for b in rest] == taken[5:]


def test_the_answer_of_a_record_does_not_depend_on_when_its_turn_comes(pictures, write, processor):
  records = [{"image": "p0.png", "prefix": p, "suffix": ["yes", "no", "red"]} for p in "ab"]
  source = {"path": write(records), "draw": "each"}
  one = feeding.train({"s": source}, processor, 6, batch_size=2)
  seen = {p: [] for p in "ab"}
  for text in feeding.texts(processor, one):
    prefix, _, answer = text.partition("\n")
    seen[prefix].append(answer)
  for taken in seen.values():
    assert sorted(taken[:3]) == sorted(taken[3:]) == ["no", "red", "yes"]


def test_long_texts_are_cut_if_asked_for(pictures, write, processor):
  path = write([{"image": "p0.png", "prefix": "yes " * 30, "suffix": "red"}])
  with pytest.raises(errors.UserError, match="needs text_len"):
    feeding.train({"s": {"path": path}}, processor, 1, batch_size=1)
  (batch,) = feeding.train({"s": {"path": path}}, processor, 1, batch_size=1, truncate=True)
  assert batch.text.shape == (1, feeding.TEXT_LEN + 1) and not batch.mask_loss.any()


def test_a_source_may_have_a_resize_of_its_own(pictures, write, processor):
  path = write([{"image": "p3.png", "prefix": "p", "suffix": "yes"}])
  batches = [
    feeding.train({"s": {"path": path, "resize": resize}}, processor, 1, batch_size=1)[0]
    for resize in ("", "bilinear_antialias", "bilinear")
  ]
  feeding.assert_equal(batches[0], batches[1])  # the processor's
  assert (batches[0].image != batches[2].image).any()


def test_a_padded_picture_keeps_its_shape_on_white(pictures, write, processor):
  path = write([{"image": "p2.png", "prefix": "p", "suffix": "yes"}])  # 9 x 17
  (batch,) = feeding.train({"s": {"path": path, "fit": "pad"}}, processor, 1, batch_size=1)
  assert (batch.image[0, :, 16:] == 255).all() and not (batch.image[0, :, :14] == 255).all()


def test_the_truth_of_a_test_split_may_be_empty_but_not_what_is_trained_on(
  pictures, write, processor
):
  config = {"path": write([{"image": "p0.png", "prefix": "p", "suffix": []}])}
  pipeline.check({"evals.test.data": config}, processor, feeding.TEXT_LEN, train=False)
  with pytest.raises(errors.UserError, match='"suffix" is an empty list'):
    pipeline.check({"train.data.test": config}, processor, feeding.TEXT_LEN)


def test_some_frames_of_a_video_are_the_pictures_of_an_example(pictures, write, processor):
  record = {"image": ["p0.png", "p1.png", "p2.png"], "prefix": "p", "suffix": "yes"}
  source = {"path": write([record]), "frames": 2, "stride": 2}
  (batch,) = feeding.train({"s": source}, processor, 1, batch_size=1)
  assert batch.image.shape == (1, 2, 28, 28, 3) and batch.mask_image.tolist() == [[True, True]]
  with pipeline.eval_batches(source, processor, batch_size=2, text_len=feeding.TEXT_LEN) as batches:
    ((evaluated, rows),) = batches
  np.testing.assert_array_equal(evaluated.image[0], batch.image[0])  # too short for an offset
  assert [p.rsplit("/")[-1] for p in rows[0]["image"]] == ["p0.png", "p2.png"]


def test_likelihood_is_of_what_the_first_visit_would_draw(pictures, write, processor):
  record = {"image": "p0.png", "prefix": "a", "suffix": ["yes", "no", "red"]}
  source = {"path": write([record] * 4), "draw": "each"}
  options = dict(batch_size=4, text_len=feeding.TEXT_LEN, with_suffix=True)
  with pipeline.eval_batches(source, processor, **options) as one:
    ((first, _),) = one
  (trained,) = feeding.train({"s": source}, processor, 1, seed=0)
  assert sorted(_answers(processor, first)) == sorted(_answers(processor, trained))


def test_noise_fills_the_text_in_training_and_where_likelihood_is_asked_for(
  pictures, write, processor
):
  record = {"image": "p0.png", "objects": [{"label": "cat", "box": [0, 0, 9, 9]}]}
  source = {"path": write([record]), "task": "detect", "noise": 9}
  options = dict(batch_size=1, text_len=32)
  (trained,) = feeding.train({"s": source}, processor, 1, truncate=True, **options)
  with pipeline.eval_batches(source, processor, with_suffix=True, truncate=True, **options) as one:
    ((likely, _),) = one
  for batch in (trained, likely):
    assert batch.mask_input.all() and "<noise>" in _answers(processor, batch)[0]
  with pipeline.eval_batches(source, processor, **options) as one:
    ((_, (row,)),) = one
  assert row["suffix"].endswith(" cat")  # the truth that scores see
