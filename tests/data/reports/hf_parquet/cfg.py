"""cfg.py:path=plain_struct.parquet or cppe.parquet, tokenizer=FILE"""

from paligemma_jax.transfers import common


def get_config(arg):
  a = common.args(arg, path="plain_struct.parquet", tokenizer="")
  c = common.base(0, 64)
  c.model.update(init="", preset="tiny")
  c.input.tokenizer = a.tokenizer
  fields = (("prefix", "q"), ("suffix", "a"))
  task = "text"
  if "cppe" in a.path:
    task, fields = (
      "detect",
      (("objects/box", "objects/bbox"), ("objects/label", "objects/category")),
    )
  c.train.data.x = common.hf(a.path, "train", task=task, fields=fields)
  c.train.steps, c.train.batch_size = 2, 2
  return c
