"""Every key of a config has a range, and what lies outside is refused before anything is made."""

import math
import pathlib
import re

import pytest

from paligemma_jax import errors
from paligemma_jax.cli import config
from paligemma_jax.train import loop, ranges, settings
from paligemma_jax.transfers import common

ROOT = pathlib.Path(__file__).resolve().parents[2]


def valid():
  c = common.base(res=0)
  c.model.update(preset="tiny", init="")
  c.train.data.mine = common.jsonl("train.jsonl", task="detect")
  c.evals.val = common.evaluate(common.jsonl("val.jsonl"), "exact_match")
  c.expect["val/acc"] = {"scores": ("val/acc",), "value": 0.5, "std": None, "source": "a paper"}
  c.train.schedules.part = {"params": "img/.*", "decay_type": "linear", "end": 0.1}
  return c.copy_and_resolve_references().to_dict()


def changed(path, value):
  """The valid config with one other value."""
  c = valid()
  *groups, key = path.split(".")
  holder = c
  for group in groups:
    holder = holder[group]
  holder[key] = value
  return c


def test_every_key_of_a_config_has_a_range():
  assert set(config.paths(common.base())) - {"train.schedule.decay_type"} == {
    *ranges.CONFIG,
    "train.schedule.warmup_percent",
  }
  assert set(ranges.EVALUATION) == {*common.evaluate(common.jsonl(""), "")} - {"data"}
  assert set(ranges.SOURCE) == {key for make in common.SOURCES.values() for key in make("")}
  assert {"decay_type", "warmup_percent"} < set(ranges.SCHEDULE)
  settings.check(valid())


@pytest.mark.parametrize("path", [p for p, r in ranges.CONFIG.items() if r is not ranges._TEXT])
def test_every_range_has_an_end(path):
  """Each key that is no free text refuses something of its own type."""
  now = ranges.functools.reduce(lambda part, key: part[key], path.split("."), valid())
  kinds = {bool: [], int: [-1, 2**32], float: [-1.0, math.nan, math.inf, -math.inf]}
  kinds |= {str: ["no such / name"], tuple: [(("(", 1.0),), ("(",), (3,)], type(None): [math.nan]}
  for value in kinds[type(now)]:
    assert ranges.problems(changed(path, value)), f"{path}={value!r}"


@pytest.mark.parametrize(
  "path, value, words",
  [
    ("seed", -1, "seed must be a whole number from 0 to 4294967295; found -1"),
    ("model.res", -5, "model.res must be a whole number from 0 to"),
    ("model.dropout", 1.5, "model.dropout must be a number from 0 to below 1; found 1.5"),
    ("model.settings.attn_logits_softcap", -1.0, "must be a finite number from 0 on, or None"),
    ("model.settings.query_pre_attn_norm", "rsqrt", '"rsqrt" is unknown; known: '),
    ("train.steps", -3, "train.steps must be a whole number from 0 to"),
    ("train.epochs", 0.0, "train.steps and train.epochs are both 0"),
    ("train.lr", -1.0, "train.lr must be a finite number from 0 on; found -1.0"),
    ("train.lr", 10**400, "train.lr must be a finite number from 0 on"),
    ("train.lr", math.nan, "train.lr must be a finite number from 0 on; found nan"),
    ("train.b1", 2.0, "train.b1 must be a number from 0 to below 1"),
    ("train.mu_dtype", "float99", 'train.mu_dtype: "float99" is unknown; did you mean "float32"?'),
    ("train.grad_clip_norm", -1.0, "train.grad_clip_norm must be"),
    ("train.lr_mults", (("img/.*", -1.0),), "pairs of a regular expression and a finite number above"),
    ("train.lr_mults", (("(", 1.0),), 'train.lr_mults: "(" is no regular expression'),
    ("train.freeze", (3,), "train.freeze must be regular expressions; found (3,)"),
    ("train.schedule.warmup_percent", 5.0, "train.schedule.warmup_percent must be a number from 0"),
    ("train.schedules.part.end", math.inf, "train.schedules.part.end must be a finite number"),
    ("train.schedules.part.params", "(", 'train.schedules.part.params: "(" is no regular'),
    ("train.data.mine.weight", math.inf, "train.data.mine.weight must be a finite number from 0"),
    ("train.data.mine.augment", ("fli",), 'train.data.mine.augment: augment: "fli" is unknown'),
    ("train.data.mine.draw", "al", 'train.data.mine.draw: "al" is unknown; known: any'),
    ("evals.val.data.frames", -1, "evals.val.data.frames must be a whole number from 0"),
    ("evals.val.max_new_tokens", 0, "evals.val.max_new_tokens must be a whole number from 1"),
    ("evals.val.sampler", "top_k:0", 'evals.val.sampler: sampler "top_k:0"'),
    ("evals.val.constrain", "detct", 'evals.val.constrain: constrain "detct" is unknown'),
    ("evals.val.limit", -1, "evals.val.limit must be"),
    ("expect.val/acc.value", math.nan, "expect.val/acc.value must be a finite number; found nan"),
    ("mesh", "data=0", 'mesh: "data=0" is unknown'),
    ("mesh", "data=-1,fsdp=-1", 'mesh: "data=-1,fsdp=-1" is unknown'),
    ("wandb", "a/b/c", "wandb must be `PROJECT`, `ENTITY/PROJECT`"),
    ("build", "digts", 'build: "digts" is unknown; did you mean "digits"?'),
  ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_before_the_workdir_exists(tmp_path, path, value, words):
  with pytest.raises(errors.UserError, match=re.escape(words)):
    loop.train(changed(path, value), tmp_path / "workdir")
  assert list(tmp_path.iterdir()) == []


def test_an_evaluation_may_be_told_by_some_of_its_keys():
  c = valid()
  c["evals"] = {"val": {"data": {"path": "val.jsonl"}, "metric": "exact_match"}}
  assert settings.check(c).evals.val.sampler == "greedy"


def test_the_document_has_the_same_table():
  text = (ROOT / "docs/config.md").read_text().partition("## Values\n")[2]
  wanted = [f"| `{key}` | {words} |" for key, words in ranges.table()]
  assert re.findall(r"^\| `.*", text, re.M) == wanted
