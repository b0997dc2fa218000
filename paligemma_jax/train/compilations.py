"""How many programs JAX has made ready, and how long that took."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

# Recorded once a program, also when the persistent cache has it: it is then quick.
_EVENT = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Count:
  """What was compiled since `counted()` was entered, by this process."""

  programs: int = 0
  seconds: float = 0.0

  def values(self) -> dict[str, float]:
    """As metrics.jsonl holds it: {"compilations": programs, "compile_seconds"}."""
    return {"compilations": self.programs, "compile_seconds": self.seconds}


@contextlib.contextmanager
def counted() -> Iterator[Count]:
  """Yields a count that grows with every program compiled inside, the smallest ones included."""
  count = Count()

  def listen(event, seconds, **_):
    if event == _EVENT:
      count.programs += 1
      count.seconds += seconds

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield count
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
