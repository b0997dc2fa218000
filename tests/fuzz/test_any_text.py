"""Doors that take whatever there is: any text, any bytes, any JSON gives a value or a UserError."""

import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_jax import errors
from paligemma_jax.cli import config
from paligemma_jax.decode import samplers
from paligemma_jax.metrics import METRICS
from paligemma_jax.processing import boxes, image, masks
from paligemma_jax.transfers import common
from tests import toy

fast = settings(max_examples=60, deadline=None, derandomize=True, database=None)
JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
  lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
  max_leaves=8,
)  # fmt: skip
TOKENS = st.lists(
  st.sampled_from(["<loc0000>", "<loc1023>", "<loc0512>", "<seg001>", "<seg127>", " ; ", "cat", "<", "\n", " "])
  | st.text(max_size=3)
).map("".join)  # fmt: skip


def value_or_refusal(call, *args, **kwargs):
  """What the call returns; None if it refuses in one line."""
  try:
    return call(*args, **kwargs)
  except errors.UserError as e:
    assert str(e)
    return None


@fast
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_none(data):
  found = value_or_refusal(image.decode, data)
  assert found is None or found.shape[2] == 3


@fast
@given(TOKENS)
def test_any_answer_has_boxes_inside_the_picture(text):
  for box in boxes.parse_boxes(text, 30, 40):
    assert 0 <= box.x0 <= 40 and 0 <= box.y1 <= 30


@fast
@given(TOKENS)
def test_any_text_can_be_encoded_and_comes_back(text):
  tokenizer = toy.tokenizer()
  ids = value_or_refusal(tokenizer.encode, text)
  assert ids is None or len(tokenizer.spans(ids)) == len(ids)


@fast
@given(JSON, st.tuples(st.integers(-1, 40), st.integers(-1, 40)))
def test_any_json_is_a_mask_or_none(counts, size):
  mask = {"size": list(size), "counts": counts}
  found = value_or_refusal(masks.decode_rle, mask)
  assert found is None or found.shape == size


@fast
@given(st.sampled_from(config.paths(common.base())), st.text(string.printable, max_size=12))
def test_any_value_of_a_config_key_is_taken_or_refused(key, text):
  before, after = common.base().lock(), common.base().lock()
  value_or_refusal(config.override, after, key, text)
  assert config.paths(after) == config.paths(before)  # values change, keys do not


@fast
@given(st.text(max_size=20))
def test_any_argument_of_a_config_is_taken_or_refused(text):
  found = value_or_refusal(common.args, text, res=224, name="", final=False, lr=1.0)
  assert found is None or [type(found[k]) for k in ("res", "final", "lr")] == [int, bool, float]


@fast
@given(
  st.sampled_from(["greedy", "temperature", "top_k", "nucleus", "beam", "best_of"]),
  st.text(":.-0123456789einf"),
)
def test_any_sampler_is_known_or_refused(name, rest):
  found = value_or_refusal(samplers.parse, name + rest)
  assert found is None or found.n >= 1


@pytest.mark.parametrize("metric", ["exact_match", "vqa_lower", "relaxed_accuracy", "rsvqa"])
@fast
@given(prediction=TOKENS | st.text(), answer=st.text(min_size=1, max_size=5))
def test_any_prediction_has_a_score(metric, prediction, answer):
  for name, score in METRICS[metric]([{"prediction": prediction, "suffix": answer}]).items():
    assert math.isfinite(score), name
