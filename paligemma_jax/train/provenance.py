"""What made a run: WORKDIR/runs.jsonl, a line for every start of it."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from paligemma_jax import storage

RUNS = "runs.jsonl"
_PACKAGES = (
  "paligemma_jax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "numpy",
)


def start(mesh: Mesh, data: Mapping[str, str], step: int) -> dict[str, Any]:
  """What is known when a run starts or goes on.

  Args:
    mesh: the devices.
    data: name of a source -> hash of its content.
    step: steps done before.
  """
  device = mesh.devices.flat[0]
  return {
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "step": step,
    "command": sys.argv,
    "folder": os.getcwd(),  # that relative paths of the config start from
    "devices": {
      "platform": device.platform,
      "kind": device.device_kind,
      "number": mesh.devices.size,
      "processes": jax.process_count(),
      "mesh": dict(mesh.shape),
    },
    "versions": {"python": platform.python_version()} | _versions(),
    "code": git_state(pathlib.Path(__file__).parent),
    "data": dict(data),
  }


def write(workdir: str | os.PathLike, line: Mapping[str, Any]) -> None:
  """Appends one whole line to WORKDIR/runs.jsonl, in an object store a part of it."""
  with contextlib.closing(storage.Lines(storage.path(workdir) / RUNS)) as lines:
    lines.append(json.dumps(line))


def last_data(workdir: str | os.PathLike) -> dict[str, str]:
  """Name of a source -> hash of its content at the newest start; {} where there was none."""
  lines = storage.read_lines(storage.path(workdir) / RUNS)
  return json.loads(lines[-1])["data"] if lines else {}


def git_state(folder: pathlib.Path) -> dict[str, Any] | None:
  """{"commit", "changed": files that differ from it} of the checkout around a folder, or None."""

  def git(*args):
    return subprocess.run(
      ("git", "-C", str(folder), *args), capture_output=True, text=True, timeout=10, check=True
    ).stdout

  try:
    commit = git("rev-parse", "HEAD").strip()
    changed = [
      line[3:] for line in git("status", "--porcelain", "--untracked-files=no").splitlines()
    ]
  except (OSError, subprocess.SubprocessError):  # no git, no checkout, not ours
    return None
  return {"commit": commit, "changed": changed}


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue  # run from a checkout without installing it
  return found
