import shutil
import subprocess
import sys

import numpy as np
import pytest

from paligemma_jax import errors, metrics

ROW = {
  "prediction": "a",
  "suffix": "a",
  "objects": [{"label": "a", "box": [0, 0, 2, 2], "mask": None}],
  "pred_objects": [],
  "nll_sum": 0.8,
  "nll_avg": 0.4,
}
# What single metrics need in another form.
OWN = {
  "vqa_v2": {"suffix": ["a"] * 10},
  "pope": {"suffix": "yes"},
  "pope_official": {"suffix": "yes"},
  "tallyqa": {"suffix": "2"},
  **dict.fromkeys(
    ("masks", "refseg"),
    {"objects": [{"label": "a", "box": [0, 0, 2, 2], "mask": np.ones((2, 2), bool)}]},
  ),
  "teds": {"suffix": "<table><tr><td>a</td></tr></table>"},
  "molecules": {"suffix": "C"},
}


# What needs a library that may not be there.
LIBRARIES = {"teds": "apted", "molecules": "rdkit", "radgraph": "radgraph"}


@pytest.fixture(params=metrics.METRICS)
def name(request, monkeypatch):
  monkeypatch.setattr(shutil, "which", lambda name: None)  # METEOR takes seconds
  if request.param in LIBRARIES:
    pytest.importorskip(LIBRARIES[request.param])
  return request.param


def test_every_metric_gives_named_numbers(name):
  row = ROW | OWN.get(name, {})
  scores = metrics.resolve(name)([row, row])
  assert scores
  for key, value in scores.items():
    assert isinstance(key, str) and type(value) is float
    assert (
      0 <= value <= (2 if key in ("invalid", "total") or key.startswith("num/") else 1)
    )  # of this row perplexity, too


OF_OBJECTS = ("boxes", "detection", "boxes_ap", "text_spotting", "masks", "refseg")
NOTHING = [{"suffix": None, "objects": None}, {"suffix": [], "objects": []}]
NOTHING += [{"objects": [{**ROW["objects"][0], "iscrowd": 1, "ignore": True}], "suffix": []}]


@pytest.mark.parametrize("truth", [None, *NOTHING])
def test_every_metric_refuses_where_there_is_nothing_to_compare_with(name, truth):
  rows = [] if truth is None else [{k: v for k, v in ROW.items() if "nll" not in k} | truth] * 2
  what = "masks" if name in ("masks", "refseg") else "objects" if name in OF_OBJECTS else "answers"
  message = f"^no {what} to compare with in {len(rows)} examples; .+$"
  with pytest.raises(errors.UserError, match=message):
    metrics.resolve(name)(rows)


@pytest.mark.parametrize(
  "of_objects, of_texts",
  [("cat", 5), ([5], [5]), ([{"label": "a"}], [None]), ([{"box": [0, 0, 1]}], {"a": "b"})],
)
def test_every_metric_refuses_a_truth_of_another_kind(name, of_objects, of_texts):
  if name == "perplexity":
    return  # its rows were measured
  row = ROW | OWN.get(name, {})
  wrong = row | ({"objects": of_objects} if name in OF_OBJECTS else {"suffix": of_texts})
  with pytest.raises(errors.UserError, match="; wanted "):
    metrics.resolve(name)([row, wrong])


def test_rows_without_a_truth_do_not_keep_others_from_their_score(name):
  row = ROW | OWN.get(name, {})
  one_of_each = ("pope", "pope_official", "mmvp", "tallyqa", "science_qa", "perplexity")
  if name in one_of_each:
    return  # their data have an answer for every question
  empty = {**row, "suffix": [], "objects": []}
  assert metrics.resolve(name)([row, row, empty])


def test_every_metric_says_of_each_row_how_good_it_is(name):
  row = ROW | OWN.get(name, {})
  both = metrics.with_scores(metrics.resolve(name), [row, row])
  assert all(one["scores"] for one in both)
  assert all(type(value) is float for one in both for value in one["scores"].values())


def test_every_metric_has_intervals(name):
  row = ROW | OWN.get(name, {})
  score = metrics.resolve(name)
  got, point = metrics.interval(score, [row] * 4, samples=20), score([row] * 4)
  assert got.keys() == {key for key in point if key != "total" and not key.startswith("num/")}
  for key, (low, high) in got.items():  # of equal rows every sample is the same
    assert low == pytest.approx(point[key]) and high == pytest.approx(point[key])


def test_boxes_ap_is_what_boxes_and_detection_say_of_the_same_rows():
  hit, miss = {**ROW, "pred_objects": ROW["objects"]}, ROW
  rows = [hit, miss, hit]
  parts = metrics.METRICS["boxes"], metrics.METRICS["detection"]
  joined = metrics.METRICS["boxes_ap"]
  assert joined(rows) == parts[0](rows) | parts[1](rows)
  both = (part.per_row(rows)[0] for part in parts)
  assert joined.per_row(rows)[0] == {name: v for one in both for name, v in one.items()}
  sure = metrics.interval(joined, rows)
  assert sure["AP50"] == metrics.interval(parts[1], rows)["AP50"]
  assert sure.keys() == joined(rows).keys()


@pytest.mark.parametrize(
  "name, extra", [("teds", "metrics"), ("molecules", "metrics"), ("radgraph", "radgraph")]
)
def test_a_library_that_is_not_there_is_named_with_its_extra(name, extra, monkeypatch):
  monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
  row = ROW | OWN.get(name, {})
  with pytest.raises(errors.UserError, match=rf"pip install paligemma_jax\[{extra}\]"):
    metrics.resolve(name)([{**row, "prediction": row["suffix"]}])


def test_an_unknown_metric_names_the_place_and_the_nearest():
  with pytest.raises(errors.UserError, match=r'evals.val.metric.*did you mean "exact_match"'):
    metrics.resolve("exct_match", "evals.val.metric")


def test_a_function_is_a_metric_and_none_scores_nothing():
  assert metrics.resolve(lambda rows: {"n": len(rows)})([ROW]) == {"n": 1}
  assert metrics.resolve("")([ROW]) == {}
  assert metrics.resolve(None)([ROW]) == {}


def test_scores_of_single_rows():
  rows = [ROW, {**ROW, "prediction": "b"}]
  got = metrics.with_scores(metrics.resolve("exact_match"), rows)
  assert [row["scores"] for row in got] == [{"exact_match": 1}, {"exact_match": 0}]
  assert metrics.with_scores(lambda rows: {"n": 1}, rows)[0]["scores"] == {}


def test_metrics_load_no_framework():
  code = (
    "import sys, paligemma_jax.metrics; print({'jax', 'torch', 'tensorflow'} & set(sys.modules))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "set()"
