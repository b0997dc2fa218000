"""What can be wrong with a record, told from the record alone, and findings by kind.

`of_record` is what training stops at, `of_texts` what `data check` tells besides: a run can go on
with it, but it is hardly meant. Both yield (kind, text); one line per kind is told.
"""

import difflib
import os
import re
import sys
from collections.abc import Iterator

from paligemma_jax import errors
from paligemma_jax.data import files, tasks
from paligemma_jax.processing import boxes, tokenizer

NOTES = frozenset(
  [
    "edges",
    "box cut",
    "box left out",
    "nothing left",
    "empty prefix",
    "tokens of no box",
    "another answer",
    "trained on itself",
    "round trip",
  ]
  + ["one colour", "few levels", "nothing to be seen"]
)
_TYPES = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}
_OBJECT = {
  "label": "a string",
  "sentences": "a list of strings",
  "box": "[x0, y0, x1, y1]",
  "mask": "a path or run lengths",
}
_KEYS = {"segment": ("label", "box", "mask"), "refer": ("sentences", "box")}  # by task
_LONG_NAME = 300  # letters: more of a path are of a picture in base64
_SHOWN = 8  # places that a line names besides the first
LABEL_END = re.compile("[;<>]")  # see `boxes.parse_boxes`
_TOKEN = re.compile(r"<(?:loc|seg)-?\d+>")
_TOKENS = frozenset([*tokenizer.LOC, *tokenizer.SEG])


class Report:
  """Findings of one source, by kind.

  Attributes:
    found: kind -> index of the record -> text, the first of the kind in it.
  """

  def __init__(self, source):
    self.source = source
    self.found: dict[str, dict[int, str]] = {}

  def add(self, kind: str, i: int, text: str) -> None:
    """Notes what is wrong with record i."""
    text = text.encode("utf-8", "backslashreplace").decode()  # a half character cannot be printed
    self.found.setdefault(kind, {}).setdefault(i, text)

  def lines(self) -> dict[str, str]:
    """Kind -> one line: the first place, what is wrong there and what to do, and the others."""
    return {kind: self._line(sorted(found.items())) for kind, found in self.found.items()}

  def _line(self, found: list[tuple[int, str]]) -> str:
    (i, text), *others = found
    if others:
      places = ", ".join(self.source.place(k).rpartition(":")[2] for k, _ in others[:_SHOWN])
      more = ", …" if len(others) > _SHOWN else ""
      lines = "lines" if len(others) > 1 else "line"
      text += f" (the same kind in {len(others)} more: {lines} {places}{more})"
    return f"{self.source.place(i)}: {text}"


def of_record(
  record: dict, rules: tasks.Rules, name: str, answered: bool = True
) -> Iterator[tuple[str, str]]:
  """Keys that are missing, of another type than they should be, or of a value that cannot be.

  Args:
    record: as its source gives it.
    rules: how it becomes an example.
    name: config path of the source, for what to set; one without a dot is of no config.
    answered: whether an answer is needed; those of a test split may be empty, and so may the
      objects of a data set that nobody can edit.
  """
  if not answered and rules.lacks_objects(record):
    return
  found = list(_of_keys(record, rules, name, answered))
  yield from found or _of_drafts(record, rules, answered)


def _of_keys(record, rules, name, answered):
  if "image" not in record:
    yield _missing(record, "image", "")
  elif not _strings(record["image"], kinds=(str, bytes)):
    yield _wrong("image", record["image"], "a path or a list of paths")
  for field in rules.fields():
    key = field.partition("[")[0]
    if key not in record:
      text = f'no key "{field}" for the prefix "{rules.prefix}"'
      yield f"field {field}", text + errors.did_you_mean(field, record)
  if rules.outline and not _is_unit_box(record.get(rules.outline)):
    found = repr(record[rules.outline]) if rules.outline in record else "none"
    yield "outline", f'"{rules.outline}" is to be drawn: y0, x0, y1, x1 in 0..1; found {found}'
  if rules.task in tasks.TEXTS:
    yield from _text_keys(record, rules, name, answered)
  else:
    yield from _object_keys(record, rules)


def of_source(source, rules: tasks.Rules) -> Iterator[tuple[str, str]]:
  """Keys that a library made something else of than the texts that they were."""
  used = ["prefix", rules.suffix, *rules.fields(), *rules.answer_fields()]
  used += ["objects/label", "objects/sentences"] if rules.task not in tasks.TEXTS else []
  for key in dict.fromkeys(used):
    if key in source.changed:
      yield (
        f"changed {key}",
        f'"{key}" is of the type {source.changed[key]}, which `datasets` makes of texts such as'
        " 2024-01-31; give the column the type string and save it, or read the file as JSONL",
      )


