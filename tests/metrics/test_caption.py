import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_jax import metrics
from paligemma_jax.metrics import caption, meteor, ngrams, ptb
from tests.metrics import golden


@pytest.fixture(autouse=True)
def no_java(monkeypatch, request):
  """METEOR takes seconds: only where it is asked for."""
  if "parity" not in request.keywords:
    monkeypatch.setattr(shutil, "which", lambda name: None)


WORKED = {  # references, predictions, and by hand: CIDEr-D, BLEU-1.., ROUGE-L
  "A": (
    [["a b c"], ["d e f"]],
    ["a b c", "d e"],
    [7.5, 3.756471],
    [0.818731, 0.818731, 0.818731, 0.025891],
    [1, 0.772152],
  ),
  "B": (
    [["a dog runs", "the dog is running"], ["a cat sleeps", "a cat"]],
    ["a dog running", "a cat"],
    [2.121692, 4.243384],
    [1, 0.816497, 0.000009],
    [0.666667, 1],
  ),
  "C": (
    [["a dog"], ["a cat"], ["a dog"]],
    ["", "a cat", "dog"],
    [0, 5, 2.465518],
    [0.367879],
    [0, 1, 0.628866],
  ),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_examples(name):
  references, predictions, cider, bleu, rouge = WORKED[name]
  assert ngrams.cider(predictions, references) == pytest.approx(cider, abs=1e-6)
  got = ngrams.bleu(ngrams.bleu_counts(predictions, references).sum(axis=0))
  assert got[: len(bleu)] == pytest.approx(bleu, abs=1e-6)
  assert ngrams.rouge_l(predictions, references) == pytest.approx(rouge, abs=1e-6)


def _golden_rows():
  cases = golden.load("captions")["cases"]
  return cases, [{"prediction": c["prediction"], "suffix": c["references"]} for c in cases]


def test_golden_tokens():
  for case in _golden_rows()[0]:
    assert ptb.tokenize(case["prediction"]) == case["prediction_tok"]
    assert [ptb.tokenize(text) for text in case["references"]] == case["references_tok"]


def test_golden_scores():
  cases, rows = _golden_rows()
  want = golden.load("captions")["corpus"]
  got = caption.caption(rows)
  assert got["cider"] == pytest.approx(want["cider"], abs=1e-6)
  assert got["rouge-l"] == pytest.approx(want["rouge_l"], abs=1e-6)
  for n in range(1, 5):
    assert got[f"bleu-{n}"] == pytest.approx(want[f"bleu{n}"], abs=1e-6)
  assert caption.cider(rows) == {"cider": got["cider"]}
  for case, own in zip(cases, caption.caption.per_row(rows), strict=True):
    assert own["cider"] == pytest.approx(case["cider"], abs=1e-6)
    assert own["bleu-4"] == pytest.approx(case["bleu4"], abs=1e-6)
    assert own["rouge-l"] == pytest.approx(case["rouge_l"], abs=1e-6)


def test_golden_frequencies_depend_on_the_corpus():
  data, (_, rows) = golden.load("captions_subset"), _golden_rows()
  some = rows[: data["first_n"]]
  assert caption.cider(some)["cider"] == pytest.approx(data["cider"], abs=1e-6)
  per_image = [own["cider"] for own in caption.cider.per_row(some)]
  assert per_image == pytest.approx(data["cider_per_image"], abs=1e-6)
  alone = data["single_image_corpus"]
  got = caption.cider([rows[alone["index"]]])["cider"]
  assert got == pytest.approx(alone["cider"], abs=1e-6)


def test_a_rows_own_score_is_seen_in_its_corpus():
  rows = [{"prediction": p, "suffix": s} for p, s in [("a b c", "a b c"), ("x", "d e f")]]
  scored = metrics.with_scores(caption.cider, rows)
  assert [row["scores"]["cider"] for row in scored] == pytest.approx([7.5, 0])


def test_nocaps_domains_share_one_corpus():
  cases, rows = _golden_rows()
  domains = [caption.DOMAINS[i % 2] for i in range(len(rows))]
  got = caption.nocaps([{**row, "domain": d} for row, d in zip(rows, domains)])
  assert got.keys() == {"cider", "cider/in-domain", "cider/near-domain"}
  own = np.array([case["cider"] for case in cases])
  assert got["cider/in-domain"] == pytest.approx(own[::2].mean(), abs=1e-6)
  assert got["cider"] == pytest.approx(own.mean(), abs=1e-6)
  assert caption.nocaps(rows).keys() == {"cider"}


def test_rows_without_references_are_not_in_the_corpus():
  cases, rows = _golden_rows()
  more = rows[:10] + [{"prediction": "a dog", "suffix": []}, {"prediction": "a", "suffix": None}]
  assert caption.caption(more) == pytest.approx(caption.caption(rows[:10]))
  assert caption.caption.per_row(more)[-1] == {}


def test_bleu_is_drawn_again_from_its_counts():
  _, rows = _golden_rows()
  units, weigh = caption.caption.weighted(rows)
  drawn = np.random.default_rng(0).integers(units, size=units)
  got = weigh(np.bincount(drawn, minlength=units)[None].astype(float))
  want = caption.caption([rows[i] for i in drawn])
  for name in ("bleu-1", "bleu-4", "rouge-l"):
    assert got[name][0] == pytest.approx(want[name], abs=1e-9)


words = st.lists(st.sampled_from("a dog cat runs . on the street 's".split()), max_size=8)
captions = words.map(" ".join)


@given(
  st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=1, max_size=6),
  st.randoms(),
)
def test_neither_order_nor_white_space_nor_case_matters(pairs, random):
  rows = [{"prediction": p, "suffix": s} for p, s in pairs]
  want = caption.caption(rows)
  changed = [
    {"prediction": f" {p.upper().replace(' ', '  ')}\t", "suffix": random.sample(s, len(s))}
    for p, s in random.sample(pairs, len(pairs))
  ]
  assert caption.caption(changed) == pytest.approx(want, abs=1e-9)
  for name, value in want.items():
    assert 0 <= value <= (10 if name == "cider" else 1) + 1e-6


def test_the_only_references_repeated_score_the_most():
  texts = ["one two three four", "five six seven eight", "nine ten eleven twelve thirteen"]
  rows = [{"prediction": text, "suffix": text} for text in texts]
  got = caption.caption(rows)
  assert got["cider"] == pytest.approx(10)
  assert got["bleu-4"] == pytest.approx(1) and got["rouge-l"] == 1


@pytest.mark.parity
def test_golden_meteor():
  pytest.importorskip("pycocoevalcap")
  if shutil.which("java") is None:
    pytest.skip("no Java")
  cases, rows = _golden_rows()
  got = caption.caption(rows)
  assert got["meteor"] == pytest.approx(golden.load("captions")["corpus"]["meteor"], abs=1e-6)
  for case, own in zip(cases, caption.caption.per_row(rows), strict=True):
    assert own["meteor"] == pytest.approx(case["meteor"], abs=1e-6)
  low, high = metrics.interval(caption.caption, rows)["meteor"]
  assert low < got["meteor"] < high


def test_without_java_there_is_no_meteor():
  assert meteor.counts(("a",), (("a",),)) is None
  assert meteor.spice(("a",), (("a",),)) is None
