"""A run that takes seconds: tiny preset, eight examples, five short answers.

`python -m tests.train.toy_run WORKDIR DATA [STEP SIGNAL MESH]` trains it, as one of several processes
where the environment says so; the last process sends itself the signal after that step.
"""

import json
import os
import pathlib
import signal
import sys

from PIL import Image

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


def main(workdir, data, last="-1", number="SIGKILL", mesh="fsdp"):
  import jax

  from paligemma_jax.train import loop, processes

  processes.join()

  def send(done, scalars):
    if done >= int(last) >= 0 and jax.process_index() == jax.process_count() - 1:
      os.kill(os.getpid(), signal.Signals[number])

  loop.train(config(pathlib.Path(data), mesh=mesh), workdir, callbacks=[send])


if __name__ == "__main__":
  main(*sys.argv[1:])
