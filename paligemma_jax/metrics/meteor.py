"""METEOR and SPICE through pycocoevalcap's Java tools; absent where they or Java are."""

import functools
import importlib.util
import pathlib
import shutil
import subprocess

import numpy as np

_STAGES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75  # for English
_CHUNKS = 20  # column of the statistics


@functools.lru_cache(maxsize=2)
def counts(hypotheses: tuple[str, ...], references: tuple[tuple[str, ...], ...]):
  """What `meteor` needs of every image, float64[N, 23], to be summed; None without the tool.

  Args:
    hypotheses, references: tokenised, at least one reference for each.
  """
  jar = _package("meteor", "meteor-1.5.jar")
  if jar is None:
    return None
  lines = [
    " ||| ".join(["SCORE", *texts, hypothesis.replace("|||", "").replace("  ", " ")])
    for hypothesis, texts in zip(hypotheses, references, strict=True)
  ]
  command = ["java", "-Xmx2G", "-jar", jar, "-", "-", "-stdio", "-l", "en", "-norm"]
  done = subprocess.run(
    command, input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8", check=True
  )
  table = [[float(v) for v in line.split()] for line in done.stdout.splitlines()]
  return _without_whole_chunks(np.array(table, np.float64))


def meteor(sums: np.ndarray) -> np.ndarray:
  """METEOR 0..1, float64[...], of summed `counts` float64[..., 23].

  Source: Denkowski and Lavie, Meteor Universal, WMT 2014; the parameters of meteor-1.5 for English.
  """
  lengths, functions = sums[..., :2], sums[..., 2:4]  # of hypothesis and reference
  matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # stage, kind of word, side
  weighted = _DELTA * matches[..., 0, :] + (1 - _DELTA) * matches[..., 1, :]
  weighted = (_STAGES[:, None] * weighted).sum(axis=-2)
  with np.errstate(divide="ignore", invalid="ignore"):
    shares = weighted / (_DELTA * (lengths - functions) + (1 - _DELTA) * functions)
    precision, recall = shares[..., 0], shares[..., 1]
    mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    parts = sums[..., _CHUNKS] / (sums[..., 21:23].sum(axis=-1) / 2)
    return np.nan_to_num(mean * (1 - _GAMMA * parts**_BETA))


@functools.lru_cache(maxsize=2)
def spice(hypotheses: tuple[str, ...], references: tuple[tuple[str, ...], ...]):
  """SPICE of every image, float64[N] in 0..1; None where the tool's models were never fetched."""
  if _package("spice", "lib", "stanford-corenlp-3.6.0.jar") is None:
    return None
  from pycocoevalcap.spice.spice import Spice

  truths = {i: list(texts) for i, texts in enumerate(references)}
  _, found = Spice().compute_score(truths, {i: [text] for i, text in enumerate(hypotheses)})
  return np.array([one["All"]["f"] for one in found], np.float64)


def _without_whole_chunks(table: np.ndarray) -> np.ndarray:
  """A match of all words in one chunk is not in pieces."""
  whole = (table[:, _CHUNKS] == 1) & (table[:, 21:23] == table[:, :2]).all(axis=1)
  table[whole, _CHUNKS] = 0
  return table


def _package(*parts: str) -> pathlib.Path | None:
  """A file of pycocoevalcap, None unless it and Java are there."""
  spec = importlib.util.find_spec("pycocoevalcap")
  if spec is None or shutil.which("java") is None:
    return None
  file = pathlib.Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)
  return file if file.exists() else None
