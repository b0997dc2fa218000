"""Objaverse-LVIS: things in eight views each, and their category.

The views that PaliGemma was trained on are not published: render your own. One thing in ten, by a
hash of its name, is held out.
"""

from paligemma_jax.datasets import dataset, raw


def features(f):
  """Those of a record, of the module tfds.features. (There is no builder of the reference.)"""
  return {
    "uid": f.Text(),
    "frames": f.Sequence(f.Image(encoding_format="png")),
    "category": f.Text(),
  }


def records(folder: raw.Folder, split: str) -> dataset.Records:
  """One for each thing; its views in the order of their names."""
  name = "lvis-annotations.json.gz"
  for category, things in folder.json(name).items():
    for uid in things:
      folder.place = f"{folder.root / name}: {category}, {uid}"
      if raw.is_held_out(uid) == (split == "test"):
        yield (
          uid,
          {
            "uid": uid,
            "frames": folder.frames(f"renders/{uid}"),
            "category": category.replace("_", " "),
          },
        )


TASK = dataset.Task(
  source="https://objaverse.allenai.org",
  licence="ODC-By 1.0; each thing under its own Creative Commons terms",
  layout="""
lvis-annotations.json.gz
renders/8476c4170df24cf5bbe6967222d1a42d/{0,…,7}.png    your own views
""",
  datasets=(
    dataset.Dataset(
      name="objaverse",
      version="1.0.0",
      features=features,
      sizes={"train": None, "test": None},
      records=records,
      lenient=("train", "test"),
    ),
  ),
)
