"""The mask that the pictures of these tests are red in, and where a picture is red."""

import re

import numpy as np

from paligemma_jax.data import examples, tasks

MASK = np.zeros((30, 40), bool)
MASK[3:9, 5:20] = True


def red(source, i=0) -> np.ndarray:
  """bool[H, W]: where the picture of record i is red, as the model gets it."""
  picture = examples.make(source, i, tasks.Rules(prefix="x")).images[0]
  return (picture == [255, 0, 0]).all(axis=-1)


def counts(said) -> dict[str, int]:
  """What an import says that it left out or mended -> how often."""
  found = [re.fullmatch(r"(.*): (\d+) \(.*\)", line) for line in said.splitlines()[1:]]
  return {match[1]: int(match[2]) for match in found if match}
