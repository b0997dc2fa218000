"""Factors of the learning rate: the reference's values, and every way to write a duration."""

import numpy as np
import pytest

from paligemma_jax import errors
from paligemma_jax.train import schedule
from tests import golden

GOLDEN = {  # as data/golden/README.md describes them: total 40, batch 8, 64 examples an epoch
  "cosine_w5pct": dict(decay_type="cosine", warmup_percent=0.05),
  "linear_w3": dict(decay_type="linear", warmup_steps=3, linear_end=0.1),
  "rsqrt": dict(decay_type="rsqrt", timescale=10, warmup_steps=4, cooldown_steps=5),
  "stair": dict(decay_type="stair", steps=(10, 20), mults=(0.1, 0.01)),
  "cosine_epochs": dict(decay_type="cosine", warmup_epochs=0.5),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_equals_the_reference(name):
  want = golden.io("ops")[f"schedule/{name}"]
  factor = schedule.make(40, batch_size=8, data_size=64, **GOLDEN[name])
  got = np.array([factor(step) for step in range(len(want))])
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
  "options, step, want",
  [
    (dict(decay_type="cosine", warmup_steps=4), 0, 0.0),  # the first update changes nothing
    (dict(decay_type="cosine"), 0, 1.0),
    (dict(decay_type="cosine"), 50, 0.5),
    (dict(decay_type="polynomial", power=2.0), 50, 0.25),
    (dict(decay_type="linear", end=0.5), 50, 0.75),
    (dict(decay_type="linear", end=0.5), 1000, 0.5),
    (dict(decay_type="rsqrt", timescale=100, shift=200), 100, 0.5),
    (dict(decay_type="stair", steps=(3,), mults=(0.1,)), 2, 1.0),
    (dict(decay_type="stair", steps=(3,), mults=(0.1,)), 3, 0.1),
    (dict(decay_type="stair", cooldown_percent=0.1), 95, 0.5),
  ],
)
def test_formulas(options, step, want):
  assert float(schedule.make(100, **options)(step)) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
  "options, steps",
  [
    ({}, 0),
    ({"warmup_steps": 7}, 7),
    ({"warmup_percent": 0.05}, 5),
    ({"warmup_percent": 0.0001}, 1),  # at least one
    ({"warmup_percent": 0.0}, 0),
    ({"warmup_examples": 28}, 4),  # 3.5 rounds to the even neighbour
    ({"warmup_epochs": 0.5}, 4),
  ],
)
def test_durations(options, steps):
  found = schedule.duration("warmup", options, total_steps=100, batch_size=8, data_size=64)
  assert found == steps


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(decay_type="cosin"), 'did you mean "cosine"'),
    (dict(warmup=3), '"warmup" is no option of cosine'),
    (dict(decay_type="linear", timescale=3), '"timescale" is no option of linear'),
    (dict(warmup_steps=3, warmup_percent=0.1), "more than once"),
    (dict(warmup_epochs=1), "use warmup_steps"),
    (dict(decay_type="stair", steps=(1, 2), mults=(1.0,)), "2 steps, 1 mults"),
  ],
)
def test_mistakes_are_named(options, message):
  with pytest.raises(errors.UserError, match=message):
    schedule.make(10, **options)