def _of_drafts(record, rules, answered):
  """What only turns out when the question is put together."""
  try:
    drafts = tasks.drafts(record, rules)
  except errors.UserError as e:
    yield "question", str(e)
  except tasks.UNFIT as e:
    yield "question", f"no {rules.task} example can be made of it ({type(e).__name__}: {e})"
  else:
    if answered and all(d.suffix is None for d in drafts):
      yield "no answer", f'it says that it has no answer ("{rules.suffix}"); leave it out'


def of_mended(source, i: int) -> Iterator[tuple[str, str]]:
  """What reading record i changes: one line for each kind, with the number of its boxes."""
  by_kind = {}
  for kind, text in source.mended(i):
    by_kind.setdefault(kind, []).append(text)
  for kind, texts in by_kind.items():
    yield kind, texts[0] + (f", {len(texts) - 1} more of this record too" if texts[1:] else "")


def of_texts(record: dict, rules: tasks.Rules) -> Iterator[tuple[str, str]]:
  """Texts that are well-formed but hardly meant: empty ones, and tokens that do not exist."""
  if rules.task not in tasks.TEXTS:
    return
  prefix, suffix = record.get("prefix"), record.get(rules.suffix)
  if not rules.prefix and isinstance(prefix, str) and not prefix.strip():
    yield "empty prefix", '"prefix" is empty: nothing is asked; write a prompt'
  if isinstance(suffix, str) and not suffix.strip():
    yield "empty suffix", f'"{rules.suffix}" is empty; write the answer or remove the record'
  answers = suffix if isinstance(suffix, list) else [suffix]
  for k, answer in enumerate(answers):
    if isinstance(suffix, list) and isinstance(answer, str) and not answer.strip():
      yield "empty alternative", f'"{rules.suffix}"[{k}] is empty; write it or remove it'
    if isinstance(answer, str) and answer.startswith("<loc") and not _all_are_boxes(answer):
      text = f'"{rules.suffix}" holds <loc…> tokens that make no box: wanted y0 x0 y1 x1 of each,'
      yield "tokens of no box", f"{text} y0 < y1, x0 < x1"
  for key, text in (("prefix", prefix), *((rules.suffix, a) for a in answers)):
    for found in _TOKEN.findall(text) if isinstance(text, str) else ():
      if found not in _TOKENS:
        text = f'"{key}" holds {found}, which is no token; they are <loc0000> to <loc1023> and'
        yield "no such token", f"{text} <seg000> to <seg127>"


def _all_are_boxes(answer: str) -> bool:
  return answer.count("<loc") == 4 * len(boxes.parse_boxes(answer, 1, 1))


def of_objects(objects: list[dict], height: int, width: int) -> Iterator[tuple[str, str]]:
  """Boxes outside their picture and run lengths of another size, for a picture of this size."""
  for k, item in enumerate(objects):
    if is_box(item.get("box")):
      try:
        boxes.check_box(item["box"], height, width, f"objects[{k}].box")
      except errors.UserError as e:
        yield "outside", str(e)
    mask = item.get("mask")
    if isinstance(mask, dict) and mask.get("size") not in ([height, width], (height, width)):
      yield (
        "mask size",
        f"objects[{k}].mask has the size {mask.get('size')}, the picture [{height}, {width}];"
        ' "size" is [height, width] of the whole picture',
      )


def no_file(what: str, path: str) -> tuple[str, str] | None:
  """The problem of a missing local file.

  Args:
    what: "image" or "mask".
    path: of the file; a URL is not looked at.
  """
  if files.is_url(path) or os.path.isfile(path):
    return None
  name = path if len(path) <= _LONG_NAME else f"{path[:_LONG_NAME]}…"
  return f"{what} file", f"no {what} file {name}; correct the path in the record"


def is_box(box) -> bool:
  """Whether it is [x0, y0, x1, y1] with an area."""
  numbers = isinstance(box, list) and len(box) == 4
  if not numbers or not all(
    isinstance(v, int | float) and abs(v) <= sys.float_info.max for v in box
  ):
    return False
  return box[0] < box[2] and box[1] < box[3]


def _is_unit_box(box) -> bool:
  try:
    values = [float(v) for v in box]
  except (TypeError, ValueError, OverflowError):
    return False
  return len(values) == 4 and all(abs(v) < 100 for v in values)  # edges outside are not drawn


