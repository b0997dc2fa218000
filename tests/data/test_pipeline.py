import collections
import itertools
import multiprocessing
import os
import pathlib
import signal

import numpy as np
import pytest

from paligemma_jax import errors, structs
from paligemma_jax.data import pipeline
from tests.data import feeding

REPORTS = pathlib.Path(__file__).parent / "reports" / "truncated_pictures"


@pytest.fixture
def mixture(pictures, write):
  """Two sources of 5 and 7 examples, mixed 1 : 3; answers are drawn from three."""

  def records(name, n):
    return [
      {"image": f"p{i % 4}.png", "prefix": f"{name}{i}", "suffix": ["yes", "no", "red"]}
      for i in range(n)
    ]

  a, b = write(records("a", 5), "a.jsonl"), write(records("b", 7), "b.jsonl")
  return {"a": {"path": a, "weight": 1.0}, "b": {"path": b, "weight": 3.0}}


def test_shapes_and_dtypes(mixture, processor):
  (batch,) = feeding.train(mixture, processor, 1)
  assert batch.image.shape == (4, 28, 28, 3) and batch.image.dtype == np.uint8
  assert (
    batch.text.shape == batch.mask_ar.shape == batch.mask_loss.shape == (4, feeding.TEXT_LEN + 1)
  )
  assert batch.text.dtype == np.int32 and batch.mask_loss.dtype == np.float32
  assert batch.valid.tolist() == [True] * 4 and batch.mask_input.dtype == bool


@pytest.mark.parametrize("start", [0, 1, 5])
def test_resuming_is_slicing(mixture, processor, start):
  whole = feeding.train(mixture, processor, 8)
  rest = feeding.train(mixture, processor, 8 - start, start_step=start)
  for got, want in zip(rest, whole[start:], strict=True):
    feeding.assert_equal(got, want)


@pytest.mark.parametrize("workers, start", [(1, 0), (2, 3)])
def test_workers_change_nothing(mixture, processor, workers, start):
  want = feeding.train(mixture, processor, 5, start_step=start)
  got = feeding.train(mixture, processor, 5, start_step=start, workers=workers)
  for a, b in zip(got, want, strict=True):
    feeding.assert_equal(a, b)


@pytest.mark.parametrize("rows, start", [([0, 1], 0), ([2, 3], 3), ([0, 3], 1), ([1], 2)])
def test_the_part_of_a_process_are_the_same_rows_of_the_whole_batch(
  mixture, processor, rows, start
):
  whole = feeding.train(mixture, processor, 3, start_step=start)
  part = feeding.train(mixture, processor, 3, start_step=start, rows=np.array(rows))
  for got, want in zip(part, whole, strict=True):
    feeding.assert_equal(got, structs.Batch(*(field[rows] for field in want)))


def test_a_batch_is_as_long_as_its_longest_text_asks_for_the_same_in_every_process(
  pictures, write, processor
):
  short = [{"image": "p0.png", "prefix": "a", "suffix": "yes"}] * 7
  long = {"image": "p0.png", "prefix": "a", "suffix": "dark red " * 30}
  source = {"a": {"path": write([*short, long])}}
  options = dict(count=4, batch_size=4, text_len=300)
  lengths = [b.text.shape[1] - 1 for b in feeding.train(source, processor, **options)]
  assert set(lengths) == {32, 128} and lengths.count(128) == 2  # once an epoch of two steps
  for rows in ([0, 1], [2, 3]):
    part = feeding.train(source, processor, **options, rows=rows)
    assert [b.text.shape[1] - 1 for b in part] == lengths
  assert pipeline.longest_suffix(source, processor) == max(
    int(b.mask_loss.sum(axis=1).max()) for b in feeding.train(source, processor, **options)
  )


def test_sources_are_mixed_by_weight_and_each_epoch_is_a_new_permutation(mixture, processor):
  texts = feeding.texts(processor, feeding.train(mixture, processor, 28))  # 112 = 28 of a, 84 of b
  names = [text.partition("\n")[0] for text in texts]
  a, b = ([n for n in names if n.startswith(letter)] for letter in "ab")
  assert (len(a), len(b)) == (28, 84)
  epochs = [tuple(b[k : k + 7]) for k in range(0, 84, 7)]
  assert all(len(set(epoch)) == 7 for epoch in epochs) and len(set(epochs)) > 6


def test_one_answer_is_drawn_anew_each_time(mixture, processor):
  texts = feeding.texts(processor, feeding.train(mixture, processor, 28))
  drawn = collections.Counter(text.partition("\n")[2] for text in texts)
  assert set(drawn) == {"yes", "no", "red"} and min(drawn.values()) > 20


