"""Scores of captions: CIDEr-D, BLEU, ROUGE-L, and METEOR and SPICE where Java is present."""

import numpy as np

from paligemma_jax.metrics import ngrams, ptb, scores, text

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


def _with_bleu(sums: scores.Sums) -> dict[str, np.ndarray]:
  counts, images = zip(*(sums.pop(name) for name in list(sums) if name.startswith("_bleu")))
  values = np.where(images[0] > 0, ngrams.bleu(np.stack(counts, axis=-1)).T, np.nan)
  rest = scores.quotients(sums)
  return {"cider": rest.pop("cider"), **dict(zip(_BLEU, values)), **rest}


@scores.of_terms(alone=("cider", "bleu-4", "rouge-l"), finish=_with_bleu)
def caption(rows: list[dict]) -> scores.Terms:
  """All caption scores: CIDEr-D, BLEU-1 to -4 and ROUGE-L.

  Returns:
    "cider", 0..10; "bleu-1" … "bleu-4" of the whole corpus and "rouge-l", 0..1.

  Source: pycocoevalcap.
  """
  predictions, references = _tokenized(rows)
  terms = {"cider": _cider(predictions, references)}
  kept = [i for i, texts in enumerate(references) if texts]
  some = [predictions[i] for i in kept], [references[i] for i in kept]
  counts = np.zeros((len(rows), 2 * ngrams.ORDERS + 2))
  counts[kept] = ngrams.bleu_counts(*some)
  images = np.isin(np.arange(len(rows)), kept).astype(np.float64)
  terms |= {f"_bleu{i}": (column, images) for i, column in enumerate(counts.T)}
  terms["rouge-l"] = np.full(len(rows), np.nan)
  terms["rouge-l"][kept] = ngrams.rouge_l(*some)
  return terms


def _cider(predictions: list[str], references: list[list[str]]) -> np.ndarray:
  """CIDEr-D of every row, NaN of those without references, which the corpus does not hold."""
  kept = [i for i, texts in enumerate(references) if texts]
  values = np.full(len(references), np.nan)
  values[kept] = ngrams.cider([predictions[i] for i in kept], [references[i] for i in kept])
  return values


def _tokenized(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
  predictions = [ptb.tokenize(row["prediction"]) for row in rows]
  return predictions, [[ptb.tokenize(a) for a in text.answers(row)] for row in rows]