def _text_keys(record, rules, name, answered):
  if not rules.prefix:
    if "prefix" not in record:
      yield _missing(record, "prefix", _or_set(name, 'prefix="{{{}}}"'))
    elif not isinstance(record["prefix"], str):
      yield _wrong("prefix", record["prefix"], "a string")
    else:
      yield from _half_characters("prefix", record["prefix"])
  key, several = rules.suffix, rules.answer_fields()
  if several or "{" in key:
    for field in several:
      if field not in record:
        text = f'no key "{field}" for the suffix "{key}"{errors.did_you_mean(field, record)}'
        yield f"field {field}", text
    return
  if key not in record:
    yield _missing(record, key, _or_set(name, "suffix={}"))
  elif not answered and record[key] in ([], [""]):
    return
  elif record[key] != "" and not _strings(record[key], allow_empty_string=True):
    yield _wrong(key, record[key], "a string or a list of strings")
  else:
    for text in record[key] if isinstance(record[key], list) else [record[key]]:
      yield from _half_characters(key, text)


def _object_keys(record, rules):
  objects = record.get("objects")
  if rules.task == "detect" and tasks.named_boxes(record, rules):
    return
  if "objects" not in record:
    yield _missing(record, "objects", "")
    return
  if not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
    yield _wrong("objects", objects, 'a list of {"label", "box"}')
    return
  if rules.lacks_objects(record):
    yield "no objects", f'"objects" is empty; a {rules.task} example needs one'
  if rules.task == "table":  # its empty cells have neither text nor box
    if "structure" not in record:
      yield _missing(record, "structure", "")
    return
  for k, item in enumerate(objects):
    for key in _KEYS.get(rules.task, ("label", "box")):
      if key not in item:
        kind, text = _missing(item, key, "")
        yield kind, f"objects[{k}]: {text}"
      elif item[key] is None:
        yield f"type {key}", _wrong(f"objects[{k}].{key}", None, _OBJECT[key])[1]
    label, box, mask = item.get("label"), item.get("box"), item.get("mask")
    if label is not None:
      yield from _label(label, f"objects[{k}].label")
    if box is not None and not is_box(box):
      yield "box", f"objects[{k}].box is {box}; wanted [x0, y0, x1, y1] in pixels, x0 < x1, y0 < y1"
    if mask is not None and not isinstance(mask, str | bytes | dict):
      yield "type mask", _wrong(f"objects[{k}].mask", mask, _OBJECT["mask"])[1]


def _label(label, place):
  if not isinstance(label, str):
    yield "type label", _wrong(place, label, _OBJECT["label"])[1]
    return
  broken, end = list(_half_characters(place, label)), LABEL_END.search(label)
  yield from broken
  if not broken and (end or not label.strip()):
    what = f'"{label}" holds "{end[0]}", which ends a label in answers' if end else "is empty"
    yield "label", f"{place} {what}; rename it"


def _half_characters(key, text):
  try:
    text.encode()
  except UnicodeEncodeError as e:
    half = f"\\u{ord(text[e.start]):04x}"
    yield "half a character", f'"{key}" holds {half} alone, half of a character; write it whole'


def _or_set(name: str, setting: str) -> str:
  """What else would help, for `_missing`; nothing where the source is a file without a config."""
  return f" or set --config.{name}.{setting}" if "." in name else ""


def _missing(record, key, setting) -> tuple[str, str]:
  """`setting` may hold a {} for the key that was probably meant; without one it is left out."""
  found = ", ".join(map(str, list(record)[:12])) or "nothing"
  near = difflib.get_close_matches(key, [k for k in record if k != key], n=1, cutoff=0.6)
  todo = f"Rename the key{setting.format(near[0])}" if near else f'Add "{key}"'
  if not near and setting and record:
    todo += setting.format("KEY")
  return f"no {key}", f'no key "{key}" (found: {found}). {todo}'


def _wrong(key, value, wanted) -> tuple[str, str]:
  kind = _TYPES.get(type(value), "null" if value is None else "a number")
  empty = "empty " if isinstance(value, str | list | dict) and not value else ""
  return (
    f"type {key}",
    f'"{key}" is {kind if not empty else f"an {empty}{kind[2:].strip()}"}; wanted {wanted}',
  )


def _strings(value, allow_empty_string=False, kinds=(str,)) -> bool:
  values = value if isinstance(value, list) else [value]
  return bool(values) and all(isinstance(v, kinds) and (v or allow_empty_string) for v in values)
