"""RSVQA-LR: questions about Sentinel-2 pictures, made from OpenStreetMap."""

from paligemma_jax.datasets import dataset, rsvqa

TASK = dataset.Task(
  source="https://zenodo.org/records/6344334",
  licence="CC BY 4.0",
  layout="""
LR_split_{train,val,test}_{questions,answers}.json
Images_LR/0.tif
""",
  datasets=rsvqa.both(
    "rsvqa_lr",
    {
      "nonum": {"train": 39441, "val": 6782, "test": 6782},
      "all": {"train": 57223, "val": 10005, "test": 10004},
    },
    left_out=("count",),
    bins={"count": ""},
    prefix="LR_split",
    picture="Images_LR/{}.tif",
  ),
)
