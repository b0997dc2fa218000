"""Record -> Example: what is asked about a picture and what should be answered.

One record can make several questions or have several answers; `drafts` lists them all. Training
draws one of them, evaluation takes the first, the length check measures every one.

  text      prefix and suffix as they stand; a list of suffixes gives one draft each
  detect    "detect cat ; dog" -> "<loc…>… cat ; <loc…>… dog"
  segment   "segment cat" -> box, 16 mask codes and label of every cat; one draft per label
"""

import dataclasses
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import files, sources
from paligemma_jax.processing import augment as augments
from paligemma_jax.processing import boxes, image, masks

# Mask codes of a record, per object; None where the object has no mask.
Codes = Sequence[tuple[int, ...] | None]
_NO_CODES = (0,) * 16  # stands in where only the length of the text matters
_EMBEDDED = 24  # records of an evaluation whose pictures its report can show


class UnreadableImage(errors.UserError):
  """A picture of a record is missing, damaged or none; all else about the record may be right."""


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
  suffix: str = "suffix"  # key of the answer, for the task "text"
  augment: augments.Steps = ()  # random changes of the pictures, in training only

  @classmethod
  def of(cls, config, name: str = "data") -> "Rules":
    """Reads the keys "task", "prefix", "suffix" and "augment" of a source config called `name`."""
    task = config.get("task") or "text"
    if task not in TASKS:
      raise errors.UserError(f'{name}.task: "{task}" is unknown{errors.did_you_mean(task, TASKS)}')
    prefix = config.get("prefix") or ""
    try:
      list(string.Formatter().parse(prefix))
    except ValueError as e:
      raise errors.UserError(
        f'{name}.prefix: "{prefix}" is no template ({e}); write {{field}}, and {{{{ for a brace'
      ) from None
    augment = augments.parse(config.get("augment") or (), f"{name}.augment")
    return cls(task, prefix, config.get("suffix") or "suffix", augment)

  def fields(self) -> list[str]:
    """Keys that the prefix template refers to."""
    return [field for _, field, _, _ in string.Formatter().parse(self.prefix) if field is not None]


def drafts(
  record: dict,
  rules: Rules,
  size: tuple[int, int] = (1024, 1024),
  codes: Codes | None = None,
) -> list[Draft]:
  """Every question and answer that the record may become, at least one.

  Args:
    record: as its source gives it.
    rules: how to read it.
    size: height and width in pixels of the picture that the boxes refer to. It changes the values
      of the loc tokens only, never their number.
    codes: mask codes per object, for "segment"; None writes code 0, of the same length.

  Raises:
    errors.UserError: a key is missing, without its place; `data.checks` names it.
  """
  return TASKS[rules.task](record, rules, size, codes)


def make(
  source: sources.Source,
  i: int,
  rules: Rules,
  *,
  choose: Callable[[int], int] = lambda n: 0,
  codes: Codes | None = None,
  mirrored_codes: Codes | None = None,
  extras: bool = False,
  rng: np.random.Generator | None = None,
  res: int = 0,
) -> structs.Example:
  """Reads record i and its pictures.

  Args:
    source: where the record lies.
    i: its index.
    rules: how to read it.
    choose: number of drafts -> index of the one to take.
    codes: as in `drafts`.
    mirrored_codes: the same of the mirrored picture, where `rules.augment` may mirror it.
    extras: whether to fill Example.extras for the evaluators: all keys of the record, with "id"
      (its own, else i), "image" (resolved paths; of pictures inside the record, `data:` URLs for
      the first `_EMBEDDED` records, then the record's place), "suffix" (all answers), "height",
      "width" (of the picture that the objects refer to) and "objects" (those asked for, masks as
      bool[H, W]).
    rng: draws what `rules.augment` does; None: the pictures stay as they are.
    res: pixels a side that the model sees, for `rules.augment`.

  Raises:
    UnreadableImage: a picture cannot be read.
    errors.UserError: the record or another of its files cannot be used. Both name file and line.
  """
  record, place = source[i], source.place(i)
  try:
    pictures = read_images(record, source.folder, place)
    if rng is not None and rules.augment:
      pictures, record, is_mirrored = _augmented(pictures, record, rules, rng, res)
      codes = mirrored_codes if is_mirrored else codes
    size = pictures[object_image(record)].shape[:2]
    options = drafts(record, rules, size, codes)
  except KeyError as e:
    raise errors.UserError(f'{place}: no key "{e.args[0]}" in the record or its objects') from None
  except errors.UserError as e:
    raise _placed(e, place) from None
  draft = options[choose(len(options))]
  text = f"{draft.prefix}{draft.suffix}"
  if rules.task == "text" and augments.moves(rules.augment) and "<loc" in text:
    raise errors.UserError(
      f"{place}: <loc> tokens written in the text would be wrong after augment; give the boxes as"
      ' "objects", or take crops and flips out of augment'
    )
  kept = {}
  if extras:
    objects = [record["objects"][k] for k in draft.objects] if draft.objects else []
    objects = objects or record.get("objects") or []
    answer = record.get(rules.suffix) if rules.task == "text" else draft.suffix
    answer = None if rules.task == "segment" and codes is None else answer  # not the stand-ins
    kept = {**record, "id": record.get("id", i), "prefix": draft.prefix, "suffix": answer}
    named = [_named(given, source.folder, place, i) for given in image_list(record)]
    kept |= {"image": named if isinstance(record["image"], list) else named[0]}
    kept |= {"height": size[0], "width": size[1]}
    if objects:
      kept["objects"] = [{**o, **_whole_mask(o, source.folder, size, place)} for o in objects]
  return structs.Example(pictures, draft.prefix, draft.suffix, kept)


