import json

import pytest

from paligemma_jax.bench import data
from paligemma_jax.cli import main


def test_pictures_have_no_size(capsys):
  assert main.main(["bench", "data", "--size", "mid"]) == 2
  assert "leave --size out" in capsys.readouterr().err


@pytest.mark.parametrize(
  "argv, message",
  [
    (["generate", "--recipe", "lora"], "trains nothing: leave --recipe out"),
    (["train", "--quant", "int8"], "has floats alone: leave --quant out"),
    (["generate", "--quant", "int2"], 'quant "int2" is unknown'),
  ],
)
def test_a_mistake_is_told_before_anything_is_made(argv, message, capsys):
  assert main.main(["bench", *argv]) == 2
  assert message in capsys.readouterr().err


def test_a_model_too_large_for_the_memory_is_told_before_it_is_made(capsys, monkeypatch):
  from paligemma_jax.bench import machine

  monkeypatch.setattr(machine, "free_memory", lambda: 2**30)
  assert main.main(["bench", "train", "--size", "3b"]) == 2
  assert "needs 47 GB of memory, 1 GB are free; take a smaller --size" in capsys.readouterr().err


def test_a_table_and_the_same_figures_as_json(tmp_path, capsys, monkeypatch):
  run = data.run
  monkeypatch.setattr(data, "run", lambda: run(sizes=(28,), rounds=1, repeats=1))
  assert main.main(["bench", "data", "--json", str(tmp_path / "data.json")]) == 0
  found = json.loads((tmp_path / "data.json").read_text())
  assert found["task"] == "data" and found["sizes"]["28"]["bicubic"]["of_peer"] > 0
  assert "28 px" in capsys.readouterr().out
