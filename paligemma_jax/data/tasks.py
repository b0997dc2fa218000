"""What a record asks and what should be answered: the kinds of examples, and how answers are drawn.

One record can make several questions or have several answers; `drafts` lists them all. Training
draws one of them, evaluation takes the first, the length check measures every one.

  text      prefix and suffix as they stand; a list of suffixes gives one draft each
  options   as text, "indexed_choices" and "indexed_answer" made of "choices" and "answer"
  detect    "detect cat ; dog" -> "<loc…>… cat ; <loc…>… dog"
  segment   "segment cat" -> box, 16 mask codes and label of every cat; one draft per label
  refer     a sentence about an object -> its box and, if it has a mask, 16 codes; one per sentence
  table     "structure", a table's tags, and a cell for each object -> HTML with boxes

How drafts are drawn in training (`Rules.draw`), stateless, so that resuming is exact:

  any       one of them, anew at every visit of the record
  each      every one of them once before any comes again
  object    every object once before any comes again, and any one of its sentences
  shuffle   objects and options in a new order at every visit, else as "any"
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import choices, templates
from paligemma_jax.processing import augment as augments
from paligemma_jax.processing import boxes, image

# Mask codes of a record, per object; None where the object has no mask.
Codes = Sequence[tuple[int, ...] | None]
_NO_CODES = (0,) * 16  # stands in where only the length of the text matters
DRAWS = ("any", "each", "object", "shuffle")
FITS = ("stretch", "pad")
# What `drafts` raises of a record that is no example; `problems.of_record` says why.
UNFIT = (errors.UserError, LookupError, TypeError, ValueError, AttributeError, OverflowError)
_INDEXED = re.compile(r"([^\[\]{}]+)\[([^\[\]{}]+)\]")  # "options[index]"


@dataclasses.dataclass(frozen=True)
class Draft:
  """A question with one answer, before the picture is read."""

  prefix: str
  suffix: str | None
  objects: tuple[int, ...] = ()  # which of the record's objects the answer is about


@dataclasses.dataclass(frozen=True)
class Rules:
  """How a source's records become examples: the part of its config that is not about files."""

  task: str = "text"
  prefix: str = ""  # template; {field} is the record's value of that key; "": the task's own
  suffix: str = "suffix"  # key of the answer, "options[index]" or a template, where it is text
  augment: augments.Steps = ()  # random changes of the pictures, in training only
  lower: bool = False  # lower-cases the answers
  draw: str = "any"  # a name in `DRAWS`
  resize: str = ""  # a name in image.METHODS; "": the processor's
  fit: str = "stretch"  # a name in `FITS`: how a picture becomes a square
  outline: str = ""  # key of a box y0 x0 y1 x1 in 0..1, drawn on the resized picture
  frames: int = 0  # of a video, its list of pictures; 0: all of them
  stride: int = 1  # every how many-th of the list
  noise: int = 0  # boxes of the label "<noise>" after the others, in training

  @classmethod
  def of(cls, config, name: str = "data") -> "Rules":
    """Reads the keys of these names in a source config called `name`; "" is the default.

    Raises:
      errors.UserError: a name that is none, or no template.
    """
    given = {f.name: config.get(f.name) or f.default for f in dataclasses.fields(cls)}
    known = {"task": TASKS, "draw": DRAWS, "fit": FITS, "resize": ("", *image.METHODS)}
    for key, names in known.items():
      if given[key] not in names:
        hint = errors.did_you_mean(given[key], names)
        raise errors.UserError(f'{name}.{key}: "{given[key]}" is unknown{hint}')
    for key in ("prefix", "suffix"):
      templates.check(given[key], f"{name}.{key}")
    for key in ("frames", "stride", "noise"):
      if given[key] < 0:
        raise errors.UserError(
          f"{name}.{key} is a number of them, not less than 0; found {given[key]}"
        )
    if given["noise"] and given["task"] != "detect":
      raise errors.UserError(f'{name}.noise is for the task "detect", not "{given["task"]}"')
    steps = augments.parse(given["augment"], f"{name}.augment")
    if given["outline"] and augments.moves(steps):
      raise errors.UserError(
        f"{name}.augment moves the picture, {name}.outline would stay where it is; take out crops"
        " and flips"
      )
    return cls(**given | {"augment": steps})

  def fields(self) -> list[str]:
    """Keys of the record that the prefix template refers to."""
    return [f for f in templates.fields(self.prefix) if f not in _OWN.get(self.task, ())]

  def answer_fields(self) -> list[str]:
    """Keys of the record that the answer is made of, where it is more than a key; else none."""
    if "{" in self.suffix:
      return [f for f in templates.fields(self.suffix) if f not in _OWN.get(self.task, ())]
    indexed = _INDEXED.fullmatch(self.suffix)
    return list(indexed.groups()) if indexed else []

  def lacks_objects(self, record: dict) -> bool:
    """Whether a record has none of the objects that its question is made of."""
    is_asked_by_them = self.task in MASKED or (self.task not in TEXTS and not self.prefix)
    is_empty = "objects" in record and record["objects"] in ([], None)
    return is_asked_by_them and is_empty and not named_boxes(record, self)

  def is_unanswered(self, record: dict) -> bool:
    """Whether a record without an answer says so, as those of test splits: by [] or by -1."""
    return record.get(self.suffix) == [] or "{" in self.suffix or bool(self.answer_fields())


