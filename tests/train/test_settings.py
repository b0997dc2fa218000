"""The config: what is wrong with it, and whether it is the one of the workdir."""

import json
import re

import pytest

from paligemma_jax import errors
from paligemma_jax.data import sources
from paligemma_jax.train import provenance, settings
from paligemma_jax.transfers import common


def config(**changes):
  c = common.base(res=0)
  c.model.update(preset="tiny", init="")
  c.train.data.mine = common.jsonl("train.jsonl")
  c.evals.val = common.evaluate(common.jsonl("val.jsonl"), "exact_match")
  c.update_from_flattened_dict(changes)
  return c


def test_the_recipe_s_values_are_filled_in():
  c = settings.check(config(**{"train.recipe": "attention_sgd"}))
  assert (c.train.optimizer, c.train.lr) == ("sgd", 0.03)
  assert c.train.schedule.warmup_percent == 0.10


def test_nested_dicts_with_some_keys_are_a_config_too():
  data = {"mine": dict(common.jsonl("train.jsonl"))}
  c = settings.check({"model": {"preset": "tiny", "init": ""}, "train": {"data": data}})
  assert c.train.batch_size == common.base().train.batch_size


@pytest.mark.parametrize("kind", common.SOURCES)
def test_every_kind_of_source_has_its_own_keys(kind):
  source = common.SOURCES[kind]("somewhere", augment=("random_flip",))
  assert set(sources.SOURCES[kind].KEYS) <= set(source)
  c = config()
  c.train.data.other = source
  c.evals.other = common.evaluate(source, "exact_match")
  assert settings.check(c).train.data.other.to_dict() == source.to_dict()


def test_kinds_of_sources_are_the_same_in_configs_and_in_code():
  assert common.SOURCES.keys() == sources.SOURCES.keys()


def test_checking_twice_is_checking_once():
  c = settings.check(config())
  assert settings.check(c) == c


@pytest.mark.parametrize(
  "wrong, message",
  [
    ({"trian": {}}, 'config has no key "trian"; did you mean "train"?'),
    ({"train": {"batchsize": 8}}, 'config has no key "train.batchsize"; did you mean "batch_size"'),
    ({"train": {"batch_size": "8"}}, "config.train.batch_size takes int (e.g. 256), found '8'"),
    ({"train": {"batch_size": True}}, "config.train.batch_size takes int"),
    ({"train": {"batch_size": 0}}, "train.batch_size must be a whole number from 1 to"),
    ({"train": 3}, "config.train is a group of keys, found 3"),
    ({"train": {"data": {"x": {"pth": "a"}}}}, 'no key "train.data.x.pth"; did you mean "path"?'),
    ({"train": {"data": {"x": {"kind": "tfds", "where": ""}}}}, 'no key "train.data.x.where"'),
    ({"evals": {"val": {"data": {"kind": "hf", "splt": ""}}}}, 'did you mean "split"?'),
    ({"model": {"init": "", "preset": ""}}, "model.init is empty, and so is model.preset: name"),
    ({"input": {"alpha": "wite"}}, 'input.alpha: "wite" is unknown; did you mean "white"'),
    ({"input": {"max_unreadable": -1}}, "input.max_unreadable must be a whole number from 0 to"),
    ({"train": {"recipe": "ful"}}, 'did you mean "full"'),
    ({"train": {"schedule": {"decay_type": "cosin"}}}, 'did you mean "cosine"'),
    ({"train": {"schedule": {"warmup": 1}}}, '"warmup" is no option of cosine'),
    ({"mesh": "fsp"}, 'mesh: "fsp" is unknown; did you mean "fsdp"?'),
    ({"evals": {"val": {"metric": "exact"}}}, 'evals.val.metric: "exact" is unknown'),
    (
      {"evals": {"val": {"every": 2.0}}},
      "evals.val.every must be a fraction of the training, above 0",
    ),
    ({"model": {"preset": "big"}}, 'model.preset: "big" is unknown'),
  ],
)
def test_mistakes_are_named(wrong, message):
  c = config().to_dict()
  for key, value in wrong.items():
    c[key] = merge(c.get(key), value)
  with pytest.raises(errors.UserError, match=re.escape(message)):
    settings.check(c)


def merge(a, b):
  return {**a, **{k: merge(a.get(k), v) for k, v in b.items()}} if isinstance(b, dict) and a else b


def test_all_mistakes_of_a_kind_are_reported_at_once():
  with pytest.raises(errors.UserError) as e:
    settings.check({"sead": 1, "mash": "fsdp"})
  assert len(str(e.value).splitlines()) == 2


def test_another_config_on_the_same_workdir_stops_with_a_table(tmp_path):
  settings.store(settings.check(config()), tmp_path)
  settings.check_stored(settings.check(config()), tmp_path)  # the same: nothing happens
  changed = {"seed": 7, "train.batch_size": 128}
  with pytest.raises(errors.UserError) as e:
    settings.check_stored(settings.check(config(**changed)), tmp_path)
  message = str(e.value)
  assert re.search(r"seed +0 +7", message) and re.search(r"train.batch_size +256 +128", message)
  assert "--config.resume=override" in message
  settings.check_stored(settings.check(config(resume="override", **changed)), tmp_path)


def test_other_data_on_the_same_workdir_stop_with_a_table(tmp_path):
  c = settings.check(config())
  settings.check_data(c, tmp_path, {"mine": "aa"})  # the first start
  for data in ({"mine": "aa", "more": "bb"}, {"mine": "aa", "more": "cc"}):
    provenance.write(tmp_path, {"step": 0, "data": data})
  settings.check_data(c, tmp_path, {"mine": "aa", "more": "cc"})
  with pytest.raises(errors.UserError, match="runs.jsonl: the data have changed; use") as e:
    settings.check_data(c, tmp_path, {"mine": "aa", "more": "dd"})
  assert re.findall(r"train.data.*", str(e.value)) == ["train.data.more  'cc'    'dd'"]
  settings.check_data(settings.check(config(resume="override")), tmp_path, {"mine": "dd"})


@pytest.mark.parametrize("key, value", [("mesh", "single"), ("log_every", 1), ("train.workers", 2)])
def test_what_does_not_change_the_result_may_differ(tmp_path, key, value):
  settings.store(settings.check(config()), tmp_path)
  settings.check_stored(settings.check(config(**{key: value})), tmp_path)


def test_a_run_that_is_older_than_a_key_goes_on_with_its_default(tmp_path):
  stored = settings.plain(settings.check(config()))
  del stored["input"]["alpha"], stored["train"]["data"]["mine"]["augment"]
  (tmp_path / settings.CONFIG).write_text(json.dumps(stored))
  settings.check_stored(settings.check(config()), tmp_path)
  with pytest.raises(errors.UserError, match="input.alpha +'' +'white'"):
    settings.check_stored(settings.check(config(**{"input.alpha": "white"})), tmp_path)


@pytest.mark.parametrize(
  "text", ['{"seed": 1', '{"train": 1}', '{"evals": {"x": 1}}', "[1]", "\xff", "[" * 9999]
)
def test_a_stored_config_that_is_none_is_named(tmp_path, text):
  (tmp_path / settings.CONFIG).write_text(text, encoding="latin-1")
  with pytest.raises(errors.UserError, match="config.json is no config of a run"):
    settings.check_stored(settings.check(config()), tmp_path)


def test_override_is_not_stored(tmp_path):
  settings.store(settings.check(config(resume="override")), tmp_path)
  assert '"resume": ""' in (tmp_path / settings.CONFIG).read_text()