def test_another_seed_is_another_order(mixture, processor):
  one, other = (
    feeding.train(mixture, processor, 2),
    feeding.train(mixture, processor, 2, seed=4),
  )
  assert any((a.text != b.text).any() for a, b in zip(one, other))


def test_a_source_of_weight_zero_is_left_out(mixture, processor):
  mixture["b"]["weight"] = 0.0
  texts = feeding.texts(processor, feeding.train(mixture, processor, 3))
  assert all(text.startswith("a") for text in texts)


def test_places_name_the_lines_of_a_step(mixture, processor):
  (batch,) = feeding.train(mixture, processor, 1, start_step=2)
  places = pipeline.train_places(mixture, 3, 4, step=2)
  for text, place in zip(feeding.texts(processor, [batch]), places):
    file, line = place.rpartition("/")[2].split(".jsonl:")
    assert text.partition("\n")[0] == f"{file}{int(line) - 1}"


def test_a_training_reads_file_and_pictures_from_a_store(mixture, pictures, processor):
  import fsspec

  fsspec.filesystem("memory").put(f"{pictures}/", "/mixture/", recursive=True)
  there = {name: {**c, "path": f"memory://mixture/{name}.jsonl"} for name, c in mixture.items()}
  for a, b in zip(
    feeding.train(there, processor, 3), feeding.train(mixture, processor, 3), strict=True
  ):
    feeding.assert_equal(a, b)


def test_examples_with_fewer_pictures_are_filled_up_and_masked(pictures, write, processor):
  rows = [{"image": image, "prefix": "p", "suffix": "s"} for image in ("p0.png", ["p1.png"] * 3)]
  path = write(rows)
  (batch,) = feeding.train({"x": {"path": path}}, processor, 1, batch_size=2)
  assert batch.image.shape == (2, 3, 28, 28, 3)
  assert sorted(batch.mask_image.tolist()) == [[True, False, False], [True] * 3]
  assert not batch.image[~batch.mask_image].any()


def test_eval_gives_every_example_once_and_fills_the_last_batch(mixture, processor):
  source = mixture["b"]
  found = list(pipeline.eval_batches(source, processor, batch_size=3, text_len=feeding.TEXT_LEN))
  assert [b.valid.tolist() for b, _ in found] == [[True] * 3, [True] * 3, [True, False, False]]
  assert all(b.text.shape == (3, feeding.TEXT_LEN) for b, _ in found)
  rows = [row for _, rows in found for row in rows]
  assert [row["prefix"] for row in rows] == [f"b{i}" for i in range(7)]
  assert rows[0]["suffix"] == ["yes", "no", "red"] and rows[5]["id"] == 5
  assert (rows[0]["height"], rows[0]["width"]) == (30, 40)
  assert not any(b.mask_loss.any() for b, _ in found)


def _eval_of_five(source, processor, **options):
  """Batches of four of the first five examples, with their suffixes."""
  how = dict(batch_size=4, text_len=feeding.TEXT_LEN, limit=5, with_suffix=True)
  return list(pipeline.eval_batches(source, processor, **how, **options))


def test_the_last_batch_of_an_evaluation_is_filled_up_with_rows_that_do_not_count(
  mixture, processor
):
  batches = _eval_of_five(mixture["b"], processor)
  assert [row["prefix"] for _, rows in batches for row in rows] == [f"b{i}" for i in range(5)]
  assert [v for batch, _ in batches for v in batch.valid] == [True] * 5 + [False] * 3
  last, _ = batches[-1]
  assert last.text.shape[1] == feeding.TEXT_LEN + 1 and not last.mask_loss[~last.valid].any()


@pytest.mark.parametrize("here", [[0, 1], [2, 3], [0, 3], [1, 2]])
def test_a_process_that_evaluates_has_the_same_rows_of_every_batch(mixture, processor, here):
  whole = _eval_of_five(mixture["b"], processor)
  part = _eval_of_five(mixture["b"], processor, rows=here)
  for number, ((got, rows), (want, _)) in enumerate(zip(part, whole, strict=True)):
    feeding.assert_equal(got, structs.Batch(*(field[here] for field in want)))
    assert [row["prefix"] for row in rows] == [
      f"b{4 * number + i}" for i in here if 4 * number + i < 5
    ]


