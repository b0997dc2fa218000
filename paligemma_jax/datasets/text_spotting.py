"""What the sets of words in photos share.

A box is the tightest one around a word's polygon. Words that cannot be read are marked: answers
leave them out, and scores overlook what is found there.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from paligemma_jax import errors
from paligemma_jax.datasets import dataset, pictures, raw

_UNREAD = "###"  # text of a word that cannot be read
_ENDINGS = (".jpg", ".JPG", ".png", ".jpeg", ".gif")
Word = tuple[str, Sequence[float], Sequence[float]]  # text, x and y of its corners in pixels


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "words": f.Sequence({"bbox": f.BBoxFeature(), "text": f.Text(), "illegible": np.bool_}),
  }


def listed(folder: raw.Folder, place: str, pattern: str) -> list[str]:
  """Paths below the raw folder of the files of a pattern, sorted; raises MissingFile for none."""
  found = sorted(p.name for p in (folder.root / place).glob(pattern))
  if not found:
    path = folder.root / place / pattern
    raise raw.MissingFile(f"{path}: no such file", path)
  return [f"{place}/{name}" for name in found]


def of_corners(
  folder: raw.Folder, place: str, pattern: str, photos: Sequence[str], count: int
) -> dataset.Records:
  """One for each file of lines "x1,y1,…,x4,y4,word" (count 8) or "…,script,word" (count 9).

  Args:
    folder: the official files.
    place: folder of the text files.
    pattern: of their names; without "gt_" they are those of the photos.
    photos: folders in which these may be.
    count: commas before the word.
  """
  for name in listed(folder, place, pattern):
    found = []
    for i, line in enumerate(folder.text(name), 1):
      if not line.strip():
        continue
      folder.place = f"{folder.root / name}:{i}"
      *parts, word = line.split(",", count)
      if len(parts) != count:
        raise errors.UserError(f"{folder.place}: {len(parts)} commas, wanted {count} and a word")
      numbers = [float(v) for v in parts[:8]]
      found.append((word, numbers[::2], numbers[1::2]))
    folder.place = str(folder.root / name)
    stem = name.rpartition("/")[2].removesuffix(".txt").removeprefix("gt_")
    yield record(folder, stem, photos, found)


def record(
  folder: raw.Folder,
  stem: str,
  photos: Sequence[str],
  words: Iterable[Word],
  unread: str = _UNREAD,
) -> tuple[str, dict]:
  """Key and features of a photo.

  Args:
    folder: the official files.
    stem: name of the photo, without ending.
    photos: folders in which it may be.
    words: what is written in it.
    unread: what the files say for a word that cannot be read; "" is always one.
  """
  names = [f"{p}/{stem}{e}" for p in photos for e in _ENDINGS]
  name = next((n for n in names if (folder.root / n).is_file()), names[0])
  picture = folder.picture(name)
  size, kept = picture.size(), []
  for said, x, y in words:
    box = pictures.unit_box(min(x), min(y), max(x), max(y), *size)
    is_unread = said.strip() in ("", unread)
    if box[0] < box[2] and box[1] < box[3]:
      text = _UNREAD if is_unread else said.strip()
      kept.append({"bbox": box, "text": text, "illegible": is_unread})
  return stem, {"image/id": stem, "image": picture, "words": kept}
