"""The embedded default, shortened, as a config that can end its own process.

  paligemma train --config tests/train/digits_run.py:steps=40,kill=17,signal=SIGTERM --workdir DIR

The process sends itself the signal when it has written the first line of step `kill` or later to
metrics.jsonl; 0 never does. The config that is stored knows nothing of it.
"""

import os
import signal

import ml_collections

from paligemma_jax.train import log as logs
from paligemma_jax.transfers import common, forkme


def get_config(arg=None):
  a = common.args(arg, steps=20, evals=True, kill=0, signal="SIGKILL")
  c = forkme.get_config()
  c.log_every = 1
  c.train.steps = a.steps
  c.checkpoint.every = 7
  for e in c.evals.values():
    e.update(limit=8, batch_size=8, max_new_tokens=8)
  if not a.evals:
    c.evals = ml_collections.ConfigDict()
  if a.kill:
    _send(signal.Signals[a.signal], a.kill)
  return c


def _send(number: signal.Signals, after: int) -> None:
  """Makes this process send itself the signal once it has logged so many steps."""
  signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
  write = logs.Log.write

  def write_and_send(log, step, values, prefix=""):
    write(log, step, values, prefix)
    if step >= after:
      logs.Log.write = write  # once: a SIGTERM lets the step under way end
      os.kill(os.getpid(), number)

  logs.Log.write = write_and_send
