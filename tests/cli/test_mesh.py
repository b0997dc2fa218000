"""What `--config.mesh` may ask of the devices: said by every command before anything is loaded."""

import json

import pytest

CONFIG = """
from paligemma_jax.transfers import common

def get_config():
  c = common.base(0, text_len=32)
  source = common.jsonl({data!r})
  c.model.update(init={ckpt!r}, preset="")
  c.train.data.mine = source
  c.train.update(steps=1, batch_size=8)
  c.evals.val = common.evaluate(source, "exact_match", max_new_tokens=2, batch_size=3)
  return c
"""


@pytest.fixture
def config(tmp_path, pictures, ckpt):
  """Path of a config that trains and evaluates the toy checkpoint on eight questions."""
  line = json.dumps({"image": pictures[0], "prefix": "answer en what colour?", "suffix": "red"})
  (tmp_path / "data.jsonl").write_text(f"{line}\n" * 8)
  path = tmp_path / "config.py"
  path.write_text(CONFIG.format(data=str(tmp_path / "data.jsonl"), ckpt=ckpt))
  return str(path)


COMMANDS = {
  "train": lambda config, ckpt, workdir: ("train", "--config", config, "--workdir", workdir),
  "eval": lambda config, ckpt, workdir: (
    "eval", "--config", config, "--ckpt", ckpt, "--workdir", workdir,
  ),
  "plan": lambda config, ckpt, workdir: ("plan", "--config", config, "--devices", "8"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
  "mesh, words",
  [
    ("fsdp_tensor:8", "query/kernel has 3 heads, which does not divide over 8 devices; choose"),
    ("data=1,fsdp=-1,tensor=3", "mesh data=1, fsdp=-1, tensor=3 does not fill 8 devices"),
  ],
)
def test_a_mesh_that_cannot_be_stops_every_command(
  command, mesh, words, config, ckpt, refuse, tmp_path
):
  argv = COMMANDS[command](config, ckpt, tmp_path / "workdir")
  assert words in refuse(*argv, f"--config.mesh={mesh}")
  assert not (tmp_path / "workdir").exists()
