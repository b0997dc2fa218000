"""RSVQA-HR: questions about aerial pictures of the USGS, made from OpenStreetMap."""

from paligemma_jax.datasets import dataset, rsvqa

TASK = dataset.Task(
  source="https://zenodo.org/records/6344367",
  licence="CC BY 4.0",
  layout="""
USGS_split_{train,val,test,test_phili}_{questions,answers}.json
Data/0.png    converted, where the download has .tif
""",
  datasets=rsvqa.both(
    "rsvqa_hr",
    {
      "nonum": {"train": 371834, "val": 60405, "test": 131468, "test_2": 62554},
      "all": {"train": 625340, "val": 102843, "test": 222684, "test_2": 105647},
    },
    left_out=("area", "count"),
    bins={"area": " m2"},
    prefix="USGS_split",
    picture="Data/{}.png",
  ),
)
