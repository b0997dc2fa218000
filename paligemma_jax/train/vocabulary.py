"""A tokenizer for a model of random parameters, learnt from what its training will say."""

import collections
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from paligemma_jax import errors
from paligemma_jax.data import sources, tasks
from paligemma_jax.processing import tokenizer

TRAINED = "trained"  # as the config's `input.tokenizer`
_MOST = 16_384  # ids; more need a corpus, not a data set (chosen)
_RECORDS = 20_000  # of a source, spread evenly (chosen)
_SPECIAL = len(tokenizer.LOC) + len(tokenizer.SEG) + 300  # and 256 bytes, controls, white space
_TOKEN = re.compile(r"<(?:loc\d{4}|seg\d{3})>")


def train(data: Mapping[str, Mapping[str, Any]], vocab_size: int) -> tokenizer.Tokenizer:
  """Learns the pieces of prompts and answers; the same sources give the same tokenizer.

  The ids are laid out as Gemma's. Letters that are too rare for the vocabulary are written in bytes,
  as are those that the sources do not have.

  Args:
    data: name -> source, as the config's `train.data`.
    vocab_size: ids at most, loc and seg tokens included.

  Raises:
    UserError: a source cannot be read, or the vocabulary does not hold the loc and seg tokens.
  """
  size = min(vocab_size, _MOST)
  texts = [text for name, source in data.items() for text in _texts(source, f"train.data.{name}")]
  letters = collections.Counter(itertools.chain.from_iterable(texts)).most_common()
  rare = {ord(letter): "\n" for letter, _ in letters[max(1, (size - _SPECIAL) // 2) :]}
  pieces = [piece for text in texts for piece in text.translate(rare).split("\n") if piece]
  try:
    return tokenizer.Tokenizer.train([*pieces, " ; "], size)
  except ValueError as e:
    raise errors.UserError(
      f'input.tokenizer "{TRAINED}": {e}; give --config.input.tokenizer=FILE'
    ) from None


def _texts(source: Mapping[str, Any], name: str) -> Iterator[str]:
  """What the records of a source ask and answer, without loc and seg tokens."""
  opened, rules = sources.open_source(source, name), tasks.Rules.of(source, name)
  for i in range(0, len(opened), max(1, len(opened) // _RECORDS)):
    try:
      found = tasks.drafts(opened[i], rules)
    except tasks.UNFIT:
      continue  # the check of the data says what is wrong with it
    for draft in found:
      for text in (draft.prefix, draft.suffix):
        if isinstance(text, str):
          yield _TOKEN.sub("\n", text).encode(errors="ignore").decode()
