"""Scores of captions: CIDEr-D, BLEU, ROUGE-L, and METEOR and SPICE where Java is present."""

import numpy as np

from paligemma_jax.metrics import meteor as java
from paligemma_jax.metrics import ngrams, ptb, scores, targets

DOMAINS = ("in-domain", "near-domain", "out-domain")  # of NoCaps
_BLEU = tuple(f"bleu-{n}" for n in range(1, ngrams.ORDERS + 1))


@scores.of_terms(alone=("cider",))
def cider(rows: list[dict]) -> scores.Terms:
  """CIDEr-D, raw (papers print it times 100), with document frequencies of all rows' references.

  A row's own score is what it adds to this corpus. So are intervals: the frequencies stay.

  Args:
    rows: one per image; "suffix" is one reference or a list. Rows without any are not counted.

  Returns:
    {"cider"}, 0..10.

  Source: pycocoevalcap, as big_vision's evaluators/proj/paligemma/transfers/coco_caption.py calls it.
  """
  return {"cider": _cider(*_tokenized(rows))}


@scores.of_terms(alone=("cider",))
def nocaps(rows: list[dict]) -> scores.Terms:
  """CIDEr-D of all images as one corpus, and the mean of each NoCaps domain within it.

  Args:
    rows: with "domain" ("in-domain", "near-domain" or "out-domain") where the domains are known.

  Returns:
    "cider", and "cider/in-domain", "cider/near-domain", "cider/out-domain" of those that are there.
    The official server counts document frequencies in files of its own.
  """
  values = _cider(*_tokenized(rows))
  domains = [row.get("domain") for row in rows]
  parts = {f"cider/{d}": scores.only(values, [one == d for one in domains]) for d in DOMAINS}
  return {"cider": values, **parts}


def _with_counts(sums: scores.Sums) -> dict[str, np.ndarray]:
  """BLEU and METEOR from their summed counts, the rest as quotients."""
  bleu, meteor = ([sums.pop(n) for n in list(sums) if n.startswith(p)] for p in ("_b", "_m"))
  values = scores.quotients(sums)
  counts, images = (np.stack(part, axis=-1) for part in zip(*bleu))
  has_any = images[..., 0] > 0
  found = ngrams.bleu(counts)
  out = {"cider": values.pop("cider")}
  out |= {name: np.where(has_any, v, np.nan) for name, v in zip(_BLEU, found.T)}
  out["rouge-l"] = values.pop("rouge-l")
  if meteor:
    counts = np.stack([top for top, _ in meteor], axis=-1)
    out["meteor"] = np.where(has_any, java.meteor(counts), np.nan)
  return out | values


@scores.of_terms(alone=("cider", "bleu-4", "rouge-l", "meteor", "spice"), finish=_with_counts)
def caption(rows: list[dict]) -> scores.Terms:
  """All caption scores: CIDEr-D, BLEU-1 to -4, ROUGE-L, and METEOR and SPICE where they can be had.

  Returns:
    "cider", 0..10; "bleu-1" … "bleu-4" of the whole corpus and "rouge-l", 0..1; "meteor" where
    pycocoevalcap and Java are installed, "spice" where its models are there as well.

  Source: pycocoevalcap.
  """
  predictions, references = _tokenized(rows)
  kept = [i for i, texts in enumerate(references) if texts]
  some = tuple(predictions[i] for i in kept), tuple(tuple(references[i]) for i in kept)
  images = np.isin(np.arange(len(rows)), kept).astype(np.float64)

  def spread(values):
    """Of the images that count -> of all rows, NaN elsewhere."""
    out = np.full((len(rows), *values.shape[1:]), np.nan)
    out[kept] = values
    return out

  terms = {"cider": _cider(predictions, references), "rouge-l": spread(ngrams.rouge_l(*some))}
  counted = {"_b": ngrams.bleu_counts(*some)}
  if kept and (counts := java.counts(*some)) is not None:
    counted["_m"] = counts
  if kept and (spice := java.spice(*some)) is not None:
    terms["spice"] = spread(spice)
  for prefix, counts in counted.items():
    columns = np.nan_to_num(spread(counts)).T
    terms |= {f"{prefix}{i}": (column, images) for i, column in enumerate(columns)}
  return terms


def _cider(predictions: list[str], references: list[list[str]]) -> np.ndarray:
  """CIDEr-D of every row, NaN of those without references, which the corpus does not hold."""
  kept = [i for i, texts in enumerate(references) if texts]
  values = np.full(len(references), np.nan)
  values[kept] = ngrams.cider([predictions[i] for i in kept], [references[i] for i in kept])
  return values


def _tokenized(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
  predictions = [ptb.tokenize(row["prediction"]) for row in rows]
  return predictions, [[ptb.tokenize(a) for a in targets.answers(row)] for row in rows]
