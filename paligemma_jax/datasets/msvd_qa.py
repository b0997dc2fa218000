"""MSVD-QA: questions made from the captions of MSVD's short clips, answered in a word."""

import functools

from paligemma_jax.datasets import dataset, msrvtt_qa, video

TASK = dataset.Task(
  source="https://github.com/xudejing/video-question-answering",
  licence="see the page; videos belong to their owners",
  layout=f"""
{{train,val,test}}_qa.json
{video.LAYOUT.replace("{name}", "vid1")}
""",
  datasets=(
    dataset.Dataset(
      name="msvd_qa",
      version="1.0.0",
      features=msrvtt_qa.features,
      sizes={"train": 24670, "valid": 5107, "test": 10136},  # of videos the reference could load
      records=functools.partial(msrvtt_qa.records, prefix="vid"),
      lenient=("train", "valid", "test"),
    ),
  ),
)