def test_segment_examples_carry_their_codes(pictures, write, processor, codec):
  mask = {"size": [30, 40], "counts": [600, 600]}
  record = {"image": "p0.png", "objects": [{"label": "cat", "box": [20, 0, 40, 30], "mask": mask}]}
  source = {"path": write([record]), "task": "segment"}
  options = dict(batch_size=1, text_len=48)
  with pytest.raises(errors.UserError, match='x: the task "segment" needs a mask codec'):
    feeding.train({"x": source}, processor, 1, **options)
  (batch,) = feeding.train({"x": source}, processor, 1, codec=codec, **options)
  ((_, [row]),) = pipeline.eval_batches(source, processor, codec=codec, **options)
  text = processor.tokenizer.decode(batch.text[0])
  assert text == f"segment cat\n{row['suffix']}"
  assert row["suffix"].startswith("<loc0000><loc0512><loc1023><loc1023><seg")
  assert row["objects"][0]["mask"].sum() == 600
  ((_, [row]),) = pipeline.eval_batches(source, processor, **options)
  assert row["suffix"] is None  # unknown without a codec


AUGMENT = ("inception_crop:30", "random_flip", "random_resize", "random_jpeg")


@pytest.mark.parametrize("options", [dict(workers=2), dict(start_step=3), dict(rows=[0, 3])])
def test_augmentation_follows_from_seed_and_position_alone(mixture, processor, options):
  changed = {name: {**c, "augment": AUGMENT} for name, c in mixture.items()}
  plain, want = feeding.train(mixture, processor, 5), feeding.train(changed, processor, 5)
  start, rows = options.get("start_step", 0), options.get("rows", slice(4))
  got = feeding.train(changed, processor, 5 - start, **options)
  for a, b, c in zip(got, want[start:], plain[start:], strict=True):
    feeding.assert_equal(a, structs.Batch(*(field[rows] for field in b)))
    np.testing.assert_array_equal(b.text, c.text)  # the draws of the answers are left alone
    assert all((x != y).any() for x, y in zip(b.image, c.image))


def test_evaluations_see_pictures_as_they_are(mixture, processor):
  changed = {**mixture["b"], "augment": AUGMENT}
  read = [
    list(pipeline.eval_batches(source, processor, batch_size=7, text_len=feeding.TEXT_LEN))
    for source in (changed, mixture["b"])
  ]
  feeding.assert_equal(read[0][0][0], read[1][0][0])


def test_boxes_and_masks_go_with_an_augmented_picture(pictures, write, processor, codec):
  mask = {"size": [30, 40], "counts": [600, 300, 300]}  # columns 20 to 30
  record = {"image": "p0.png", "objects": [{"label": "cat", "box": [20, 0, 40, 30], "mask": mask}]}
  flip = {"path": write([record]), "task": "segment", "augment": ("random_flip",)}
  upright = {**flip, "augment": ()}
  mirrored = {**record["objects"][0], "box": [0, 0, 20, 30]}
  mirrored["mask"] = {"size": [30, 40], "counts": [300, 300, 600]}  # columns 10 to 20
  turned = {**upright, "path": write([{**record, "objects": [mirrored]}], "mirrored.jsonl")}
  options = dict(batch_size=8, text_len=48, codec=codec)
  texts = [
    set(feeding.texts(processor, feeding.train({"x": source}, processor, 2, **options)))
    for source in (flip, upright, turned)
  ]
  assert texts[0] == texts[1] | texts[2] and len(texts[0]) == 2


def test_loc_tokens_in_a_text_forbid_moving_the_picture(pictures, write, processor):
  record = {"image": "p0.png", "prefix": "p", "suffix": "<loc0001>" * 4}
  source = {"path": write([record]), "augment": ("random_flip",)}
  with pytest.raises(errors.UserError, match="data.jsonl:1: <loc> tokens written in the text"):
    feeding.train({"x": source}, processor, 1, text_len=32)
  feeding.train({"x": {**source, "augment": ("random_jpeg",)}}, processor, 1, text_len=32)


