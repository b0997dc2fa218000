"""GrandStaff: staves of piano music and their **kern text, clean and distorted as by a scanner."""

import functools

from paligemma_jax.datasets import dataset, raw

_FILES = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}


def features(f):
  """Those of a record, of the module tfds.features."""
  return {
    "example_id": f.Text(),
    "image": f.Image(encoding_format="jpeg"),
    "kern": f.Text(),
  }


def records(ending: str, folder: raw.Folder, split: str) -> dataset.Records:
  """One for each staff; `ending` of its picture: "" or "_distorted"."""
  name = f"partitions_grandstaff/{_FILES[split]}"
  for i, line in enumerate(folder.text(name), 1):
    if not line.strip():
      continue
    folder.place = f"{folder.root / name}:{i}"
    staff = line.strip().rpartition(".")[0]
    with folder.partner():
      kern = "\n".join(folder.text(f"{staff}.krn"))
    yield (
      staff,
      {
        "example_id": staff,
        "image": folder.picture(f"{staff}{ending}.jpg"),
        "kern": kern,
      },
    )


TASK = dataset.Task(
  source="https://sites.google.com/view/multiscore-project/datasets",
  licence="see the page",
  layout="""
partitions_grandstaff/{train,val,test}.txt    paths of .krn files; some copies have them in types/
grandstaff/chopin/…/maj2_down_m-0-5.krn       as the lists name them
grandstaff/chopin/…/maj2_down_m-0-5.jpg
grandstaff/chopin/…/maj2_down_m-0-5_distorted.jpg
""",
  datasets=tuple(
    dataset.Dataset(
      name=f"grandstaff/{kind}",
      version="1.0.0",
      features=features,
      sizes=dict.fromkeys(_FILES),
      records=functools.partial(records, ending),
    )
    for kind, ending in (("clean", ""), ("distorted", "_distorted"))
  ),
)
