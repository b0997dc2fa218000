"""Published scores as plain data, from the tables that stand in the configs of transfers.

A line is a score, pixels a side, and its values for PaliGemma and for PaliGemma 2 of 3B, 10B, 28B:

  eval/cider        224  141.9±0.3 141.3±0.5 143.7±0.2 144.0±0.3
  tune:minival/acc  448  84.6@t15 84.8±0.2 - 85.8±0.2

in the units of the papers: per cent, CIDEr times 100; "-" or nothing where none is published. A score
is EVALUATION/METRIC, "avg={a,b}/acc" the mean of several evaluations under a name of its own,
"-val/cer" one where lower is better. "tune:" holds for what was trained without `final`. "@t15" is
from another place than the tables of main results, see `PLACES`.
"""

import itertools
import re

PAPERS = (
  "arXiv:2407.07726, table 1",
  *["arXiv:2412.03555, tables 13 and 14"] * 3,
)  # of the columns
COLUMNS = ("", "pg2_3b", "pg2_10b", "pg2_28b")
PLACES = {
  "readme": "big_vision, configs/proj/paligemma/README.md",
  "t4": "arXiv:2407.07726, table 4",
  "t15": "arXiv:2412.03555, table 15",
  "pg2": "arXiv:2412.03555, section 4",
}
_NUMBER = re.compile(r"([\d.]+)(?:±([\d.]+))?(?:@(\w+))?")


def scores(table: str, res: int, variant: str, final: bool) -> dict[str, dict]:
  """The scores of one checkpoint: name -> {"scores", "value", "std", "source"}.

  Args:
    table: as above.
    res: pixels a side.
    variant: a name in `COLUMNS`.
    final: whether the training holds the splits that published numbers were trained on.

  Returns:
    "scores" are the evaluations and metrics whose mean counts, "value" and "std" in the units of the
    metric (0..1, CIDEr not times 100; None where no deviation is published).
  """
  found, column = {}, COLUMNS.index(variant)
  for line in table.splitlines():
    key, pixels, *numbers = line.split()
    spec, number = key.removeprefix("tune:"), [*numbers, *"----"][column]
    if int(pixels) != res or number == "-" or (final and spec != key):
      continue
    label, _, spec = spec.rpartition("=")
    value, std, place = _NUMBER.fullmatch(number).groups()
    found[label or spec] = {
      "scores": tuple(expanded(spec)),
      "value": round(float(value) / 100, 6),
      "std": round(float(std) / 100, 6) if std else None,
      "source": PLACES[place] if place else PAPERS[column],
    }
  return found


def expanded(name: str) -> list[str]:
  """ "x_{a,b}/acc" -> "x_a/acc", "x_b/acc"; a leading "-" is dropped."""
  parts = re.split(r"\{([^{}]*)\}", name.removeprefix("-"))
  choices = [part.split(",") if k % 2 else [part] for k, part in enumerate(parts)]
  return ["".join(words) for words in itertools.product(*choices)]
