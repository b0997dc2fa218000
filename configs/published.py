"""Published scores as plain data, from the tables that stand in the configs of transfers.

A table is {score: {res: "PaliGemma 3B 10B 28B"}}, the last three being PaliGemma 2, for example

  "eval/cider": {224: "141.9±0.3 141.3±0.5 143.7±0.2 144.0±0.3", 448: "144.6±0.5 - 145.0±0.3"}

in the units of the papers: per cent, CIDEr times 100; "-" or nothing where none is published. A score
is EVALUATION/METRIC, "{a,b}/acc" the mean of several evaluations, "-val/cer" one where lower is
better. "minival/acc (tune)" holds for what was trained without `final`. "82.1@t15" is from another
place than the tables of main results, see `PLACES`.
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


def scores(
  table: dict[str, dict[int, str]], res: int, variant: str, final: bool
) -> dict[str, dict]:
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
  found = {}
  for key, by_res in table.items():
    name, tune, _ = key.partition(" (tune)")
    numbers = by_res.get(res, "").split()
    column = COLUMNS.index(variant)
    if (tune and final) or column >= len(numbers) or numbers[column] == "-":
      continue
    value, std, place = _NUMBER.fullmatch(numbers[column]).groups()
    found[name] = {
      "scores": tuple(expanded(name)),
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
