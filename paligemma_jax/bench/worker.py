"""One contender of a benchmark in a process of its own: `python -m paligemma_jax.bench.worker`.

Reads a JSON object from every line of standard input, answers with one line on standard output. The
first names the work, see `main`; every further one asks to do a job so many times.
"""

import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
  """Answers until standard input ends.

  {"who": "ours" | "eager" | "compiled" | "machine", perhaps with a name behind a space, "task": a
  function of that module, "args": its arguments} is answered by {"name", "jobs"}, once all jobs have run and hence are compiled;
  {"job", "times"} by {"seconds": one of them, "result"}; {"peak": job} by {"bytes"}, the most memory
  that the process had while it did the job, and "own", the same without the libraries.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # whatever the libraries print
  asked = json.loads(sys.stdin.readline())
  try:
    module, options = _module(asked["who"].split()[0])
    imported = _resident("VmRSS")
    jobs = getattr(module, asked["task"])(*asked["args"], **options)
    _answer(answers, {"name": module.NAME, "jobs": {name: job() for name, job in jobs.items()}})
    for line in sys.stdin:
      asked = json.loads(line)
      _answer(
        answers, _peak(jobs[asked["peak"]], imported) if "peak" in asked else _run(jobs, asked)
      )
  except Exception as e:  # whatever the libraries raise, the others go on without this contender
    _answer(answers, {"error": f"{type(e).__name__}: {(str(e).strip() or '?').splitlines()[0]}"})


def _module(who: str) -> tuple[Any, dict]:
  if who == "ours":
    from paligemma_jax.bench import ours
    from paligemma_jax.train import setup

    setup.use_compilation_cache()

    return ours, {}
  if who == "machine":
    from paligemma_jax.bench import machine

    return machine, {}
  from paligemma_jax.bench import peers

  return peers, {"compiled": who == "compiled"}


def _run(jobs: dict[str, Callable], asked: dict) -> dict:
  job, times = jobs[asked["job"]], asked["times"]
  start = time.perf_counter()
  for _ in range(times):
    result = job()
  return {"seconds": (time.perf_counter() - start) / times, "result": result}


def _peak(job: Callable, imported: int) -> dict:
  reset = pathlib.Path("/proc/self/clear_refs")
  if reset.exists():
    reset.write_text("5")  # the peak begins anew: compiling does not count
  job()
  peak = _resident("VmHWM")
  return {"bytes": peak, "own": peak - imported}


def _resident(field: str) -> int:
  """Bytes of resident memory now ("VmRSS") or at most ("VmHWM"); the latter where there is no /proc."""
  status = pathlib.Path("/proc/self/status")
  if not status.exists():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
      1 if sys.platform == "darwin" else 1024
    )
  line = next(x for x in status.read_text().splitlines() if x.startswith(field))
  return int(line.split()[1]) * 1024


def _answer(stream, value: dict) -> None:
  print(json.dumps(value), file=stream, flush=True)


if __name__ == "__main__":
  main()
