"""Rates of a step: tokens, operations, share of the chip's limit."""

import dataclasses

import jax
import pytest

from paligemma_jax.models import flops, tree, variants
from paligemma_jax.train import speed


@dataclasses.dataclass(frozen=True)
class Chip:
  device_kind: str


def work(kind, dtype="bfloat16"):
  config = variants.preset("paligemma-3b")
  names = tuple(tree.param_shapes(config))
  return speed.Work(config, 64, 32, names, (Chip(kind),) * 4, dtype)


def test_a_step_that_takes_as_long_as_the_chip_needs_has_an_mfu_of_one():
  done = flops.train_step(
    work("TPU v5 lite").config, batch_size=64, text_len=128, images=2, supervised=32
  )
  rates = work("TPU v5 lite").rates(128, 2, seconds=done.model / (4 * 197e12))
  assert rates["mfu"] == pytest.approx(1) and rates["tflops_per_device"] == pytest.approx(197)
  assert work("TPU v5 lite").rates(128, 2, 2.0)["tokens_per_second"] == 64 * (2 * 256 + 128) / 2


@pytest.mark.parametrize("kind, dtype", [("cpu", "bfloat16"), ("TPU v5 lite", "float32")])
def test_without_a_limit_to_compare_with_there_is_no_mfu(kind, dtype):
  assert "mfu" not in work(kind, dtype).rates(128, 1, 1.0)


def test_real_devices_are_understood():
  real = dataclasses.replace(work("cpu"), devices=tuple(jax.devices()))
  assert real.rates(128, 1, 1.0)["tflops_per_device"] > 0
