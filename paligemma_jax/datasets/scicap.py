"""SciCap: captions of figures in papers of arXiv; the transfers use first_sentence_subfig_no."""

import functools
import itertools

from paligemma_jax.datasets import dataset, raw

_SUBSETS = {
  "first_sentence": "First-Sentence",
  "single_sentence": "Single-Sentence-Caption",
  "leq_100_tokens": "Caption-No-More-Than-100-Tokens",
}
_SIZES = {("first_sentence", "no"): {"train": 106834, "val": 13354, "test": 13355}}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "image/id": f.Text(),
    "image/filename": f.Text(),
    "image": f.Image(encoding_format="png"),
    "caption/originally_extracted": f.Text(),
    "caption/lowercase_and_token_and_remove_figure_index": f.Text(),
    "caption/normalized/basic_num": f.Text(),
    "caption/normalized/advanced_equation_bracket": f.Text(),
  }


def records(subset: str, subfig: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each figure that the list of a subset names; `subfig` is "yes" or "no"."""
  kind = subfig.title()
  names = f"List-of-Files-for-Each-Experiments/{_SUBSETS[subset]}/{kind}-Subfig/{split}"
  for name in folder.rows(f"{names}/file_idx.json"):
    figure = name.removesuffix(".png")
    with folder.partner():
      row = folder.json(f"SciCap-Caption-All/{split}/{figure}.json")
    normal = row["2-normalized"]
    yield (
      name,
      {
        "image/id": figure,
        "image/filename": name,
        "image": folder.picture(f"SciCap-{kind}-Subfig-Img/{split}/{name}"),
        "caption/originally_extracted": row["0-originally-extracted"],
        "caption/lowercase_and_token_and_remove_figure_index": row[
          "1-lowercase-and-token-and-remove-figure-index"
        ]["caption"],
        "caption/normalized/basic_num": normal["2-1-basic-num"]["caption"],
        "caption/normalized/advanced_equation_bracket": normal[
          "2-2-advanced-euqation-bracket"  # as the files have it
        ]["caption"],
      },
    )


TASK = dataset.Task(
  source="https://github.com/tingyaohsu/SciCap",
  licence="CC BY-NC-SA 4.0",
  layout="""
SciCap-Caption-All/{train,val,test}/1001.0025v1-Figure2-1.json
SciCap-{No,Yes}-Subfig-Img/{train,val,test}/1001.0025v1-Figure2-1.png
List-of-Files-for-Each-Experiments/{First-Sentence,…}/{No,Yes}-Subfig/{train,val,test}/file_idx.json
""",
  datasets=tuple(
    dataset.Dataset(
      name=f"scicap/{subset}_subfig_{subfig}",
      version="1.0.0",
      features=features,
      sizes=_SIZES.get((subset, subfig), dict.fromkeys(("train", "val", "test"))),
      records=functools.partial(records, subset, subfig),
      is_optional=(subset, subfig) not in _SIZES,
    )
    for subset, subfig in itertools.product(_SUBSETS, ("no", "yes"))
  ),
)
