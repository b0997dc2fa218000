"""Record -> Example: its pictures, read, and one of the questions that `tasks` makes of it."""

from collections.abc import Callable, Sequence

import numpy as np

from paligemma_jax import errors, structs
from paligemma_jax.data import choices, files, sources, tasks
from paligemma_jax.processing import augment as augments
from paligemma_jax.processing import draw, image, masks

_EMBEDDED = 24  # records of an evaluation whose pictures its report can show


class UnreadableImage(errors.UserError):
  """A picture of a record is missing, damaged or none; all else about the record may be right."""


class Unanswered(UnreadableImage):
  """A record without answers or objects, which nobody can edit; so it counts as unreadable."""


def make(
  source: sources.Source,
  i: int,
  rules: tasks.Rules,
  *,
  choose: Callable[[int], int] = lambda n: 0,
  codes: tasks.Codes | None = None,
  mirrored_codes: tasks.Codes | None = None,
  extras: bool = False,
  rng: np.random.Generator | None = None,
  order: Sequence[int] | None = None,
  res: int = 0,
  resize: str = "",
  alpha: str = "drop",
) -> structs.Example:
  """Reads record i and its pictures.

  Args:
    source: where the record lies.
    i: its index.
    rules: how to read it.
    choose: number of drafts, or of objects where `rules.draw` says so -> index of the one to take.
    codes: as in `drafts`.
    mirrored_codes: the same of the mirrored picture, where `rules.augment` may mirror it.
    extras: whether to fill Example.extras for the evaluators: all keys of the record, with "id"
      (its own, else i), "image" (resolved paths; of pictures inside the record, `data:` URLs for
      the first `_EMBEDDED` records, then the record's place), "suffix" (all answers), "height",
      "width" (of the picture that the objects refer to) and "objects" (those asked for, masks as
      bool[H, W]).
    rng: draws what `rules.augment` does, noise and sentences; None: all stays as it is.
    order: as in `drafts`.
    res: pixels a side that the model sees, for `rules.augment` and `rules.outline`; 0: the latter
      is drawn on the picture as it is.
    resize: how the picture becomes that small, for `rules.outline`, if `rules.resize` is "".
    alpha: as `image.decode`.

  Raises:
    UnreadableImage: a picture cannot be read, or a data set of others has no objects for it.
    errors.UserError: the record or another of its files cannot be used. Both name file and line.
  """
  place = source.place(i)
  try:
    record = source[i]
  except image.BadPicture as e:  # its size was needed for boxes from 0 to 1
    raise UnreadableImage(str(e)) from None
  if source.holds_pictures and rules.lacks_objects(record):
    raise Unanswered(f"{place}: no objects")
  is_text = rules.task in tasks.TEXTS
  if rules.frames and (shown := image_list(record)):
    record = {**record, "image": [shown[k] for k in tasks.frames(len(shown), rules, rng)]}
  try:
    pictures = read_images(record, source.folder, place, alpha)
    if rules.task == "detect":
      record = tasks.with_objects(record, rules, pictures[object_image(record)].shape[:2])
    if rng is not None and rules.augment:
      pictures, record, is_mirrored = _augmented(pictures, record, rules, rng, res)
      codes = mirrored_codes if is_mirrored else codes
    shapes = [picture.shape[:2] for picture in pictures]
    if rules.fit == "pad":
      pictures = [image.pad_to_square(picture) for picture in pictures]
    target = object_image(record)
    size = pictures[target].shape[:2]
    options = tasks.drafts(record, rules, size, codes, rng, order)
    if rules.outline:
      around = record[rules.outline]
      pictures = [_outlined(*p, around, rules, res, resize) for p in zip(pictures, shapes)]
    answer = tasks.answers(record, rules, _values(record, rules, order)) if is_text else None
  except KeyError as e:
    raise errors.UserError(f'{place}: no key "{e.args[0]}" in the record or its objects') from None
  except errors.UserError as e:
    raise _placed(e, place) from None
  draft = tasks.take(options, rules, choose, rng)
  text = f"{draft.prefix}{draft.suffix}"
  if is_text and augments.moves(rules.augment) and "<loc" in text:
    raise errors.UserError(
      f"{place}: <loc> tokens written in the text would be wrong after augment; give the boxes as"
      ' "objects", or take crops and flips out of augment'
    )
  kept = {}
  if extras:
    record = tasks.with_objects(record, rules, size)
    objects = [record["objects"][k] for k in draft.objects] if draft.objects else []
    others = record.get("objects")
    objects = objects or (others if isinstance(others, list) else [])
    has_stand_ins = codes is None and rules.task in tasks.MASKED and "<seg" in draft.suffix
    if not is_text and not has_stand_ins:
      answer = draft.suffix
    kept = {**record, "id": record.get("id", i), "prefix": draft.prefix, "suffix": answer}
    named = [_named(given, source.folder, place, i) for given in image_list(record)]
    kept |= {"image": named if isinstance(record["image"], list) else named[0]}
    kept |= {"height": size[0], "width": size[1]}
    if not isinstance(others, list):
      kept.pop("objects", None)  # of a data set that lays them out another way
    if objects:
      shape = shapes[target]
      kept["objects"] = [
        {**o, **_whole_mask(o, source.folder, shape, size, place)} for o in objects
      ]
  return structs.Example(pictures, draft.prefix, draft.suffix, kept)


