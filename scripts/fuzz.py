"""Do damaged files and odd command lines end right, or with one line? From a checkout, on Linux.

  python scripts/fuzz.py                                      1,000 inputs of every kind
  python scripts/fuzz.py --kind pictures --count 1 --seed 17  one input again

An input is a valid file or command line that was changed at random; kind and seed tell it. It must end
right, or be refused with one line, status 2 and nothing new in its folder; a traceback, a crash, more
than --timeout seconds or 1 GiB is a fault. Prints a row for each kind and every fault; keeps the files
of faults. Exit status 1 if there is one.
"""

import argparse
import collections
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# As the tests: small programs, compiled quickly; nothing is fetched.
SETTINGS = {
  "JAX_PLATFORMS": "cpu",
  "HF_HUB_OFFLINE": "1",
  "XLA_FLAGS": "--xla_backend_optimization_level=0",
  "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
}


def main() -> int:
  os.environ.update(SETTINGS)
  os.environ.pop("PALIGEMMA_TOKENIZER", None)
  sys.path.insert(0, str(ROOT))
  from tests.fuzz import harness, kinds

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add("--kind", action="append", choices=kinds.KINDS, help="again for several (default: all)")
  add("--count", type=int, default=1000, metavar="N", help="inputs of each kind (default 1000)")
  add("--seed", type=int, default=0, metavar="S", help="of the first input (default 0)")
  add("--timeout", type=float, default=120, metavar="S", help="of one input (default 120)")
  add("--keep", type=pathlib.Path, metavar="DIR", help="default: a new temporary folder")
  args = parser.parse_args()
  folder = (args.keep or pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve()

  print(f"{'kind':12} inputs  right  refused  faults  seconds  slowest  memory MiB", flush=True)
  faults, totals = [], collections.Counter()
  for kind in args.kind or kinds.KINDS:
    start, counts, slowest, memory = time.monotonic(), collections.Counter(), 0.0, 0
    for result in harness.run(kind, range(args.seed, args.seed + args.count), folder, args.timeout):
      counts[result.outcome] += 1
      slowest, memory = max(slowest, result.seconds), max(memory, result.memory)
      if result.outcome == harness.FAULT:
        faults.append(result)
        print(f"{kind} {result.seed}: {result.words}", flush=True)
    totals += counts
    print(
      f"{kind:12} {sum(counts.values()):6} {counts[harness.RIGHT]:6} {counts[harness.REFUSED]:8}"
      f" {counts[harness.FAULT]:7} {time.monotonic() - start:8.0f} {slowest:8.1f} {memory / 2**20:11.0f}",
      flush=True,
    )
  print(
    f"{sum(totals.values())} inputs, {len(faults)} faults" + (f"; files: {folder}" * bool(faults))
  )
  return 1 if faults else 0


if __name__ == "__main__":
  sys.exit(main())
