#!/usr/bin/env bash
# Orbax 0.12.8 says that a checkpoint is saved and complete, and cannot read it back, where the path
# of the checkpoint has square brackets in it, such as "run[1]" or "lr=[1e-5]".
#
# Expected: a folder that can be created can be saved to and read from, or `save` raises.
# Seen: no error, `commit_success.txt` is there, `all_steps()` names the step; the merge of the files
# of the processes has found nothing, so `manifest.ocdbt` is missing, and `restore` raises.
# Names with * ? { } are right.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 tensorstore==0.1.86
cd "$tmp"
JAX_PLATFORMS=cpu venv/bin/python - <<'PY'
import pathlib

import numpy as np
import orbax.checkpoint as ocp
from absl import logging

logging.set_verbosity(logging.FATAL)


def saved_and_read(name):
  folder = pathlib.Path(name).absolute()
  with ocp.CheckpointManager(folder) as manager:
    manager.save(1, args=ocp.args.Composite(state=ocp.args.PyTreeSave({"w": np.arange(4.0)})))
    manager.wait_until_finished()
    steps = manager.all_steps()
  files = {p.name for p in (folder / "1" / "state").iterdir()}
  with ocp.CheckpointManager(folder) as manager:
    try:
      manager.restore(1, args=ocp.args.Composite(state=ocp.args.PyTreeRestore()))
      read = "read"
    except ValueError as e:
      read = str(e).split(":")[0]
  return steps, "commit_success.txt" in files, "manifest.ocdbt" in files, read


for name in ("run", "run*", "run?", "run{1}", "run[1]"):
  seen = saved_and_read(name)
  print(f"{name:8} steps {seen[0]}, committed {seen[1]}, merged {seen[2]}, restore: {seen[3]}")
  broken = "[" in name
  wanted = ([1], True, False) if broken else ([1], True, True)
  assert seen[:3] == wanted and (seen[3] == "read") != broken, "the behaviour has changed"
PY
