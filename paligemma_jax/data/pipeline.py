"""From sources to batches: shuffle, repeat, mix, read, process, batch, prefetch. With grain.

What stands where and what is drawn for it follow from the seed and the position alone, see `order`.
Number of workers, number of processes and the step at which a run (re)starts do not matter, so
resuming is slicing, and no state of the pipeline is stored.

An example whose picture cannot be read, or that has no answer, stays in its place, black, with
`valid` False and no supervised token, so that all others stay in theirs; a bound on the number of
such examples stops the run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import checks, examples, order, prepare, tasks
from paligemma_jax.data import sources as sources_lib
from paligemma_jax.data.batches import Batches, Unreadable
from paligemma_jax.processing import augment, prompt
from paligemma_jax.processing import processor as processors

check = checks.check
_ENDLESS = 2**40  # batches; grain wants a length


def train_batches(
  sources: Mapping[str, Mapping],
  processor,
  *,
  batch_size: int,
  text_len: int,
  seed: int,
  start_step: int = 0,
  workers: int = 0,
  rows: Sequence[int] | None = None,
  codec: str | Mapping[str, np.ndarray] | None = None,
  max_unreadable: int = 0,
  truncate: bool = False,
) -> Batches:
  """Endless batches for training.

  Every source is shuffled anew in each of its epochs and repeated; a mixture takes from them in
  the proportion of their weights.

  Args:
    sources: name -> source config, as `transfers/common.jsonl` and its like make them.
    processor: makes rows of examples.
    batch_size: examples a step, over all processes.
    text_len: most tokens of BOS, prefix, newline and suffix together; a longer example is an
      error (`check` counts them beforehand). T - 1 of a batch is the least of `lengths(text_len)`
      that holds all its rows, those of the other processes too.
    seed: of order and draws.
    start_step: the first step to deliver.
    workers: processes that read; 0 reads in threads of this one. They are spawned, so the main
      module of the program needs `if __name__ == "__main__":`.
    rows: those of the global batch that this process reads, as `sharding.rows_here` names them;
      None: all. Each is the same row whatever the others are.
    codec: path or parameters of the mask codec; needed by the tasks "segment" and "refer".
    max_unreadable: different pictures that this process may find unreadable before it stops.
    truncate: cut what is too long on the right, as the reference does, instead of raising.

  Returns:
    An iterator of numpy `structs.Batch`, to be closed. What iterating raises says
    `Batches.__next__`.

  Raises:
    errors.UserError: a source cannot be read, or there is none.
  """
  active = order.active(sources)
  if not active:
    raise errors.UserError("train.data is empty, or all weights are 0; give at least one source")
  opened = [_Source.open(c, f"train.data.{name}", codec, True) for name, c in active.items()]
  opened = [source.measured(processor) for source in opened]
  positions = order.Order([len(source.records) for source in opened], active, seed)
  needs = tuple(_needs(source, processor) for source in opened)
  batches = _TrainBatches(
    tuple(opened), needs, positions, processor, text_len, seed, batch_size, truncate,
    _numbers(rows, batch_size),
  )  # fmt: skip
  return Batches(grain.MapDataset.source(batches)[start_step:], workers, max_unreadable)


def eval_batches(
  source: Mapping,
  processor,
  *,
  batch_size: int,
  text_len: int,
  limit: int | None = None,
  with_suffix: bool = False,
  codec: str | Mapping[str, np.ndarray] | None = None,
  rows: Sequence[int] | None = None,
  max_unreadable: int = 0,
  truncate: bool = False,
) -> Batches:
  """Every example once, in the order of the file.

  Args:
    source: its config.
    processor: makes rows of examples.
    batch_size: rows of the global batch; the last one is filled up with `valid` False.
    text_len: T, tokens of BOS, prefix and newline; T - 1 of all with `with_suffix`.
    limit: only the first so many; None or 0 for all.
    with_suffix: whether the text holds the suffix, as in training (perplexity, scoring).
    codec: as in `train_batches`; only answers that are laid out need it.
    rows: as in `train_batches`; every process gets the same number of batches.
    max_unreadable: as in `train_batches`; an example with such a picture has no row.
    truncate: as in `train_batches`.

  Returns:
    An iterator, to be closed, of (Batch, rows): numpy, and one dict per valid example with the
    record's own keys and "id", "image", "prefix", "suffix", "height", "width", "objects".
    Pictures are never augmented. With `with_suffix` the first answer counts, or the one that the
    source's `draw` takes first.
  """
  opened = _Source.open({**source, "augment": ()}, "data", codec, with_suffix)
  opened = opened.measured(processor) if with_suffix else opened
  count = min(limit or len(opened.records), len(opened.records))
  batches = _EvalBatches(
    opened, processor, text_len, with_suffix, count, batch_size, truncate,
    _numbers(rows, batch_size),
  )  # fmt: skip
  return Batches(grain.MapDataset.source(batches), 0, max_unreadable)


def lengths(text_len: int) -> tuple[int, ...]:
  """The few lengths that the text of training batches may have: each is a program to compile."""
  return (*(n for n in prompt.LENGTHS if n < text_len), text_len)


def longest_suffix(sources: Mapping[str, Mapping], processor) -> int:
  """Most tokens that an example of the sources is trained on, EOS included."""
  longest = 0
  for name, config in sources.items():
    records = sources_lib.open_source(config, f"train.data.{name}")
    rules = tasks.Rules.of(config, f"train.data.{name}")
    _, answer, _ = prepare.token_lengths(records, rules, processor)
    longest = max(longest, int(answer.max(initial=0)))
  return longest


def fingerprints(sources: Mapping[str, Mapping]) -> dict[str, str]:
  """Name of every source -> hash of its content."""
  opened = {n: sources_lib.open_source(c, f"train.data.{n}") for n, c in sources.items()}
  return {name: source.content_hash() for name, source in opened.items()}


def train_places(sources: Mapping[str, Mapping], seed: int, count: int, step: int = 0) -> list[str]:
  """Where the `count` examples of a step of `train_batches` stand, e.g. "data.jsonl:17"."""
  active = order.active(sources)
  records = [sources_lib.open_source(c, f"train.data.{name}") for name, c in active.items()]
  positions = order.Order([len(r) for r in records], active, seed)
  picked = [positions[p] for p in range(step * count, (step + 1) * count)]
  return [records[number].place(i) for number, i in picked]


def train_sources(sources: Mapping[str, Mapping], batch_size: int, step: int) -> np.ndarray:
  """int32[B]: which source every row of a step's global batch is from, whatever the seed.

  The numbers count the sources with a weight, in their order: `list(order.active(sources))`.
  """
  return order.source_numbers(order.active(sources), step * batch_size, (step + 1) * batch_size)


def num_examples(sources: Mapping[str, Mapping]) -> int:
  """Records in all sources together: what an epoch of a mixture means here."""
  return sum(len(sources_lib.open_source(c, f"train.data.{name}")) for name, c in sources.items())


@dataclasses.dataclass(frozen=True)
class _Source:
  """A source, opened, with all that a worker process needs to make examples of it."""

  records: sources_lib.Source
  rules: tasks.Rules
  codes: prepare.MaskCodes | None
  mirrored_codes: prepare.MaskCodes | None  # where training may mirror the pictures
  lengths: tuple[np.ndarray, ...] = ()  # as `prepare.token_lengths`, where orders are drawn

  @classmethod
  def open(cls, config, name, codec, needs_codes):
    records = sources_lib.open_source(config, name)
    rules, codes, mirrored = tasks.Rules.of(config, name), None, None
    if rules.task in tasks.MASKED:
      if codec:
        codes = prepare.mask_codes(records, codec)
        if augment.mirrors(rules.augment):
          mirrored = prepare.mask_codes(records, codec, mirrored=True)
      elif needs_codes and (rules.task == "segment" or prepare.has_masks(records)):
        raise errors.UserError(
          f'{name}: the task "{rules.task}" needs a mask codec; set --config.input.codec=vae-oid.npz,'
          f" or train one: `paligemma codec train --data {records.path} --out codec.npz`"
        )
    return cls(records, rules, codes, mirrored)

  def example(self, i, **options) -> structs.Example:
    codes = self.codes[i] if self.codes else None
    mirrored = self.mirrored_codes[i] if self.mirrored_codes else None
    return examples.make(
      self.records, i, self.rules, codes=codes, mirrored_codes=mirrored, **options
    )

  @property
  def max_images(self) -> int:
    return self.rules.frames or self.records.max_images

  def choice(self, i, visit, seed, place):
    """The `choose` of `examples.make` for a visit of record i, at a place of its own in the order."""

    def choose(n):
      if n == 1:
        return 0
      if self.rules.draw in ("each", "object"):
        return tasks.turn(n, seed, i, visit)
      return int(np.random.default_rng((seed, place)).integers(n))  # the record's own generator

    return choose

  def measured(self, processor) -> "_Source":
    """With its lengths, which drawing orders needs; only where they are drawn."""
    if self.rules.draw != "shuffle":
      return self
    lengths = prepare.token_lengths(self.records, self.rules, processor)
    return dataclasses.replace(self, lengths=lengths)

  def order(self, processor, i, seed, place) -> list[int] | None:
    """The `order` of `examples.make` for record i at a place of its own in the order of all."""
    if self.rules.draw != "shuffle":
      return None
    rng = np.random.default_rng((seed, place, 3))
    lengths = tuple(int(of[i]) for of in self.lengths)
    try:
      return prepare.draw_order(self.records[i], self.rules, processor, lengths, rng)
    except tasks.UNFIT:
      return None  # reading the example tells what is wrong with it

  def row(self, processor, i, example, text_len, train, truncate) -> structs.Batch:
    if self.rules.resize:
      processor = dataclasses.replace(processor, resize=self.rules.resize)
    try:
      return processor.example(example, text_len, train, truncate)
    except errors.UserError as e:
      raise errors.UserError(f"{self.records.place(i)}: {e}") from None


@dataclasses.dataclass(frozen=True)
class _TrainBatches:
  """Step -> this process's part of its batch. Runs in workers: numpy only."""

  sources: tuple[_Source, ...]
  needs: tuple[np.ndarray, ...]  # of every source int32[N], the least text_len for every record
  positions: order.Order
  processor: Any
  text_len: int
  seed: int
  batch_size: int  # of all processes
  truncate: bool
  part: tuple[int, ...]  # its rows of the batch

  def __len__(self):
    return _ENDLESS

  def __getitem__(self, step: int) -> tuple[structs.Batch, Unreadable]:
    positions = range(step * self.batch_size, (step + 1) * self.batch_size)
    picked = [self.positions[p] for p in positions]
    text_len = self._text_len(picked)
    rows, unreadable = [], []
    for row in self.part:
      position, (number, i) = positions[row], picked[row]
      try:
        rows.append(self._row(position, self.sources[number], i, text_len))
      except examples.UnreadableImage as e:
        unreadable.append((self.sources[number].records.place(i), str(e)))
        rows.append(_black(self.processor, text_len, True))
    frames = max(s.max_images for s in self.sources)
    return processors.stack(rows, frames), unreadable

  def _text_len(self, picked: list[tuple[int, int]]) -> int:
    longest = max(self.needs[number][i] for number, i in picked)
    return next((n for n in lengths(self.text_len) if n >= longest), self.text_len)

  def _row(self, position: int, source: _Source, i: int, text_len: int) -> structs.Batch:
    choose = source.choice(i, self.positions.visit(position), self.seed, position)
    shuffled = source.order(self.processor, i, self.seed, position)
    rng = np.random.default_rng((self.seed, position, 1))  # another, which `choose` leaves alone
    settings = self.processor.picture_settings
    example = source.example(i, choose=choose, rng=rng, order=shuffled, **settings)
    if example.suffix is None and source.rules.is_unanswered(source.records[i]):
      raise examples.Unanswered(f"{source.records.place(i)}: no answer to train on")
    if example.suffix is None:
      raise errors.UserError(
        f'{source.records.place(i)}: no key "{source.rules.suffix}" to train on'
      )
    return source.row(self.processor, i, example, text_len, True, self.truncate)

  def __repr__(self):
    return f"TrainBatches({self.sources}, {self.seed}, {self.batch_size}, {self.part})"