def with_pictures(rows: list[dict], source: sources.Source, rules: tasks.Rules) -> list[dict]:
  """The rows of an evaluation with pictures where only the place of their record is named.

  Args:
    rows: their "image" is that of `make`'s extras; places become uint8[H, W, 3], all else stays.
    source, rules: as in `make`, of that evaluation.
  """
  first = [image_list(row)[0] if row.get("image") else None for row in rows]
  if not source.holds_pictures or all(image.is_data_url(given) for given in first):
    return rows
  numbers = {source.place(i): i for i in range(len(source))}
  out = []
  for row, place in zip(rows, first):
    if place in numbers:
      found = make(source, numbers[place], rules).images
      row = {**row, "image": found if isinstance(row["image"], list) else found[0]}
    out.append(row)
  return out


def read_images(record: dict, folder: str, place: str, alpha: str = "drop") -> list[np.ndarray]:
  """The record's pictures, uint8[H, W, 3] each.

  Args:
    record: its "image" is a path or the bytes of a file, or a list of them.
    folder: what relative paths start from.
    place: what an error begins with.
    alpha: as `image.decode`.

  Raises:
    UnreadableImage: one of them cannot be read.
  """
  pictures = []
  for k, given in enumerate(image_list(record)):
    try:
      if isinstance(given, bytes):
        pictures.append(image.decode(given, f"{place}: image {k}", alpha))
      else:
        path = files.join(folder, given)
        data = files.read_bytes(path, place)
        pictures.append(image.decode(data, f"{place}: {path}", alpha))
    except errors.UserError as e:
      raise UnreadableImage(str(e)) from None
  return pictures


def _augmented(pictures, record, rules, rng, res):
  """(pictures, record with its boxes moved along, whether the objects' picture was mirrored)."""
  objects = (record.get("objects") or []) if rules.task not in tasks.TEXTS else []
  target, changed = object_image(record), []
  for k, picture in enumerate(pictures):
    around = [o["box"] for o in objects] if k == target else []
    changed.append(augments.apply(picture, np.array(around), rules.augment, rng, res))
  moved = [{**o, "box": box.tolist()} for o, box in zip(objects, changed[target].boxes)]
  record = {**record, "objects": moved} if moved else record
  return [c.image for c in changed], record, changed[target].is_mirrored


def _values(record, rules, order) -> dict:
  """What the template of an answer may use."""
  return choices.indexed(record, order) if rules.task == "options" else record


def _outlined(picture, shape, box, rules, res, resize) -> np.ndarray:
  """With the outline of a box y0 x0 y1 x1 in 0..1 of the first `shape` pixels: what is not padding."""
  (height, width), (high, wide) = picture.shape[:2], shape
  scale = high / height, wide / width, high / height, wide / width
  if res:
    picture = image.resize(picture, res, rules.resize or resize)
  return draw.outline(picture, [v * s for v, s in zip(box, scale)])


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
  found = {_picture_of(o, paths) for o in objects if isinstance(o, dict)} or {len(paths) - 1}
  if len(found) > 1:
    raise errors.UserError(
      f"the objects of one example refer to several pictures, {sorted(found)} (without"
      ' "image": the last); split it'
    )
  return found.pop()


def _picture_of(item: dict, paths: list) -> int:
  which = item.get("image")
  if which is None:
    return len(paths) - 1
  if isinstance(which, str) and which in paths:
    return paths.index(which)
  if isinstance(which, int) and 0 <= which < len(paths):
    return which
  raise errors.UserError(f"objects refer to picture {which!r}; there are {len(paths)}")


def read_mask(
  mask: str | bytes | dict, folder: str, place: str = "", size: tuple[int, int] | None = None
) -> np.ndarray:
  """bool[H, W] of an object's mask.

  Args:
    mask: COCO RLE, or the path or the bytes of a picture (one channel; inside is what is brighter
      than half of its brightest pixel, so 0/1 and 0/255 both do).
    folder: what a relative path starts from.
    place: what an error begins with.
    size: height and width of the object's picture; None: unknown.

  Raises:
    errors.UserError: it cannot be read, or is of another size.
  """
  if isinstance(mask, dict):
    return masks.decode_rle(mask, place or "mask", size)
  name = "mask" if isinstance(mask, bytes) else files.join(folder, mask)
  data = mask if isinstance(mask, bytes) else files.read_bytes(name, place)
  grey = image.decode(data, f"{place}: {name}" if place else name).max(axis=-1)
  masks.check_size(grey.shape, size, place or "mask")
  return grey > grey.max() / 2


def _named(given: str | bytes, folder: str, place: str, i: int) -> str:
  """What stands for a picture in the rows of an evaluation."""
  if isinstance(given, str):
    return files.join(folder, given)
  return image.to_data_url(given) if i < _EMBEDDED else place


def _placed(error: errors.UserError, place: str) -> errors.UserError:
  return error if str(error).startswith(place) else errors.UserError(f"{place}: {error}")


def _whole_mask(item, folder, shape, size, place):
  """The mask of a picture of `shape`, padded as the picture is to `size`."""
  if item.get("mask") is None:
    return {}
  mask = read_mask(item["mask"], folder, place, shape)
  return {"mask": np.pad(mask, [(0, after - before) for before, after in zip(shape, size)])}
