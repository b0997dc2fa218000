"""From JSONL files to batches: shuffle, repeat, mix, read, process, batch, prefetch. With grain.

The order is a function of the seed and of the position alone: position p is row p mod B of step
p div B. Number of workers, number of processes and the step at which a run (re)starts do not
matter, so resuming is slicing, and no state of the pipeline is stored.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from paligemma_jax import errors, structs
from paligemma_jax.data import checks, examples, prepare
from paligemma_jax.data import sources as sources_lib
from paligemma_jax.processing import processor as processors
from paligemma_jax.processing import prompt

check = checks.check
_ENDLESS = 2**40  # batches; grain wants a length
_THREADS, _AHEAD = 2, 4  # that read without workers; batches read in advance


class Batches:
  """An iterator that holds threads or processes: close it in a `finally`, or use `with`."""

  def __init__(self, iterator):
    self._iterator = iterator

  def __iter__(self):
    return self

  def __next__(self):
    if self._iterator is None:
      raise StopIteration
    return next(self._iterator)

  def close(self) -> None:
    """Stops reading; may be called twice."""
    iterator, self._iterator = self._iterator, None
    if iterator is not None:
      iterator.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def train_batches(
  sources: Mapping[str, Mapping],
  processor,
  *,
  batch_size: int,
  text_len: int,
  seed: int,
  start_step: int = 0,
  workers: int = 0,
  num_processes: int = 1,
  process_index: int = 0,
  codec: str | Mapping[str, np.ndarray] | None = None,
) -> Batches:
  """Endless batches for training, B = batch_size / num_processes rows each.

  Every source is shuffled anew in each of its epochs and repeated; a mixture takes from them in
  the proportion of their weights. Process k gets the rows k B to (k + 1) B of the global batch.

  Args:
    sources: name -> source config (kind, path, task, prefix, suffix, weight, where).
    processor: makes rows of examples.
    batch_size: examples a step, over all processes.
    text_len: most tokens of BOS, prefix, newline and suffix together; a longer example is an
      error (`check` counts them beforehand). T - 1 of a batch is the least of `lengths(text_len)`
      that holds all its rows, those of the other processes too.
    seed: of order and draws.
    start_step: the first step to deliver.
    workers: processes that read; 0 reads in threads of this one. They are spawned, so the main
      module of the program needs `if __name__ == "__main__":`.
    num_processes: that train together.
    process_index: of this one.
    codec: path or parameters of the mask codec; needed by the task "segment".

  Returns:
    An iterator of numpy `structs.Batch`, to be closed. While iterating, errors.UserError names the
    record that cannot be used: a picture that breaks during a run stops it rather than silently
    changing what is trained on.

  Raises:
    errors.UserError: a source cannot be read, or the batch cannot be divided.
  """
  if batch_size % num_processes:
    raise errors.UserError(f"batch_size {batch_size} is not divisible by {num_processes} processes")
  active = {name: c for name, c in sources.items() if c.get("weight", 1.0) > 0}
  if not active:
    raise errors.UserError("train.data is empty, or all weights are 0; give at least one source")
  opened = [_Source.open(c, f"train.data.{name}", codec, True) for name, c in active.items()]
  order = _order([len(source.records) for source in opened], active, seed)
  local = batch_size // num_processes
  needs = tuple(_needs(source, processor) for source in opened)
  batches = _TrainBatches(
    tuple(opened), needs, order, processor, text_len, seed, batch_size,
    slice(local * process_index, local * (process_index + 1)),
  )  # fmt: skip
  return Batches(_started(grain.MapDataset.source(batches)[start_step:], workers))


def eval_batches(
  source: Mapping,
  processor,
  *,
  batch_size: int,
  text_len: int,
  limit: int | None = None,
  with_suffix: bool = False,
  codec: str | Mapping[str, np.ndarray] | None = None,
  num_processes: int = 1,
  process_index: int = 0,
) -> Batches:
  """Every example once, in the order of the file.

  Args:
    source: its config.
    processor: makes rows of examples.
    batch_size: rows of the global batch; the last one is filled up with `valid` False.
    text_len: T, tokens of BOS, prefix and newline; T - 1 of all with `with_suffix`.
    limit: only the first so many; None or 0 for all.
    with_suffix: whether the text holds the suffix, as in training (perplexity, scoring).
    codec: as in `train_batches`; only the task "segment" with a suffix needs it.
    num_processes: that evaluate together; all get the same number of batches.
    process_index: of this one.

  Returns:
    An iterator, to be closed, of (Batch, rows): numpy, and one dict per valid example with the
    record's own keys and "id", "image", "prefix", "suffix", "height", "width", "objects".
  """
  if batch_size % num_processes:
    raise errors.UserError(f"batch_size {batch_size} is not divisible by {num_processes} processes")
  opened = _Source.open(source, "data", codec, with_suffix)
  count = min(limit or len(opened.records), len(opened.records))
  local = batch_size // num_processes
  batches = _EvalBatches(
    opened, processor, text_len, with_suffix, count, batch_size,
    slice(local * process_index, local * (process_index + 1)),
  )  # fmt: skip
  return Batches(_started(grain.MapDataset.source(batches), 0))


def lengths(text_len: int) -> tuple[int, ...]:
  """The few lengths that the text of training batches may have: each is a program to compile."""
  return (*(n for n in prompt.LENGTHS if n < text_len), text_len)


def longest_suffix(sources: Mapping[str, Mapping], processor) -> int:
  """Most tokens that an example of the sources is trained on, EOS included."""
  longest = 0
  for name, config in sources.items():
    records = sources_lib.open_source(config, f"train.data.{name}")
    rules = examples.Rules.of(config, f"train.data.{name}")
    _, answer, _ = prepare.token_lengths(records, rules, processor)
    longest = max(longest, int(answer.max(initial=0)))
  return longest


def fingerprints(sources: Mapping[str, Mapping]) -> dict[str, str]:
  """Name of every source -> hash of its content."""
  opened = {n: sources_lib.open_source(c, f"train.data.{n}") for n, c in sources.items()}
  return {name: source.content_hash() for name, source in opened.items()}


def train_places(sources: Mapping[str, Mapping], seed: int, count: int, step: int = 0) -> list[str]:
  """Where the `count` examples of a step of `train_batches` stand, e.g. "data.jsonl:17"."""
  active = {name: c for name, c in sources.items() if c.get("weight", 1.0) > 0}
  records = [sources_lib.open_source(c, f"train.data.{name}") for name, c in active.items()]
  order = _order([len(r) for r in records], active, seed)
  picked = [order[p] for p in range(step * count, (step + 1) * count)]
  return [records[number].place(i) for number, i in picked]


def num_examples(sources: Mapping[str, Mapping]) -> int:
  """Records in all sources together: what an epoch of a mixture means here."""
  return sum(len(sources_lib.open_source(c, f"train.data.{name}")) for name, c in sources.items())


@dataclasses.dataclass(frozen=True)
class _Source:
  """A source, opened, with all that a worker process needs to make examples of it."""

  records: sources_lib.Jsonl
  rules: examples.Rules
  codes: prepare.MaskCodes | None

  @classmethod
  def open(cls, config, name, codec, needs_codes):
    records = sources_lib.open_source(config, name)
    rules, codes = examples.Rules.of(config, name), None
    if rules.task == "segment":
      if codec:
        codes = prepare.mask_codes(records, codec)
      elif needs_codes:
        raise errors.UserError(
          f'{name}: the task "segment" needs a mask codec; set --config.input.codec=vae-oid.npz,'
          " or train one with `paligemma codec train`"
        )
    return cls(records, rules, codes)

  def example(self, i, choose, extras) -> structs.Example:
    codes = self.codes[i] if self.codes else None
    return examples.make(self.records, i, self.rules, choose=choose, codes=codes, extras=extras)

  def row(self, processor, i, example, text_len, train) -> structs.Batch:
    try:
      return processor.example(example, text_len, train)
    except errors.UserError as e:
      raise errors.UserError(f"{self.records.place(i)}: {e}") from None


@dataclasses.dataclass(frozen=True)
class _TrainBatches:
  """Step -> this process's part of its batch. Runs in workers: numpy only."""

  sources: tuple[_Source, ...]
  needs: tuple[np.ndarray, ...]  # of every source int32[N], the least text_len for every record
  order: grain.MapDataset  # position -> (number of the source, record)
  processor: Any
  text_len: int
  seed: int
  batch_size: int  # of all processes
  part: slice  # of the batch

  def __len__(self):
    return _ENDLESS

  def __getitem__(self, step: int) -> structs.Batch:
    positions = range(step * self.batch_size, (step + 1) * self.batch_size)
    frames = max(s.records.max_images for s in self.sources)
    text_len = self._text_len(positions)
    return processors.stack([self._row(p, text_len) for p in positions[self.part]], frames)

  def _text_len(self, positions: range) -> int:
    picked = [self.order[p] for p in positions]
    longest = max(self.needs[number][i] for number, i in picked)
    return next((n for n in lengths(self.text_len) if n >= longest), self.text_len)

  def _row(self, position: int, text_len: int) -> structs.Batch:
    number, i = self.order[position]
    source = self.sources[number]

    def choose(n):  # the record's own generator
      return int(np.random.default_rng((self.seed, position)).integers(n)) if n > 1 else 0

    example = source.example(i, choose, False)
    if example.suffix is None:
      raise errors.UserError(
        f'{source.records.place(i)}: no key "{source.rules.suffix}" to train on'
      )
    return source.row(self.processor, i, example, text_len, True)

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
  part: slice  # of the batch

  def __len__(self):
    return -(-self.count // self.batch_size)

  def __getitem__(self, number: int) -> tuple[structs.Batch, list[dict]]:
    start = number * self.batch_size
    mine = range(start, start + self.batch_size)[self.part]
    real = [i for i in mine if i < self.count]
    made = [self.source.example(i, _first, True) for i in real]
    rows = [self._row(i, e) for i, e in zip(real, made)]
    last = rows[-1] if rows else self._row(start, self.source.example(start, _first, False))
    filler = last._replace(valid=np.bool_(False), mask_loss=np.zeros_like(last.mask_loss))
    rows += [filler] * (len(mine) - len(real))
    return processors.stack(rows, self.source.records.max_images), [e.extras for e in made]

  def _row(self, i, example) -> structs.Batch:
    return self.source.row(self.processor, i, example, self.text_len, self.with_suffix)

  def __repr__(self):
    return f"EvalBatches({self.source}, {self.count}, {self.batch_size}, {self.part})"


def _order(lengths: list[int], active: Mapping[str, Mapping], seed: int) -> grain.MapDataset:
  """Position -> (number of the source, record). A source's own order depends on its name alone."""
  streams = []
  for number, (length, name) in enumerate(zip(lengths, active)):
    ds = grain.MapDataset.range(length).map(functools.partial(_tagged, number))
    ds = ds.seed(zlib.crc32(f"{seed}/{name}".encode())).shuffle()
    streams.append(ds.repeat())  # a finite source would end the mixture
  if len(streams) == 1:
    return streams[0]
  weights = [float(c.get("weight", 1.0)) for c in active.values()]
  return grain.MapDataset.mix(streams, [w / sum(weights) for w in weights])


def _needs(source: _Source, processor) -> np.ndarray:
  """int32[N], the tokens of text that every record feeds to the model; EOS is only a target."""
  head, _, whole = prepare.token_lengths(source.records, source.rules, processor)
  return np.maximum(head, whole - 1)


def _first(_: int) -> int:
  return 0


def _tagged(number: int, i: int) -> tuple[int, int]:
  return number, int(i)


def _started(ds: grain.MapDataset, workers: int):
  """A grain iterator over the elements in order, read ahead by threads or processes."""
  if not workers:
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
    return iter(ds.to_iter_dataset(options))
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which a library has no say in
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
  return iter(ds.to_iter_dataset(options).mp_prefetch(processes))