def read_images(record: dict, folder: str, place: str) -> list[np.ndarray]:
  """The record's pictures, uint8[H, W, 3] each.

  Args:
    record: its "image" is a path or the bytes of a file, or a list of them.
    folder: what relative paths start from.
    place: what an error begins with.

  Raises:
    UnreadableImage: one of them cannot be read.
  """
  pictures = []
  for k, given in enumerate(image_list(record)):
    try:
      if isinstance(given, bytes):
        pictures.append(image.decode(given, f"{place}: image {k}"))
      else:
        path = files.join(folder, given)
        pictures.append(image.decode(files.read_bytes(path, place), f"{place}: {path}"))
    except errors.UserError as e:
      raise UnreadableImage(str(e)) from None
  return pictures


def _augmented(pictures, record, rules, rng, res):
  """(pictures, record with its boxes moved along, whether the objects' picture was mirrored)."""
  objects = (record.get("objects") or []) if rules.task != "text" else []
  target, changed = object_image(record), []
  for k, picture in enumerate(pictures):
    around = [o["box"] for o in objects] if k == target else []
    changed.append(augments.apply(picture, np.array(around), rules.augment, rng, res))
  moved = [{**o, "box": box.tolist()} for o, box in zip(objects, changed[target].boxes)]
  record = {**record, "objects": moved} if moved else record
  return [c.image for c in changed], record, changed[target].is_mirrored


def image_list(record: dict) -> list[str | bytes]:
  """The record's images: paths as written, or the bytes of files."""
  found = record["image"]
  return list(found) if isinstance(found, list) else [found]


def object_image(record: dict) -> int:
  """Index of the picture that the record's objects refer to: the last unless "image" says which.

  Raises:
    errors.UserError: they refer to several, or to one that is not there.
  """
  paths, objects = image_list(record), record.get("objects")
  objects = objects if isinstance(objects, list) else []
  named = [o["image"] for o in objects if isinstance(o, dict) and "image" in o]
  if not named:
    return len(paths) - 1
  which = named[0]
  if any(other != which for other in named):
    raise errors.UserError("the objects of one example refer to several pictures; split it")
  if isinstance(which, str) and which in paths:
    return paths.index(which)
  if isinstance(which, int) and 0 <= which < len(paths):
    return which
  raise errors.UserError(f"objects refer to picture {which!r}; there are {len(paths)}")


def read_mask(mask: str | bytes | dict, folder: str, place: str = "") -> np.ndarray:
  """bool[H, W] of an object's mask.

  Args:
    mask: COCO RLE, or the path or the bytes of a picture (one channel; inside is what is brighter
      than half of its brightest pixel, so 0/1 and 0/255 both do).
    folder: what a relative path starts from.
    place: what an error begins with.
  """
  if isinstance(mask, dict):
    return masks.decode_rle(mask)
  name = "mask" if isinstance(mask, bytes) else files.join(folder, mask)
  data = mask if isinstance(mask, bytes) else files.read_bytes(name, place)
  grey = image.decode(data, f"{place}: {name}" if place else name).max(axis=-1)
  return grey > grey.max() / 2


def _named(given: str | bytes, folder: str, place: str, i: int) -> str:
  """What stands for a picture in the rows of an evaluation."""
  if isinstance(given, str):
    return files.join(folder, given)
  return image.to_data_url(given) if i < _EMBEDDED else place


def _placed(error: errors.UserError, place: str) -> errors.UserError:
  return error if str(error).startswith(place) else errors.UserError(f"{place}: {error}")


def _whole_mask(item, folder, size, place):
  if item.get("mask") is None:
    return {}
  mask = read_mask(item["mask"], folder, place)
  if mask.shape != tuple(size):
    raise errors.UserError(
      f"{place}: a mask has {mask.shape[1]} x {mask.shape[0]} pixels, the picture"
      f" {size[1]} x {size[0]}; store masks at the size of their picture"
    )
  return {"mask": mask}


def _text(record, rules, size, codes):
  prefix = _prefix(record, rules, record) if rules.prefix else record["prefix"]
  answers = record.get(rules.suffix)
  answers = answers if isinstance(answers, list) else [answers]
  return [Draft(prefix, answer) for answer in answers or [None]]


def _detect(record, rules, size, codes):
  objects = record["objects"]
  if not objects and not rules.prefix:
    raise errors.UserError('"objects" is empty; a detect example needs one, or a prefix template')
  labels = " ; ".join(dict.fromkeys(o["label"] for o in objects))
  prefix = _prefix(record, rules, {**record, "label": labels}, "detect {label}")
  found = [structs.Box(o["label"], *o["box"]) for o in objects]
  return [Draft(prefix, boxes.format_boxes(found, *size), tuple(range(len(objects))))]


def _segment(record, rules, size, codes):
  objects = record["objects"]
  found = []
  for label in dict.fromkeys(o["label"] for o in objects):
    which = tuple(k for k, o in enumerate(objects) if o["label"] == label)
    shown = [
      structs.Box(label, *objects[k]["box"], codes=tuple(codes[k]) if codes else _NO_CODES)
      for k in which
    ]
    prefix = _prefix(record, rules, {**record, "label": label}, "segment {label}")
    found.append(Draft(prefix, boxes.format_boxes(shown, *size), which))
  if not found:
    raise errors.UserError('"objects" is empty; a segment example needs one')
  return found


def _prefix(record: dict, rules: Rules, values: dict[str, Any], default: str = "") -> str:
  try:
    return (rules.prefix or default).format_map(values)
  except (AttributeError, IndexError, TypeError, ValueError) as e:
    raise errors.UserError(f'the prefix "{rules.prefix}" does not fit the record ({e})') from None


TASKS = {"text": _text, "detect": _detect, "segment": _segment}