def asked(record: dict, template: str | None = None) -> str:
  """What is asked of a record that is only to be answered.

  Args:
    record: as its source gives it.
    template: {field} is the record's value of that key, {label} the labels of its objects; None: its
      own "prefix", or that of its objects, "detect cat ; dog".

  Raises:
    errors.UserError: a key is missing, or the template does not fit.
  """
  if template is None and "prefix" in record:
    return record["prefix"]
  objects = record.get("objects")
  if template is None and not objects:
    found = ", ".join(record)
    raise errors.UserError(f'no key "prefix", and no objects to detect (found: {found})')
  try:
    values = {**record, "label": _labels(objects)} if objects else record
    return templates.fill("detect {label}" if template is None else template, values)
  except KeyError as e:
    raise errors.UserError(f'no key "{e.args[0]}" in the record or its objects') from None
  except (AttributeError, TypeError):
    raise errors.UserError('"objects" is no list of {"label", "box"}') from None


def drafts(
  record: dict,
  rules: Rules,
  size: tuple[int, int] = (1024, 1024),
  codes: Codes | None = None,
  rng: np.random.Generator | None = None,
  order: Sequence[int] | None = None,
) -> list[Draft]:
  """Every question and answer that the record may become, at least one.

  Args:
    record: as its source gives it.
    rules: how to read it.
    size: height and width in pixels of the picture that the boxes refer to. It changes the values
      of the loc tokens only, never their number.
    codes: mask codes per object, for "segment" and "refer"; None writes code 0, of the same length.
    rng: draws noise; None: without it.
    order: of the `num_shuffled` objects or options; None: as they stand.

  Raises:
    errors.UserError: a value cannot be used, without its place; `problems` names it.
  """
  found = TASKS[rules.task](record, rules, size, codes, order)
  if rng is None or not rules.noise:
    return found
  return [_with_noise(draft, boxes.format_noise(rules.noise, rng)) for draft in found]


def num_shuffled(record: dict, rules: Rules) -> int:
  """How many objects or options of a record `draw="shuffle"` puts in another order."""
  if rules.draw != "shuffle" or rules.task not in ("options", "detect"):
    return 0
  if rules.task == "options":
    return len(record["choices"])
  return len(_shown(with_objects(record, rules)["objects"]))


