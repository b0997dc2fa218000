"""Whole sources, every record of them: defects with their places, lengths, masks, copies.

Training checks a part of this before it starts (`checks`), with the same `problems`. Here every
picture and mask is decoded, texts are looked at more closely and sources are compared.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import tqdm

from paligemma_jax import errors
from paligemma_jax.data import checks, edges, examples, prepare, problems, reading, sources, tasks

_WINDOW = 1024  # records under way at a time
_GUESSED = 100  # records that a task is told from
_LOW = 0.5  # an IoU that is told: no answer can be better than the codec


@dataclasses.dataclass
class Survey:
  """What was found in one source.

  Attributes:
    name: config path.
    report: every finding; None if the source could not be opened, `failure` then says why.
    rules: how its records become examples.
    num_pictures: different files, or pictures inside the records.
    num_objects: over all records.
    text_len: tokens that fit; 0: unknown.
    lengths: int32[N], tokens that must fit, 0 of what cannot be read; empty without tokenizer.
    ious: float32[M], of every mask with itself after codec and location tokens, which is the most
      that an answer can reach; empty without codec.
  """

  name: str
  report: problems.Report | None = None
  rules: tasks.Rules | None = None
  failure: str = ""
  num_pictures: int = 0
  num_objects: int = 0
  text_len: int = 0
  lengths: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
  ious: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

  def lines(self, notes: bool = False) -> list[tuple[str, int, str]]:
    """(kind, number of records, one line) for all defects, or for what is only worth a note."""
    if self.report is None:
      return [] if notes else [("source", 1, self.failure)]
    return [
      (kind, len(self.report.found[kind]), line)
      for kind, line in self.report.lines().items()
      if (kind in problems.NOTES) == notes
    ]


def run(
  train: Mapping[str, Mapping],
  evals: Mapping[str, Mapping],
  processor=None,
  *,
  text_len: int = 0,
  scored: Collection[str] = (),
  codec: str | Mapping[str, np.ndarray] | None = None,
) -> list[Survey]:
  """Reads all sources, with a progress bar for each.

  Args:
    train: config path -> config of the sources that are trained on.
    evals: the same of those that are evaluated on.
    processor: with a tokenizer, to measure lengths; None skips that.
    text_len: longest text that fits, in tokens; 0: unknown.
    scored: those of `evals` whose suffix must fit too, because its likelihood is measured.
    codec: path or parameters of the mask codec, to send every mask through it; None skips that.
  """
  found, trained = [], {}
  for name, config in (*train.items(), *evals.items()):
    survey = Survey(name, text_len=text_len)
    found.append(survey)
    try:
      survey.rules = tasks.Rules.of(config, name)
      survey.report = problems.Report(sources.open_source(config, name))
    except errors.UserError as e:
      survey.failure = str(e)
      continue
    if name in train:
      copies = _Copies(survey, trained, {}, set())
    else:
      copies = _Copies(survey, {}, trained, _places_of(survey, found[: len(train)]))
    _read(survey, copies, codec, "drop" if processor is None else processor.alpha)
    if processor is not None and processor.tokenizer is not None:
      _measure(survey, processor, name in train or name in scored)
  return found


def lines(surveys: Iterable[Survey], notes: bool = False) -> list[tuple[Survey, str, int, str]]:
  """(survey, kind, number of records, one line) for all defects, or for what is worth a note.

  The same line is told once, where several sources read the same file.
  """
  found = {}
  for s in surveys:
    for kind, count, line in s.lines(notes):
      found.setdefault(line, (s, kind, count, line))
  return list(found.values())


def sample(surveys: Iterable[Survey], count: int, each: int = 2) -> list[tuple[Survey, int]]:
  """Which records to look at: `each` of every kind of defect, then some `count` of all sources.

  Returns:
    (survey, index of the record), those with defects first.
  """
  surveys = [s for s in surveys if s.report is not None]
  picked = [(s, i) for s in surveys for f in s.report.found.values() for i in sorted(f)[:each]]
  for s in surveys:
    total = len(s.report.source)
    share = min(-(-count // len(surveys)), total)
    picked += [(s, int(i)) for i in np.linspace(0, total - 1, share)]
  return list({(s.name, i): (s, i) for s, i in picked}.values())


def guess_task(path: str) -> str:
  """The task of a JSONL file that no config describes, from its first records.

  "text" if one has a suffix, else "refer" if all objects have sentences, "segment" if all have
  masks, "detect" if not.
  """
  source, objects = sources.open_source({"path": path}), []
  for i in range(min(len(source), _GUESSED)):
    try:
      record = source[i]
    except errors.UserError:
      continue
    if "suffix" in record:
      return "text"
    objects += reading.objects_of(record)
  if not objects:
    return "text"
  if all("sentences" in o for o in objects):
    return "refer"
  return "segment" if all("mask" in o for o in objects) else "detect"


def _read(survey: Survey, copies: "_Copies", codec, alpha: str) -> None:
  """Reads every record of the source."""
  report, ids, inside = survey.report, {}, 0
  for kind, text in problems.of_source(report.source, survey.rules):
    report.add(kind, 0, text)
  reader = reading.Reader(report.source, survey.rules, survey.name, codec is not None, alpha)
  through, at_edges = _ThroughCodec(survey, codec), edges.Edges()
  for i, seen in _each(reader, report.source, survey.name):
    for kind, text in seen.problems:
      report.add(kind, i, text)
    if seen.record is None:
      continue
    _check_id(seen.record, ids, report, i)
    record = tasks.with_objects(seen.record, survey.rules)
    survey.num_objects += len(reading.objects_of(record))
    if seen.pictures:
      inside += sum(isinstance(p, bytes) for p in examples.image_list(seen.record))
      copies.compare(i, seen)
    if seen.shown:
      found = [o for o in reading.objects_of(seen.record) if problems.is_box(o.get("box"))]
      at_edges.add(found, seen.shown.height, seen.shown.width)
    through.add(i, seen.masks)
  through.finish()
  if text := at_edges.finding():
    report.add("edges", 0, text)
  survey.num_pictures = len(reader.files) + inside


def _each(reader, source, name: str) -> Iterator[tuple[int, reading.Seen]]:
  """(index, what was read) of every record, in order; several are read at a time."""
  bar = tqdm.tqdm(total=len(source), desc=name, unit="example", disable=None)
  reader(0)  # opens the files, which two threads would do twice
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, bar:
    for start in range(0, len(source), _WINDOW):
      window = range(start, min(start + _WINDOW, len(source)))
      for i, seen in zip(window, pool.map(reader, window)):
        bar.update()
        yield i, seen


def _check_id(record: dict, ids: dict, report: problems.Report, i: int) -> None:
  number = record.get("id")
  if isinstance(number, str | int) and (first := ids.setdefault(number, i)) != i:
    place = report.source.place(first)
    report.add("id", i, f'the "id" {number!r} is that of {place} too; give each its own')


def _measure(survey: Survey, processor, whole: bool) -> None:
  """Fills `lengths`, tells which are too long."""
  source = survey.report.source
  survey.lengths = checks.needed_lengths(source, survey.rules, processor, whole)
  malformed = [f for kind, f in survey.report.found.items() if kind.startswith(("no ", "type "))]
  survey.lengths[[i for found in malformed for i in found]] = 0
  longest = int(survey.lengths.max(initial=0))
  for i in np.flatnonzero(survey.lengths > survey.text_len) if survey.text_len else ():
    text = f"needs {survey.lengths[i]} tokens, text_len {survey.text_len} would cut it; shorten it"
    text += f", or set --config.input.text_len={longest}, which holds the longest"
    survey.report.add("too long", int(i), text)


class _Copies:
  """Finds records with the same pixels and the same prefix, in one split and across splits."""

  def __init__(self, survey: Survey, seen: dict, trained: dict, trained_places: set[str]):
    """Takes what is known already.

    Args:
      survey: gets the findings.
      seen: digest of pictures and prefix -> (place, digest of the answer), of the same split.
      trained: the same of what is trained on, when this is not.
      trained_places: lines of its own file that are trained on.
    """
    self._report, self._rules = survey.report, survey.rules
    self._seen, self._trained, self._trained_places = seen, trained, trained_places

  def compare(self, i: int, record: reading.Seen) -> None:
    """Tells what record i is a copy of, and keeps it for those that follow."""
    place, report = self._report.source.place(i), self._report
    answer = record.record.get(self._rules.suffix if self._rules.task == "text" else "objects")
    answer = _digest(repr(answer))
    if place in self._trained_places:
      report.add("trained on itself", i, "is trained on, too: its score tells what was memorised")
    for key in self._keys(record):
      first, other = self._seen.setdefault(key, (place, answer))
      if first != place and answer == other:
        text = f"a copy of {first}: same picture, prefix and answer; remove one of them"
        report.add("copy", i, text)
      elif first != place:
        text = f"same picture and prefix as {first}, another answer; join them in one list"
        report.add("another answer", i, text)
      first, _ = self._trained.get(key, ("", b""))
      if first and place not in self._trained_places:
        text = f"same picture and prefix as {first}, which is trained on; remove one of them"
        report.add("trained on", i, text)

  def _keys(self, seen: reading.Seen) -> set[bytes]:
    pictures = b"".join(p.digest for p in seen.pictures).hex()
    try:
      return {_digest(pictures + d.prefix) for d in tasks.drafts(seen.record, self._rules)}
    except tasks.UNFIT:
      return set()  # `problems` has told


def _places_of(survey: Survey, trained: Iterable[Survey]) -> set[str]:
  """Places of the records that are trained on, in the file of this source."""
  known = [s.report.source for s in trained if s.report is not None]
  same = [source for source in known if source.path == survey.report.source.path]
  return {source.place(i) for source in same for i in range(len(source))}


def _digest(text: str) -> bytes:
  return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _ThroughCodec:
  """Sends masks through codec and tokens, many at a time."""

  def __init__(self, survey: Survey, codec):
    self._survey, self._codec = survey, codec
    self._waiting: list[tuple[int, reading.Mask]] = []
    self._ious: list[float] = []

  def add(self, i: int, masks: list[reading.Mask]) -> None:
    """Takes the masks of record i."""
    self._waiting += [(i, mask) for mask in masks]
    while len(self._waiting) >= prepare.CHUNK:
      self._flush()

  def finish(self) -> None:
    """Fills the survey's `ious`."""
    if self._waiting:
      self._flush()
    self._survey.ious = np.array(self._ious, np.float32)

  def _flush(self) -> None:
    ready, self._waiting = self._waiting[: prepare.CHUNK], self._waiting[prepare.CHUNK :]
    _, decoded = prepare.round_trip([mask.crop for _, mask in ready], self._codec)
    for (i, mask), small in zip(ready, decoded):
      self._ious.append(mask.iou(small))
      if self._ious[-1] < _LOW:
        text = f"a mask comes back from its tokens with IoU {self._ious[-1]:.2f}; look at it"
        self._survey.report.add("round trip", i, text)