@dataclasses.dataclass(frozen=True)
class _EvalBatches:
  """Number of a batch -> (this process's part of it, rows of its real examples)."""

  source: _Source
  processor: Any
  text_len: int
  with_suffix: bool
  count: int  # examples
  batch_size: int  # of all processes
  truncate: bool
  part: tuple[int, ...]  # its rows of the batch

  def __len__(self):
    return -(-self.count // self.batch_size)

  def __getitem__(self, number: int) -> tuple[tuple[structs.Batch, list[dict]], Unreadable]:
    start = number * self.batch_size
    rows, extras, unreadable = [], [], []
    for i in (start + row for row in self.part):
      rows.append(None)
      if i < self.count:
        try:
          example = self._example(i)
          rows[-1] = self.source.row(
            self.processor, i, example, self.text_len, self.with_suffix, self.truncate
          )
          extras.append(example.extras)
        except examples.UnreadableImage as e:
          unreadable.append((self.source.records.place(i), str(e)))
    # The same in every process, whatever else it reads: several may hold the row.
    filler = _black(self.processor, self.text_len, self.with_suffix)
    rows = [filler if row is None else row for row in rows]
    return (processors.stack(rows, self.source.max_images), extras), unreadable

  def _example(self, i: int) -> structs.Example:
    options = dict(extras=True, **self.processor.picture_settings)
    rules = self.source.rules
    if self.with_suffix and (rules.draw != "any" or rules.noise):  # as training first sees it
      options |= dict(choose=self.source.choice(i, 0, 0, i), rng=np.random.default_rng((0, i, 1)))
      options |= dict(order=self.source.order(self.processor, i, 0, i))
    return self.source.example(i, **options)

  def __repr__(self):
    return f"EvalBatches({self.source}, {self.count}, {self.batch_size}, {self.part})"


def _numbers(rows: Sequence[int] | None, batch_size: int) -> tuple[int, ...]:
  return tuple(range(batch_size) if rows is None else (int(row) for row in rows))


def _needs(source: _Source, processor) -> np.ndarray:
  """int32[N], the tokens of text that every record feeds to the model; EOS is only a target."""
  head, _, whole = prepare.token_lengths(source.records, source.rules, processor)
  return np.maximum(head, whole - 1)


def _black(processor, text_len: int, train: bool) -> structs.Batch:
  """A row without weight that stands for an example: a black picture and an empty prompt."""
  black = np.zeros((processor.res, processor.res, 3), np.uint8)
  row = processor.example(structs.Example([black], "", ""), text_len, train)
  return row._replace(valid=np.bool_(False), mask_loss=np.zeros_like(row.mask_loss))
