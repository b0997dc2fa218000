"""The values that cross borders between rooms. Knows nothing else of the package, and no JAX.

A `Batch` is a NamedTuple of arrays, hence a pytree without further registration.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
  """One record, as people would describe it."""

  images: list[np.ndarray]  # uint8[H, W, 3] each, one per picture or frame, any size
  prefix: str  # the prompt, without the final newline
  suffix: str | None = None  # what the loss is on; None when answering
  extras: dict[str, Any] = dataclasses.field(default_factory=dict)  # for the evaluators


class Batch(NamedTuple):
  """Examples as tensors. B examples, F images each (axis absent for one), T text tokens.

  With a suffix T is text_len + 1 (the loss predicts text[:, 1:] from text[:, :-1]), without it
  text_len. Padding has text 0, mask_ar 1, mask_input False, mask_loss 0.
  """

  image: Any  # uint8[B, (F,) H, W, 3], or float32 in -1..1
  mask_image: Any  # bool[B, F]: the image exists
  text: Any  # int32[B, T]: BOS prefix "\n" suffix EOS
  mask_ar: Any  # int32[B, T]: 1 starts a new attention block
  mask_input: Any  # bool[B, T]: is a token, not padding
  mask_loss: Any  # float32[B, T]: weight of the token as a target
  valid: Any  # bool[B]: False for rows that only fill the batch or could not be read


@dataclasses.dataclass(frozen=True)
class Box:
  """A labelled box in pixels of the input picture, end-exclusive."""

  label: str
  x0: float
  y0: float
  x1: float
  y1: float
  score: float | None = None  # 0..1, probability of the box's tokens where it is known
  codes: tuple[int, ...] | None = None  # the 16 mask codes 0..127, when the text holds them


@dataclasses.dataclass(frozen=True)
class Output:
  """Answers to a batch of B prompts, in its order, M = max_new_tokens."""

  text: list[str]
  tokens: np.ndarray  # int32[B, M], 0 after the first EOS
  logprobs: np.ndarray  # float32[B, M], natural logarithm under the model, 0 after the first EOS
  spans: list[list[tuple[int, int]]] = dataclasses.field(default_factory=list)
  # spans[b][m]: the letters text[b][first:last] that token m wrote, up to and without EOS


@dataclasses.dataclass(frozen=True)
class Scored:
  """How likely the given answers to B prompts are, for each prompt those of its A answers."""

  answers: list[list[str]]
  logprobs: list[np.ndarray]  # float64[A], natural logarithm under the model, EOS included
  probs: list[np.ndarray]  # float64[A], the same as shares of these answers; they sum to 1

  @property
  def best(self) -> list[str]:
    """The most likely answer to each prompt; "" to one that has none."""
    pairs = zip(self.answers, self.logprobs)
    return [answers[int(np.argmax(x))] if len(x) else "" for answers, x in pairs]
