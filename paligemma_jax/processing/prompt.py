"""The layout of text: BOS prefix "\\n" suffix EOS, and the masks that go with it.

Source: PaliGemma (arXiv:2407.07726), section 3.2.1 and figure 2; big_vision
`configs/proj/paligemma/transfers/common.py`.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paligemma_jax import errors
from paligemma_jax.processing import boxes
from paligemma_jax.processing import tokenizer as tokenizer_lib

LENGTHS = (32, 64, 128, 256, 512)  # text_len where nothing says it; few, as each one is compiled


class Text(NamedTuple):
  """One example's text; T is text_len + 1 with a suffix to train on, else text_len."""

  text: np.ndarray  # int32[T], padded with 0
  mask_ar: np.ndarray  # int32[T]: 0 on BOS, prefix and newline, 1 on suffix, EOS and padding
  mask_input: np.ndarray  # bool[T]: is a token
  mask_loss: np.ndarray  # float32[T]: 1 on suffix and EOS; 0 on places of noise (`layout`)


def layout_ids(
  prefix: Sequence[int], separator: Sequence[int], suffix: Sequence[int], length: int
) -> Text:
  """Joins ids and pads or cuts them on the right to `length`.

      text        BOS answer en what ? \\n  red EOS  0  0
      mask_ar      0    0    0   0  0  0   1   1   1  1
      mask_input   1    1    1   1  1  1   1   1   0  0
      mask_loss    0    0    0   0  0  0   1   1   0  0

  Padding has mask_ar 1: with 0 it would join the last suffix token's block and be seen by it.

  Args:
    prefix: ids, BOS included.
    separator: ids of "\\n".
    suffix: ids, EOS included when training; empty or a beginning when answering.
    length: T.
  """
  ids = [*prefix, *separator, *suffix][:length]
  start, end = min(len(prefix) + len(separator), length), len(ids)
  text = np.zeros(length, np.int32)
  text[:end] = ids
  position = np.arange(length)
  return Text(
    text=text,
    mask_ar=(position >= start).astype(np.int32),
    mask_input=position < end,
    mask_loss=((position >= start) & (position < end)).astype(np.float32),
  )


def layout(
  tokenizer: tokenizer_lib.Tokenizer,
  prefix: str,
  suffix: str | None,
  length: int,
  truncate: bool = False,
) -> Text:
  """Tokenises and lays out one example. The newline is tokenised on its own.

  Where a box of the label `boxes.NOISE` lies is random, so its loc tokens have no loss; its label has
  (PaliGemma 2, arXiv:2412.03555, appendix C).

  Args:
    tokenizer: of the checkpoint.
    prefix: the prompt, without the final newline.
    suffix: what to train on, EOS is appended; None when answering.
    length: T, tokens: text_len + 1 with a suffix, text_len without.
    truncate: cut what is too long on the right (a suffix loses its EOS) instead of raising.

  Raises:
    errors.UserError: too long and not `truncate`.
  """
  head, tail = [tokenizer.bos, *tokenizer.encode(prefix)], []
  if suffix is not None:
    tail = [*tokenizer.encode(suffix), tokenizer.eos]
  total = len(head) + len(tokenizer.newline) + len(tail)
  if total > length and not truncate:
    room = length - (suffix is not None)
    raise errors.UserError(
      f"{_shortened(prefix)} needs text_len {total - (suffix is not None)} "
      f"({len(head) + len(tokenizer.newline)} tokens of prefix, {len(tail)} of suffix), "
      f"text_len is {room}; raise text_len or allow truncation"
    )
  text = layout_ids(head, tokenizer.newline, tail, length)
  if suffix and boxes.NOISE in suffix:
    text.mask_loss[[i for i in _random(tokenizer, tail, total - len(tail)) if i < length]] = 0
  return text


def _random(tokenizer: tokenizer_lib.Tokenizer, tail: list[int], start: int) -> list[int]:
  """Columns of the places of noise in a suffix that begins in column `start`."""
  forms = (tokenizer.encode_between(f" {boxes.NOISE}{rest}") for rest in ("", " ; "))
  label = os.path.commonprefix(list(forms))  # its end may be one token with what follows
  ends = (i for i in range(4, len(tail)) if tail[i : i + len(label)] == label)
  return [start + k for end in ends for k in range(end - 4, end)]


def next_length(num_tokens: int) -> int:
  """The smallest of `LENGTHS` that holds that many tokens.

  Raises:
    errors.UserError: none does.
  """
  for length in LENGTHS:
    if num_tokens <= length:
      return length
  raise errors.UserError(
    f"text of {num_tokens} tokens is longer than {LENGTHS[-1]}; set text_len, or allow truncation"
  )


def _shortened(prefix: str) -> str:
  return f'prefix "{prefix[:40]}{"…" if len(prefix) > 40 else ""}"'
