"""Golden metric data. Another set of the same format: $PALIGEMMA_GOLDEN_METRICS."""

import json
import os
import pathlib

DIR = pathlib.Path(
  os.environ.get("PALIGEMMA_GOLDEN_METRICS")
  or pathlib.Path(__file__).parent.parent / "data/metrics"
)


def load(name: str) -> dict:
  """The content of `NAME.json`."""
  return json.loads((DIR / f"{name}.json").read_text())
