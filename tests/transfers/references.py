"""What the papers and big_vision say about every transfer, and how its evaluations are called here."""

import functools
import importlib
import json
import pathlib
import re

ENTRIES = json.loads((pathlib.Path(__file__).parent / "transfers.json").read_text())
# Entry -> our config, where it is not the entry's own.
PARENTS = {
  "nocaps": "cococap", "xm3600": "coco35l", "mmvp": "vqav2", "xgqa": "gqa", "marvl": "nlvr2",
  "countbenchqa": "tallyqa", "objaverse_multiview": "vqav2", "paligemma2_mix": "mix",
  "multitask_27": "multitask",
}  # fmt: skip


@functools.cache
def module(name: str):
  """The config module of an entry."""
  return importlib.import_module(f"paligemma_jax.transfers.{PARENTS.get(name, name)}")


def evaluation(reference: str, config: str) -> str:
  """Our name of an evaluation: "vqav2/minival/pplx" -> "minival_pplx", "xgqa/test_zs_bn/decode" -> "xgqa_bn"."""
  name = reference.removesuffix("/decode").removeprefix(f"{config}/").removeprefix("seg/")
  name = re.sub(r"^(pope)/", "", name)
  return re.sub(r"^(xgqa|marvl)_test_(zs_)?", r"\1_", name.replace("/", "_"))
