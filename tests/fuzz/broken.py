"""Kinds whose inputs do what none may do, to see that the harness notices."""

import os
import signal
import time

from tests.fuzz import kinds


def _kind(fault):
  """A kind of which every second input does `fault` before its command."""

  def damage(rng):
    if rng.random() < 0.5:
      fault()
    return ["inspect no.npz"]

  return kinds.Kind(lambda: None, [], damage)


KINDS = {
  "dies": _kind(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
  "hangs": _kind(lambda: time.sleep(600)),
}