@pytest.fixture
def broken(mixture, pictures):
  """The mixture after p3.png, of every fourth record of both sources, lost its second half."""
  whole = (pictures / "p3.png").read_bytes()
  (pictures / "p3.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
  return mixture


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_stays_in_its_place_without_weight(
  mixture, pictures, processor, workers, request
):
  want = feeding.train(mixture, processor, 6)
  request.getfixturevalue("broken")
  options = dict(batch_size=4, text_len=feeding.TEXT_LEN, seed=3, max_unreadable=2, workers=workers)
  with pipeline.train_batches(mixture, processor, **options) as batches:
    got = list(itertools.islice(batches, 6))
    assert {place.rpartition("/")[2] for place in batches.unreadable} == {"a.jsonl:4", "b.jsonl:4"}
  for step, (a, b) in enumerate(zip(got, want, strict=True)):
    places = pipeline.train_places(mixture, 3, 4, step)
    assert a.valid.tolist() == [not place.endswith(":4") for place in places]
    feeding.assert_equal(
      structs.Batch(*(x[a.valid] for x in a)), structs.Batch(*(x[a.valid] for x in b))
    )
    assert not a.mask_loss[~a.valid].any() and not a.image[~a.valid].any()
  assert sum(not v for batch in got for v in batch.valid) > 2


def test_too_many_unreadable_pictures_stop_the_run_with_their_names(broken, processor):
  with pytest.raises(errors.UserError) as e:
    feeding.train(broken, processor, 20, max_unreadable=1)
  *lines, todo = str(e.value).split("\n")
  assert len(lines) == 2 and all("p3.png: the image is cut off" in line for line in lines)
  assert {line.split(": ")[0].rpartition("/")[2] for line in lines} == {"a.jsonl:4", "b.jsonl:4"}
  assert todo.startswith("2 unreadable, more than input.max_unreadable=1 allows")


@pytest.mark.parametrize(
  "how, workers",
  [
    ("missing", 0), ("no image", 0), ("empty.png", 0), ("half.webp", 0), ("half.webp", 1),
    ("cut_in_header.jpg", 0), ("big_text.png", 0),
  ],
)  # fmt: skip
def test_a_file_that_cannot_be_opened_is_unreadable_too(mixture, pictures, processor, how, workers):
  (pictures / "p3.png").unlink()
  if how != "missing":
    broken = REPORTS / how
    data = broken.read_bytes() if broken.is_file() else b"<html>" if how == "no image" else b""
    (pictures / "p3.png").write_bytes(data)
  found = feeding.train(mixture, processor, 6, max_unreadable=2, workers=workers)
  assert 0 < sum(not v for batch in found for v in batch.valid) < 12


def test_an_evaluation_leaves_out_what_it_cannot_read_and_counts_it(broken, processor):
  options = dict(batch_size=3, text_len=feeding.TEXT_LEN)
  with pipeline.eval_batches(broken["b"], processor, max_unreadable=1, **options) as batches:
    found = list(batches)
    assert [place.rpartition("/")[2] for place in batches.unreadable] == ["b.jsonl:4"]
  assert [b.valid.tolist() for b, _ in found] == [
    [True] * 3,
    [False, True, True],
    [True] + [False] * 2,
  ]
  assert [row["prefix"] for _, rows in found for row in rows] == [
    "b0",
    "b1",
    "b2",
    "b4",
    "b5",
    "b6",
  ]
  with pytest.raises(errors.UserError, match="b.jsonl:4: .*p3.png"):
    list(pipeline.eval_batches(broken["b"], processor, **options))


def test_a_killed_worker_is_named_and_the_next_run_goes_on(mixture, processor):
  want = feeding.train(mixture, processor, 8)
  options = dict(batch_size=4, text_len=feeding.TEXT_LEN, seed=3)
  others = multiprocessing.active_children()
  with pipeline.train_batches(mixture, processor, workers=1, **options) as batches:
    got = [next(batches)]
    (worker,) = (p for p in multiprocessing.active_children() if p not in others)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(errors.RunError, match=rf"data worker {worker.pid} \(of 1\) was killed by"):
      got += batches  # those that it had made arrive first
  rest = feeding.train(mixture, processor, 8 - len(got), start_step=len(got))
  for a, b in zip(got + rest, want, strict=True):
    feeding.assert_equal(a, b)


def test_the_sources_of_a_steps_rows_are_known_without_reading_them(mixture, processor):
  for step, batch in enumerate(feeding.train(mixture, processor, 6)):
    names = [list(mixture)[k] for k in pipeline.train_sources(mixture, 4, step)]
    assert names == [text[0] for text in feeding.texts(processor, [batch])]


def test_what_cannot_be_run_is_said_at_once(mixture, processor):
  with pytest.raises(errors.UserError, match="train.data is empty"):
    feeding.train({}, processor, 1)


def test_closing_twice_is_fine_and_ends_the_iterator(mixture, processor):
  batches = pipeline.train_batches(
    mixture, processor, batch_size=2, text_len=feeding.TEXT_LEN, seed=0
  )
  next(batches)
  batches.close()
  batches.close()
  assert list(batches) == []


def test_an_epoch_is_every_record_once(mixture):
  assert pipeline.num_examples(mixture) == 12
