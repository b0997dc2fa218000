"""Every program is counted once, in the run that compiles it."""

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax.train import compilations


def test_a_shape_that_was_not_seen_before_counts_and_a_second_call_does_not():
  double = jax.jit(lambda x: 2 * x)
  with compilations.counted() as count:
    double(np.zeros(3))
    double(np.ones(3))
    assert count.programs == 1
    double(np.zeros(4))  # as a batch padded to another length
    assert count.programs == 2
  assert count.seconds > 0
  assert count.values() == {"compilations": 2, "compile_seconds": count.seconds}


def test_a_run_counts_nothing_of_another_one():
  with compilations.counted() as first:
    jax.jit(jnp.sin)(np.zeros(3))
  with compilations.counted() as second:
    jax.jit(jnp.cos)(np.zeros(3))
  assert (first.programs, second.programs) == (1, 1)
