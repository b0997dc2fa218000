"""A run that takes seconds: tiny preset, eight examples, five short answers.

`python -m tests.train.toy_run WORKDIR DATA [STEP SIGNAL MESH PROCESS]` trains it, as one of several
processes where the environment says so; one, the last unless named, sends itself the signal after
that step. Where DATA has a base (`write_base`), adapters of it train, over weights in few bits.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

from PIL import Image

from paligemma_jax.checkpoint import formats
from paligemma_jax.transfers import common
from tests import toy

ANSWERS = ("yes", "no", "red", "dark red", "a cat")


def write_data(folder: pathlib.Path) -> pathlib.Path:
  """Writes tokenizer, pictures and train.jsonl; returns the folder."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, data in toy.tokenizer().to_files().items():
    (folder / name).write_bytes(data)
  lines = []
  for i in range(8):
    Image.fromarray(toy.pictures()[i % 4]).save(folder / f"{i % 4}.png")
    answer = ANSWERS[i % len(ANSWERS)]
    lines.append({"image": f"{i % 4}.png", "prefix": f"answer en {i}", "suffix": answer, "id": i})
  (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return folder


def config(data: pathlib.Path, steps: int = 12, **changes):
  """The config; `changes` are dotted keys."""
  c = common.base(res=112, text_len=16)
  c.log_every = 1
  c.model.update(preset="tiny", init="", remat="none", dropout=0.1)
  c.input.update(tokenizer=str(data), resize="bicubic")
  source = common.jsonl(str(data / "train.jsonl"))
  c.train.data.mine = source
  c.train.update(steps=steps, batch_size=8, lr=1e-3)
  c.evals.val = common.evaluate(source, "exact_match", every=0.5, max_new_tokens=4, batch_size=8)
  c.checkpoint.every = 5
  c.update_from_flattened_dict(changes)
  return c


def write_base(data: pathlib.Path) -> pathlib.Path:
  """Writes a model of random weights beside the data; returns its file."""
  flat = toy.flat_params(model := toy.config(vocab_size=1500, res=28))
  read = lambda name, layer=None: flat[name] if layer is None else flat[name][layer]
  assets = {p.name: p.read_bytes() for p in data.glob("token*")}
  formats.save(data / "pt.npz", read, model, assets)
  return data / "pt.npz"


def adapters_config(
  data: pathlib.Path, recipe: str = "qlora", steps: int = 4, mesh: str = "single", **changes
):
  """The config of a run that trains adapters of the base beside the data."""
  c = config(data, steps=steps, mesh=mesh, **changes)
  c.model.update(preset="", res=28, init=str(data / "pt.npz"))
  c.input.resize = ""
  c.train.recipe = recipe
  c.train.lora.update(rank=4, dropout=0.1)
  c.checkpoint.every = 2
  c.evals = {"nll": common.evaluate(c.train.data.mine, "perplexity", every=1.0, batch_size=8)}
  return c


def run_as_two(command: list[str], devices: int = 4) -> list[int]:
  """Runs a command as two processes of so many devices each; their exit statuses."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  environ = os.environ | {
    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
    "JAX_NUM_PROCESSES": "2",
    "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}"),
  }
  started = [subprocess.Popen(command, env=environ | {"JAX_PROCESS_ID": str(i)}) for i in range(2)]
  try:
    return [process.wait(timeout=300) for process in started]
  finally:
    for process in started:
      process.kill()


def main(workdir, data, last="-1", number="SIGKILL", mesh="fsdp", process="-1"):
  import jax

  from paligemma_jax.train import loop, processes

  processes.join()

  def send(done, scalars):
    mine = jax.process_index() == int(process) % jax.process_count()
    if mine and done >= int(last) >= 0:
      os.kill(os.getpid(), signal.Signals[number])

  data = pathlib.Path(data)
  made = adapters_config if (data / "pt.npz").exists() else config
  loop.train(made(data, mesh=mesh), workdir, callbacks=[send])


if __name__ == "__main__":
  main(*sys.argv[1:])
