"""The front door: which commands there are, exit statuses, and how long `--help` takes."""

import subprocess
import sys

import pytest

from paligemma_jax import __version__, errors
from paligemma_jax.cli import inspect, main


def test_help_names_every_command_and_a_first_line_about_it(capsys):
  assert main.main(["--help"]) == 0
  shown = capsys.readouterr().out
  for command in ("train", "eval", "generate", "convert", "inspect", "data", "codec"):
    assert f"    {command} " in shown


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_help(command, capsys):
  assert main.main([command, "--help"]) == 0
  assert f"usage: paligemma {command}" in capsys.readouterr().out


def test_version(capsys):
  assert main.main(["--version"]) == 0
  assert capsys.readouterr().out == f"paligemma_jax {__version__}\n"


@pytest.mark.parametrize(
  "argv, words",
  [
    ([], "COMMAND"),
    (["trian"], 'argument COMMAND: "trian" is unknown; did you mean "train"? Known: bench, '),
    (["train", "--workdir", "w"], "--config"),
    (["inspect"], "CKPT"),
    (["inspect", "x.npz", "--fast"], "unrecognized arguments: --fast"),
    (["inspect", "x.npz", "--config.a=1"], "--config.a: this command takes no config"),
    (["generate", "--ckpt", "x.npz"], "give --image and --prompt, or --input and --output"),
    (["generate", "--ckp", "x.npz"], "--ckpt"),  # no guessing at abbreviations
  ],
)
def test_bad_usage_is_one_line_and_status_2(argv, words, capsys):
  assert main.main(argv) == 2
  said = capsys.readouterr()
  assert said.out == "" and said.err.count("\n") == 1
  assert said.err.startswith("paligemma: ") and words in said.err


@pytest.mark.parametrize(
  "error, status, words",
  [
    (errors.UserError("a.jsonl:3: no picture"), 2, "paligemma: a.jsonl:3: no picture\n"),
    (errors.UserError("two\n  lines: a\n\nb"), 2, "paligemma: two\n  lines: a\nb\n"),
    (errors.UserError("é \x1b[2J\t\u202e日本"), 2, "paligemma: é \\x1b[2J\\t\\u202e日本\n"),
    (FileNotFoundError(2, "No such file", "a.npz"), 2, "paligemma: a.npz: No such file\n"),
    (OSError(36, "File name too long", "xxx"), 2, "paligemma: xxx: File name too long\n"),
    (errors.RunError("data worker 7 was killed"), 1, "paligemma: data worker 7 was killed\n"),
    (KeyboardInterrupt(), 1, "paligemma: interrupted\n"),
    (SystemExit(75), 75, ""),  # preempted, the state is saved
  ],
)
def test_exit_statuses(error, status, words, monkeypatch, capsys):
  def run(args):
    raise error

  monkeypatch.setattr(inspect, "run", run)
  assert main.main(["inspect", "x.npz"]) == status
  assert capsys.readouterr().err == words


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError(5, "Input/output error")])
def test_what_is_not_the_users_fault_keeps_its_traceback(error, monkeypatch):
  def run(args):
    raise error

  monkeypatch.setattr(inspect, "run", run)
  with pytest.raises((ZeroDivisionError, OSError)):
    main.main(["inspect", "x.npz"])


@pytest.mark.parametrize("argv", [["--help"], ["generate", "--help"], ["train"]])
def test_help_and_bad_usage_load_nothing_that_takes_long(argv):
  command = [sys.executable, "-X", "importtime", "-m", "paligemma_jax", *argv]
  said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
  loaded = {
    line.split("|")[2].strip().split(".")[0] for line in said.splitlines() if line.count("|") == 2
  }
  assert "paligemma_jax" in loaded
  assert not loaded & {
    "jax",
    "jaxlib",
    "numpy",
    "flax",
    "optax",
    "orbax",
    "grain",
    "PIL",
    "scipy",
    "etils",
  }
