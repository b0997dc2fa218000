"""Fields of a data set -> prefix, suffix and truth, as the reference makes them of the same fields."""

import pytest

from paligemma_jax.data import choices, layout, tasks
from tests.metrics import golden
from tests.transfers import references

CASES = golden.load("prompts")["cases"]
TRUTHS = ("captions", "answers", "answer")


def draft(source, fields):
  """(record, first draft, rules) of a source's config for the fields of one example."""
  keys = {key: source[key] for key in ("fields", "boxes", "max_images")}
  pictures = {theirs: b"" for theirs in layout.Layout(**keys).image_features}
  record = layout.Layout(**keys).record(pictures | fields, "case")
  rules = tasks.Rules.of(source)
  return record, tasks.drafts(record, rules)[0], rules


@pytest.mark.parametrize("case", [c for c in CASES if "train" in c], ids=lambda c: c["task"])
def test_training(case):
  c = references.module(case["config"]).get_config()
  source = next(iter(c.train.data.values()))
  _, made, _ = draft(source, case["fields"])
  assert {"prefix": made.prefix, "suffix": made.suffix} == case["train"]


@pytest.mark.parametrize("case", [c for c in CASES if "eval" in c], ids=lambda c: c["task"])
def test_evaluation(case):
  c = references.module(case["config"]).get_config()
  name, want = references.evaluation(case["eval_name"], case["config"]), case["eval"]
  record, made, rules = draft(c.evals[name].data, case["fields"])
  assert made.prefix == want["prefix"]
  values = choices.indexed(record) if rules.task == "options" else record
  found, truth = tasks.answers(record, rules, values), next(want[k] for k in TRUTHS if k in want)
  alone = "captions" in want and isinstance(found, str)  # a list of one elsewhere scores a third
  assert ([found] if alone else found) == truth
  if "question_id" in want:
    assert record["id"] == want["question_id"]
