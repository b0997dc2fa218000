"""What captions are compared by: CIDEr-D, BLEU and ROUGE-L of tokenised texts.

Texts are strings of tokens with spaces between, as `ptb.tokenize` gives them.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4  # n-grams of 1 to 4 tokens
_SIGMA = 6.0  # CIDEr-D: how many bigrams more or less cost how much
_BETA = 1.2  # ROUGE-L: weight of recall
_TINY, _SMALL = 1e-15, 1e-9  # BLEU: in place of no match and of no n-gram, as pycocoevalcap


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
  """CIDEr-D of every image, 0..10; its mean is the corpus's. float64[N].

  Document frequencies are counted over the references given: an n-gram that is in the references
  of every image counts nothing, so a corpus of one image scores 0.

  Args:
    hypotheses: one per image.
    references: at least one per image.

  Source: Vedantam et al., arXiv:1411.5726, with pycocoevalcap's details.
  """
  counts = [[_ngrams(text) for text in texts] for texts in references]
  frequency = Counter(g for texts in counts for g in set().union(*texts))
  log_images = math.log(max(len(references), 1))
  idf = {g: log_images - math.log(n) for g, n in frequency.items()}
  scores = []
  for hypothesis, texts in zip(hypotheses, counts, strict=True):
    mine = _Vector(_ngrams(hypothesis), idf, log_images)
    similar = [mine.similarity(_Vector(text, idf, log_images)) for text in texts]
    scores.append(10 * sum(similar) / len(similar))
  return np.array(scores, np.float64)


def bleu_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
  """What `bleu` needs of every image, float64[N, 10], to be summed over images.

  Matches of 1 to 4 tokens, n-grams of 1 to 4 tokens, own length, length of the closest reference
  (of two equally close the shorter).
  """
  rows = []
  for hypothesis, texts in zip(hypotheses, references, strict=True):
    mine, most = _ngrams(hypothesis), Counter()
    for text in texts:
      most |= _ngrams(text)
    matches, length = [0] * ORDERS, len(hypothesis.split())
    for g, n in (mine & most).items():
      matches[len(g) - 1] += n
    closest = min((len(text.split()) for text in texts), key=lambda m: (abs(m - length), m))
    guesses = [max(0, length - order) for order in range(ORDERS)]
    rows.append([*matches, *guesses, length, closest])
  return np.array(rows, np.float64).reshape(-1, 2 * ORDERS + 2)


def bleu(counts: np.ndarray) -> np.ndarray:
  """BLEU-1 to BLEU-4, float64[..., 4], of summed `bleu_counts` float64[..., 10].

  Source: Papineni et al., ACL 2002, with pycocoevalcap's constants.
  """
  matches, guesses = counts[..., :ORDERS], counts[..., ORDERS : 2 * ORDERS]
  precision = (matches + _TINY) / (guesses + _SMALL)
  mean = np.exp(np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1))
  ratio = (counts[..., -2] + _TINY) / (counts[..., -1] + _SMALL)
  with np.errstate(over="ignore"):
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
  return mean * brevity[..., None]


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
  """ROUGE-L of every image, 0..1: F of the best precision and the best recall. float64[N].

  Source: Lin, ACL 2004 workshop, with pycocoevalcap's details.
  """
  scores = []
  for hypothesis, texts in zip(hypotheses, references, strict=True):
    tokens = hypothesis.split(" ")
    truths = [text.split(" ") for text in texts]
    common = [_common(tokens, truth) for truth in truths]
    precision = max(n / len(tokens) for n in common)
    recall = max(n / len(truth) for n, truth in zip(common, truths))
    both = recall + _BETA**2 * precision
    scores.append((1 + _BETA**2) * precision * recall / both if precision and recall else 0.0)
  return np.array(scores, np.float64)


class _Vector:
  """The n-grams of a text, weighed by how rare they are."""

  def __init__(self, counts: Counter, idf: dict, unseen: float):
    self.parts = [{} for _ in range(ORDERS)]
    for g, n in counts.items():
      self.parts[len(g) - 1][g] = n * idf.get(g, unseen)
    self.norms = [math.sqrt(sum(v * v for v in part.values())) for part in self.parts]
    self.bigrams = sum(n for g, n in counts.items() if len(g) == 2)

  def similarity(self, reference: "_Vector") -> float:
    """Mean over the orders of the clipped cosine, times the penalty of another length."""
    total = 0.0
    for mine, theirs, a, b in zip(self.parts, reference.parts, self.norms, reference.norms):
      if a and b:
        total += sum(min(v, theirs[g]) * theirs[g] for g, v in mine.items() if g in theirs) / (
          a * b
        )
    difference = self.bigrams - reference.bigrams
    return total / ORDERS * math.exp(-(difference**2) / (2 * _SIGMA**2))


def _ngrams(text: str) -> Counter:
  """How often each tuple of 1 to 4 tokens is in the text."""
  tokens = text.split()  # a no-break space inside a token parts it, as in pycocoevalcap
  starts = [tokens[i:] for i in range(ORDERS)]
  return Counter(itertools.chain.from_iterable(zip(*starts[:n]) for n in range(1, ORDERS + 1)))


def _common(a: list[str], b: list[str]) -> int:
  """Length of the longest common subsequence."""
  row = [0] * (len(b) + 1)
  for item in a:
    diagonal = 0
    for j, other in enumerate(b, 1):
      diagonal, row[j] = row[j], diagonal + 1 if item == other else max(row[j], row[j - 1])
  return row[-1]