def with_objects(record: dict, rules: Rules, size: tuple[int, int] = (1024, 1024)) -> dict:
  """The record; one without "objects" whose answer names boxes gets them as its objects.

  So do the JSONL files that Roboflow exports for PaliGemma, "<loc0100>… cat ; …". Objects that
  have mask codes keep them as "codes".

  Args:
    record: as its source gives it.
    rules: `suffix` is where the answer stands.
    size: height and width in pixels of the picture that the boxes refer to.
  """
  text = named_boxes(record, rules)
  if not text:
    return record
  found = [
    {"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1], **({"codes": b.codes} if b.codes else {})}
    for b in boxes.parse_boxes(text, *size)
  ]
  return {**record, "objects": found}


def as_row(record: dict, rules: Rules) -> dict:
  """The record with "suffix" and "objects" as the rows of evaluations have them, from it alone.

  Boxes that an answer names are those in a picture of 1024 x 1024 pixels; codes of masks are 0.
  """
  record = with_objects(record, rules)
  if rules.task in TEXTS:
    suffix = answers(record, rules, choices.indexed(record) if rules.task == "options" else record)
  else:
    suffix = drafts(record, rules)[0].suffix
  objects = record.get("objects")
  return {**record, "suffix": suffix, "objects": objects if isinstance(objects, list) else []}


def named_boxes(record: dict, rules: Rules) -> str:
  """The answer of a record without "objects" that names boxes; "" where there is none."""
  found = record.get(rules.suffix)
  first = found[0] if isinstance(found, list) and found else found
  is_named = isinstance(first, str) and "<loc" in first and record.get("objects") is None
  return first if is_named else ""


def _with_noise(draft: Draft, noise: str) -> Draft:
  return dataclasses.replace(draft, suffix=" ; ".join(filter(None, (draft.suffix, noise))))


def take(
  options: list[Draft],
  rules: Rules,
  choose: Callable[[int], int],
  rng: np.random.Generator | None,
) -> Draft:
  """One of the drafts.

  Args:
    options: as `drafts` gives them.
    rules: `draw` tells what is chosen.
    choose: number of things to choose from -> index.
    rng: draws among the sentences of an object; None: the first.
  """
  if rules.draw != "object":
    return options[choose(len(options))]
  groups = {}
  for draft in options:
    groups.setdefault(draft.objects, []).append(draft)
  group = list(groups.values())[choose(len(groups))]
  return group[int(rng.integers(len(group))) if rng is not None else 0]


def turn(n: int, seed: int, record: int, visit: int) -> int:
  """The index, of n, that visit 0, 1, … of a record takes: each once in n visits, in random order.

  Source: big_vision, pp/proj/paligemma/ops.py (choice without replacement), whose pipeline keeps
  the permutations as state; here they follow from the seed.
  """
  rng = np.random.default_rng((seed, record, visit // n, 2))
  return int(rng.permutation(n)[visit % n])


def frames(count: int, rules: Rules, rng: np.random.Generator | None) -> list[int]:
  """Which pictures of a list of `count` are the frames of an example.

  A video that is longer than all frames at the stride begins anywhere in training, at its start
  otherwise; of a shorter one, the frames there are repeated from the first on.

  Source: big_vision, configs/proj/paligemma/transfers/msrvtt_cap.py (its reader's contract).
  """
  spare = count - rules.frames * rules.stride
  start = int(rng.integers(spare + 1)) if rng is not None and spare > 0 else 0
  found = list(range(start, count, rules.stride))
  return [found[k % len(found)] for k in range(rules.frames)]


def answers(record: dict, rules: Rules, values: dict | None = None) -> Any:
  """The answer, or the list of answers, that a record of a task of texts holds; None: none.

  Args:
    record: as its source gives it.
    rules: `suffix` is where they stand.
    values: what a template may use; None: the record.
  """
  indexed = _INDEXED.fullmatch(rules.suffix)
  if "{" in rules.suffix:
    values = values or record
    named = templates.fields(rules.suffix)
    is_none = "indexed_answer" in named and values.get("indexed_answer", "") is None
    found = [] if is_none else templates.fill(rules.suffix, values)
  elif indexed:
    of, at = indexed.groups()
    k = choices.index(record, of, at)
    found = [] if k < 0 else record[of][k]
  else:
    found = record.get(rules.suffix)
  if not rules.lower or found is None:
    return found
  return [text.lower() for text in found] if isinstance(found, list) else found.lower()


def _text(record, rules, size, codes, order):
  prefix = templates.fill(rules.prefix, record) if rules.prefix else record["prefix"]
  found = answers(record, rules)
  found = found if isinstance(found, list) else [found]
  return [Draft(prefix, answer) for answer in found or [None]]


def _options(record, rules, size, codes, order):
  return _text(choices.indexed(record, order), rules, size, codes, order)


def _detect(record, rules, size, codes, order):
  objects = with_objects(record, rules, size)["objects"]
  if not objects and not rules.prefix:
    raise errors.UserError('"objects" is empty; a detect example needs one, or a prefix template')
  prefix = templates.fill(rules.prefix or "detect {label}", {**record, "label": _labels(objects)})
  shown = _shown(objects)
  if order is not None:
    shown = [shown[k] for k in order]
  found = [structs.Box(o["label"], *o["box"]) for o in shown]
  return [Draft(prefix, boxes.format_boxes(found, *size), tuple(range(len(objects))))]


def _labels(objects) -> str:
  return " ; ".join(dict.fromkeys(o["label"] for o in objects))


def _shown(objects: list[dict]) -> list[dict]:
  """All but regions of many and words that cannot be read, which are for scores alone."""
  return [o for o in objects if not o.get("iscrowd") and not o.get("ignore")]


def _segment(record, rules, size, codes, order):
  objects = record["objects"]
  found = []
  for label in dict.fromkeys(o["label"] for o in objects):
    which = tuple(k for k, o in enumerate(objects) if o["label"] == label)
    if codes is not None and any(codes[k] is None for k in which):
      raise errors.UserError('an object has no "mask"; the task "segment" needs one for each')
    shown = [_coded(objects[k], label, codes[k] if codes else _NO_CODES) for k in which]
    prefix = templates.fill(rules.prefix or "segment {label}", {**record, "label": label})
    found.append(Draft(prefix, boxes.format_boxes(shown, *size), which))
  if not found:
    raise errors.UserError('"objects" is empty; a segment example needs one')
  return found


def _refer(record, rules, size, codes, order):
  found = []
  for k, item in enumerate(record["objects"]):
    stand_in = None if item.get("mask") is None else _NO_CODES
    answer = boxes.format_boxes([_coded(item, "", codes[k] if codes else stand_in)], *size)
    for sentence in item["sentences"]:
      prefix = templates.fill(rules.prefix or "{sentence}", {**record, "sentence": sentence})
      found.append(Draft(prefix, answer, (k,)))
  if not found:
    raise errors.UserError('no object has "sentences"; a refer example needs one')
  return found


def _table(record, rules, size, codes, order):
  """Cells are the objects, their labels the text; a tag "<td" may come in pieces (PubTabNet)."""
  cells, parts, cell = iter(record["objects"]), [], None
  for tag in record["structure"]:
    if tag.startswith("<td"):
      cell = next(cells, {"label": ""})
      if cell["label"]:
        x0, y0, x1, y1 = cell["box"]
        (y0, y1), (x0, x1) = boxes.to_bins((y0, y1), size[0]), boxes.to_bins((x0, x1), size[1])
        tokens = "".join(f"<loc{v:04d}>" for v in (x0, y0, x1, y1))
        tag = f'<td coords="{tokens}"{tag[3:]}'
    elif tag == "</td>" and cell:
      tag = f"{cell['label']}{tag}"
    parts.append(tag)
  return [
    Draft(
      templates.fill(rules.prefix, record), "".join(parts), tuple(range(len(record["objects"])))
    )
  ]


def _coded(item, label, codes: tuple[int, ...] | None) -> structs.Box:
  return structs.Box(label, *item["box"], codes=None if codes is None else tuple(codes))


TASKS = {
  "text": _text, "options": _options, "detect": _detect, "segment": _segment, "refer": _refer,
  "table": _table,
}  # fmt: skip
TEXTS = ("text", "options")  # whose answers stand in the record
MASKED = ("segment", "refer")  # whose answers hold the codes of masks
_OWN = {  # what a task adds to the values of templates
  "options": ("indexed_choices", "indexed_answer"), "detect": ("label",), "segment": ("label",),
  "refer": ("sentence",),
}  # fmt: skip
