"""What the two sets of questions about satellite and aerial pictures share."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_RANGES = ((0, "0{u}"), (10, "between 1{u} and 10{u}"), (100, "between 11{u} and 100{u}"))
_RANGES += ((1000, "between 101{u} and 1000{u}"),)


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "question_id": np.int32,
    "filename": f.Text(),
    "image": f.Image(),
    "question": f.Text(),
    "question_type": f.Text(),
    "answers": f.Sequence(f.Text()),  # one, numbers as ranges
    "raw_answers": f.Sequence(f.Text()),
  }


def binned(answer: str, unit: str) -> str:
  """A number as the range it is in: "7" -> "between 1 and 10"; `unit` is "" or " m2"."""
  number = int(answer.removesuffix("m2"))
  for most, words in _RANGES:
    if number <= most:
      return words.format(u=unit)
  return f"more than 1000{unit}"


def records(
  prefix: str,
  left_out: tuple[str, ...],
  bins: Mapping[str, str],
  picture: str,
  folder: raw.Folder,
  split: str,
) -> dataset.Records:
  """One for each active question whose type is not left out.

  Args:
    prefix: of the files, "LR_split" or "USGS_split".
    left_out: types of questions.
    bins: types whose answers become ranges -> their unit.
    picture: path of a picture, with {} for its id.
    folder: the official files.
    split: its name in theirs.
  """
  names = [f"{prefix}_{split}_{what}.json" for what in ("questions", "answers")]
  rows = (folder.rows(name, key) for name, key in zip(names, ("questions", "answers")))
  for asked, given in zip(*rows, strict=True):
    if (asked["active"], asked["id"]) != (given["active"], given.get("question_id")):
      raise errors.UserError(
        f"{folder.place}: is about question {given.get('question_id')}, where"
        f" {folder.root / names[0]} has {asked['id']}; the two files do not belong together"
      )
    if not asked["active"] or asked["type"] in left_out:
      continue
    file = picture.format(asked["img_id"])
    unit, answer = bins.get(asked["type"]), given["answer"]
    found = folder.picture(file)
    yield (
      asked["id"],
      {
        "question_id": asked["id"],
        "filename": file.rpartition("/")[2],
        "image": AsPng(found.path, found.place) if file.endswith(".tif") else found,
        "question": asked["question"],
        "question_type": asked["type"],
        "answers": [answer if unit is None else binned(answer, unit)],
        "raw_answers": [answer],
      },
    )


@dataclasses.dataclass(frozen=True)
class AsPng(pictures.Picture):
  """A picture of a kind that few readers know, stored as PNG."""

  def read(self) -> bytes:
    """The bytes to store."""
    return pictures.encode(self._decoded(), "PNG")


def both(name: str, sizes: Mapping[str, Mapping[str, int]], left_out, bins, **settings):
  """The data sets NAME/nonum and NAME/all; the second is optional.

  Args:
    name: "rsvqa_lr" or "rsvqa_hr".
    sizes: "nonum" and "all" -> split -> published number of records.
    left_out: types of questions that are not in nonum.
    bins: as in `records`.
    **settings: prefix and picture of `records`.
  """
  make = lambda kind: functools.partial(  # noqa: E731
    records, settings["prefix"], left_out if kind == "nonum" else (), bins, settings["picture"]
  )
  rename = settings.get("rename", {})
  return tuple(
    dataset.Dataset(
      name=f"{name}/{kind}",
      version="1.0.2",
      features=features,
      sizes=sizes[kind],
      records=functools.partial(_renamed, make(kind), rename),
      is_optional=kind == "all",
    )
    for kind in ("nonum", "all")
  )


def _renamed(found, rename, folder, split):
  return found(folder, rename.get(split, split))
