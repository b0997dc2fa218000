"""Config files and their overrides: what is read, and what a mistake is told."""

import pathlib

import pytest

from paligemma_jax import errors
from paligemma_jax.cli import config

FILE = """
import ml_collections
from ml_collections import config_dict

def get_config(arg=None):
  c = ml_collections.ConfigDict()
  c.name = arg or "none"
  c.train = ml_collections.ConfigDict(
    dict(lr=1e-3, steps=10, shuffle=True, freeze=(), betas=(0.9, 0.999)))
  c.cap = config_dict.placeholder(float)
  c.evals = ml_collections.ConfigDict()
  return c
"""


@pytest.fixture
def path(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(FILE)
  return str(file)


@pytest.mark.parametrize(
  "key, text, want",
  [
    ("train.lr", "3e-5", 3e-5),
    ("train.lr", "1", 1.0),  # a float stays a float
    ("train.steps", "30", 30),
    ("train.shuffle", "false", False),
    ("train.shuffle", None, True),  # a switch alone
    ("name", "x=1,2", "x=1,2"),
    ("train.freeze", "img/.*", ("img/.*",)),  # one word stands for a tuple of itself
    ("train.freeze", "('img/.*', 'llm/.*')", ("img/.*", "llm/.*")),
    ("train.betas", "(0.8, 0.9, 1)", (0.8, 0.9, 1)),  # the length may change
    ("train.betas", "0.5", (0.5,)),
    ("cap", "30", 30.0),  # a placeholder has a type
    ("cap", "none", None),
  ],
)
def test_an_override_has_the_type_of_its_key(path, key, text, want):
  c = config.load(path, [(key, text)])
  *groups, last = key.split(".")
  for group in groups:
    c = c[group]
  assert c[last] == want and type(c[last]) is type(want)


@pytest.mark.parametrize(
  "key, text, words",
  [
    (
      "train.lrr",
      "1",
      '--config.train.lrr does not exist; did you mean "train.lr"? Known: train.betas, ',
    ),
    ("lr", "1", '--config.lr does not exist; did you mean "train.lr"? Known: '),
    ("optimizer", "1", "--config.optimizer does not exist; known: "),
    ("train.lr.x", "1", '--config.train.lr.x does not exist; did you mean "train.lr"?'),
    ("train.lr", "abc", '--config.train.lr takes a number (now 0.001), found "abc"'),
    ("train.steps", "1.5", '--config.train.steps takes a whole number (now 10), found "1.5"'),
    ("train.steps", None, "found nothing"),
    ("train.shuffle", "maybe", "takes true or false"),
    ("train.freeze", "img/.*,llm/.*", "takes a tuple"),
    ("train", "x", "--config.train is a group; set its keys (--config.train.betas, "),
  ],
)
def test_a_wrong_override_is_one_line_that_helps(path, key, text, words):
  with pytest.raises(errors.UserError) as e:
    config.load(path, [(key, text)])
  assert words in str(e.value) and "\n" not in str(e.value)


def test_the_last_of_two_overrides_wins_and_the_colon_reaches_get_config(path):
  c = config.load(path + ":a=1,b:c", [("train.steps", "1"), ("train.steps", "2")])
  assert c.train.steps == 2 and c.name == "a=1,b:c" and c.is_locked


def test_overrides_are_told_from_other_arguments():
  argv = ["--config", "f.py", "--config.a=1", "--config.b", "2", "--config.c", "--workdir", "w"]
  rest, overrides = config.split_overrides(argv)
  assert rest == ["--config", "f.py", "--workdir", "w"]
  assert overrides == [("a", "1"), ("b", "2"), ("c", None)]


def test_a_shipped_config_is_found_from_any_folder(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert config.load("transfers/forkme.py").model.preset == "tiny"


@pytest.mark.parametrize(
  "text, words",
  [
    ("def get_config():\n  return 1 / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
    ("def get_config(:\n", "mine.py:1: SyntaxError"),
    ("import no_such_module\n", "mine.py:1: ModuleNotFoundError: No module named"),
    ("x = 1\n", "no function get_config"),
    ("def get_config():\n  return {}\n", "returned dict, not a ConfigDict"),
  ],
)
def test_an_error_inside_the_file_is_told_with_its_line(tmp_path, text, words):
  file = tmp_path / "mine.py"
  file.write_text(text)
  with pytest.raises(errors.UserError) as e:
    config.load(str(file))
  assert words in str(e.value) and "\n" not in str(e.value)


def test_a_missing_file_names_the_nearest_that_is_shipped():
  with pytest.raises(errors.UserError, match='did you mean "transfers/forkme.py"'):
    config.load("transfers/forkm.py")
  with pytest.raises(errors.UserError, match="is no FILE.py"):
    config.load(str(pathlib.Path("forkme")))


def test_an_argument_for_a_config_without_arguments_is_an_error(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text("def get_config():\n  return 1\n")
  with pytest.raises(errors.UserError, match="takes no argument"):
    config.load(f"{file}:x")
