"""What the two sets of questions about satellite and aerial pictures share."""

import dataclasses
import functools
from collections.abc import Collection, Mapping

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_RANGES = ((0, "0{u}"), (10, "between 1{u} and 10{u}"), (100, "between 11{u} and 100{u}"))
_RANGES += ((1000, "between 101{u} and 1000{u}"),)
_THEIRS = {"test_2": "test_phili"}  # the splits that the files call otherwise


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
  folder: raw.Folder,
  split: str,
  prefix: str,
  picture: str,
  left_out: Collection[str],
  bins: Mapping[str, str],
) -> dataset.Records:
  """One for each active question whose type is not left out.

  Args:
    folder: the official files.
    split: "train", "val", "test" or "test_2".
    prefix: of the files, "LR_split" or "USGS_split".
    picture: path of a picture, with {} for its id.
    left_out: types of questions.
    bins: types whose answers become ranges -> their unit.
  """
  theirs = f"{prefix}_{_THEIRS.get(split, split)}"
  asked_rows = folder.rows(f"{theirs}_questions.json", "questions")
  given_rows = folder.rows(f"{theirs}_answers.json", "answers")
  for asked, given in zip(asked_rows, given_rows, strict=True):
    if not asked["active"] and not given["active"]:
      continue  # neither says more than its own id
    if asked["id"] != given.get("question_id"):
      raise errors.UserError(
        f"{folder.place}: is about question {given.get('question_id')}, where"
        f" {folder.root}/{theirs}_questions.json has {asked['id']}; the two files do not belong"
        " together"
      )
    if asked["type"] in left_out:
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


def both(
  name: str, sizes: Mapping[str, Mapping[str, int]], left_out: Collection[str], **settings
) -> tuple[dataset.Dataset, ...]:
  """The data sets NAME/nonum and NAME/all; the second is optional.

  Args:
    name: "rsvqa_lr" or "rsvqa_hr".
    sizes: "nonum" and "all" -> split -> published number of records.
    left_out: types of questions that are not in nonum.
    **settings: prefix, picture and bins of `records`.
  """
  return tuple(
    dataset.Dataset(
      name=f"{name}/{kind}",
      version="1.0.2",
      features=features,
      sizes=sizes[kind],
      records=functools.partial(records, left_out=left_out if kind == "nonum" else (), **settings),
      is_optional=kind == "all",
    )
    for kind in ("nonum", "all")
  )
