"""The config that people copy: its two faces, and what it says to a misspelt argument."""

import json

import pytest

from paligemma_jax import errors
from paligemma_jax.train import embedded, recipes
from paligemma_jax.transfers import common, forkme

YOURS = "train=my/train.jsonl,val=my/val.jsonl,init=pt_224.npz,tokenizer=tokenizer.model"


@pytest.mark.parametrize("arg", [None, "", YOURS, YOURS + ",res=448,recipe=attention_sgd"])
def test_config_is_plain_data(arg):
  c = forkme.get_config(arg).lock()
  assert json.loads(json.dumps(c.to_dict()))["seed"] == 0
  assert str(c)


def test_without_arguments_the_embedded_default_is_built_and_trained_from_scratch(
  monkeypatch, tmp_path
):
  monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path))
  c = forkme.get_config()
  assert (c.build, c.model.init, c.model.preset) == ("digits", "", "tiny")
  assert set(c.train.data) == set(c.evals) == {"caption", "count", "question", "detect", "segment"}
  assert c.train.data.count.path.startswith(str(tmp_path))
  assert c.input.codec == str(embedded.directory() / "codec.npz")  # the version that is built


def test_arguments_train_your_file_with_the_references_settings():
  c = forkme.get_config(YOURS + ",res=448")
  assert c.train.data.yours.path == "my/train.jsonl"
  assert c.evals.val.data.path == "my/val.jsonl"
  assert (c.model.init, c.model.res, c.input.tokenizer) == ("pt_224.npz", 448, "tokenizer.model")
  assert (c.input.text_len, c.train.batch_size, c.train.epochs) == (128, 32, 15.0)
  assert (c.train.lr, c.train.weight_decay, c.train.grad_clip_norm) == (1e-5, 3e-7, 1.0)
  schedule = recipes.resolve(c.train.to_dict())["schedule"]
  assert schedule == {"decay_type": "cosine", "warmup_percent": 0.05}


def test_from_scratch_has_a_tokenizer_of_the_data_and_settings_that_learn():
  c = forkme.get_config("train=my/train.jsonl,val=my/val.jsonl,task=detect,init=none")
  assert (c.model.init, c.model.preset, c.input.tokenizer) == ("", "tiny", "trained")
  assert (c.train.steps, c.train.lr, c.evals.val.metric) == (2000, 2e-3, "boxes_ap")
  assert c.train.data.yours.augment == ("inception_crop:50",) and not c.evals.val.data.augment
  c = forkme.get_config("train=a.jsonl,init=none,preset=mid,tokenizer=t.model,epochs=3")
  assert (c.model.preset, c.input.tokenizer) == ("mid", "t.model")
  assert (c.train.steps, c.train.epochs) == (0, 3.0)


def test_regions_with_a_sentence_are_found_and_scored_by_their_boxes():
  c = forkme.get_config(YOURS + ",task=refer")
  assert (c.train.data.yours.task, c.evals.val.metric) == ("refer", "boxes")


def test_attention_sgd_has_its_own_batch_and_rate():
  c = forkme.get_config(YOURS + ",recipe=attention_sgd")
  assert (c.train.recipe, c.train.batch_size, c.train.lr) == ("attention_sgd", 8, 0.03)


@pytest.mark.parametrize(
  "arg, words",
  [
    (YOURS + ",recipy=full", '"recipy" is unknown; did you mean "recipe"'),
    (YOURS + ",recipe=ful", '"ful" is unknown; did you mean "full"'),
    (YOURS + ",task=segmnt", 'did you mean "segment"'),
    (YOURS + ",res=big", 'argument "res": found "big", wanted int'),
    (YOURS + ",res=224,res=448", '"res" is given twice'),
    (YOURS + ",epochs", 'argument "epochs": found ""'),
    ("res=448,init=pt_224.npz", '"train" is missing'),
    ("train=a.jsonl,init=none,recipe=head_only", '"head_only" trains a part; from scratch'),
  ],
)
def test_a_wrong_argument_is_named(arg, words):
  with pytest.raises(errors.UserError, match=words):
    forkme.get_config(arg)


def test_a_switch_stands_alone_or_says_so():
  assert common.args("final,res=448", res=224, final=False).final is True
  assert common.args("final=false", final=True).final is False
  assert common.args(None, res=224).res == 224


@pytest.mark.parametrize("path", ["a,b/c.jsonl", ",a", "a,", "a,,b", "a,res=4", "x=1,y=2/c.jsonl"])
def test_a_comma_that_belongs_to_a_path_is_written_twice(path):
  written = path.replace(",", ",,")
  a = common.args(f"train={written},val={written},res=448", train="", val="", res=224)
  assert (a.train, a.val, a.res) == (path, path, 448)


@pytest.mark.parametrize("path", ["a,b/train.jsonl", "a,rest/c.jsonl", "a,b,c", "a,b=1/c.jsonl"])
def test_a_path_with_a_single_comma_is_told_how_it_is_written(path):
  with pytest.raises(errors.UserError) as e:
    forkme.get_config(f"train={path},val=val.jsonl")
  written = str(e.value).partition("written twice, train=")[2].partition(";")[0]
  assert f"train={path}".startswith("train=" + common.args(f"path={written}", path="").path)
