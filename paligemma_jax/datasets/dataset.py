"""What a builder says about itself: where its files come from, what they become, how many."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from paligemma_jax.datasets import raw

Records = Iterator[tuple[int | str, dict[str, Any]]]  # (key, feature -> value)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One prepared data set.

  Attributes:
    name: its folder below the data folder, "vqa" or "chartqa/human", as configs name it.
    version: of what is written, "1.0.0".
    features: of a record: a function of the module `tfds.features` that gives name -> feature.
    sizes: split -> published number of records, None where none is published.
    records: (raw folder, split) -> key and features of every record. Keys are unique in the split
      and, hashed as TFDS does, decide the order. A value may be a picture of `raw`, read when it
      is written.
    lenient: splits where a record whose picture is missing or broken is left out and counted, which
      is an error elsewhere: those without answers, and pictures and videos to be fetched one by
      one, of which some are gone. Without any picture the split is left out, as long as there is
      another.
    is_optional: built only when it is named, not with its task.
    is_partial: a split whose annotation file is missing is left out, as long as there is another.
  """

  name: str
  version: str
  features: Callable[[Any], dict[str, Any]]
  sizes: Mapping[str, int | None]
  records: Callable[[raw.Folder, str], Records]
  lenient: tuple[str, ...] = ()
  is_optional: bool = False
  is_partial: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
  """The official files of a task and the data sets that are made of them.

  Attributes:
    source: where the files come from.
    licence: of texts and pictures.
    layout: the files as they must lie below the raw folder, one or several a line.
    datasets: what is made of them.
  """

  source: str
  licence: str
  layout: str
  datasets: tuple[Dataset, ...]
