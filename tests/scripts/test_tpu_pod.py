"""scripts/tpu_pod.sh against a `gcloud` that records its calls and plays a slice."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Takes the next answer of `states` for every `describe`, runs the training on one "worker" whose
# home is `home`, and does nothing for all else.
GCLOUD = f"""#!{sys.executable}
import json, os, subprocess, sys

args = sys.argv[1:]
with open("calls", "a") as f:
  f.write(json.dumps(args) + "\\n")
if "describe" in args:
  first, *rest = open("states").read().split()
  open("states", "w").write(" ".join(rest))
  if first == "NONE":
    sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: not found")
  print(first)
command = next((a.partition("=")[2] for a in args if a.startswith("--command=")), "")
if "/.venv/bin:" in command:
  sys.exit(subprocess.run(["bash", "-c", command], cwd="home").returncode)
"""

# The program on the worker: notes its arguments, ends with the next of `statuses`.
PALIGEMMA = f"""#!{sys.executable}
import json, sys

open("../../arguments", "w").write(json.dumps(sys.argv[1:]))
first, *rest = open("../../statuses").read().split()
open("../../statuses", "w").write(" ".join(rest))
sys.exit(int(first))
"""

TRAIN = ["paligemma", "train", "--config", "f.py:a=1,b=x y", "--workdir", "/mnt/it's"]


def program(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def committed(checkout: pathlib.Path) -> pathlib.Path:
  """The script in a git checkout of its own, whose last commit it sends to the workers."""
  script = checkout / "scripts/tpu_pod.sh"
  script.parent.mkdir(parents=True)
  shutil.copy(ROOT / "scripts/tpu_pod.sh", script)
  who = ("-c", "user.name=a", "-c", "user.email=a@b")
  for args in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "a")):
    subprocess.run(("git", "-C", checkout, *args), check=True)
  return script


def play(folder, states: str, statuses: str, **environ) -> tuple[int, list[list[str]]]:
  """Runs the script; its exit status and the arguments of every call of gcloud.

  Args:
    folder: an empty one.
    states: what the queued resource is at every question, NONE: there is none.
    statuses: how the training ends each time.
    environ: more variables.
  """
  program(folder / "bin/gcloud", GCLOUD)
  program(folder / "home/paligemma_jax/.venv/bin/paligemma", PALIGEMMA)
  (folder / "states").write_text(states)
  (folder / "statuses").write_text(statuses)
  script = committed(folder / "checkout")
  env = os.environ | {"NAME": "run", "ZONE": "z", "TYPE": "v5litepod-16", "POLL": "0"} | environ
  env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
  done = subprocess.run([script, *TRAIN], env=env, cwd=folder, timeout=60)
  calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
  assert all(call[:2] == ["compute", "tpus"] for call in calls)
  assert all("run" in call or "run:paligemma_jax.tar.gz" in call for call in calls)
  assert all("--zone=z" in call for call in calls)
  return done.returncode, calls


def names(calls) -> list[str]:
  """The calls in a word each; "install", "train" and "answer" are commands on all workers."""
  out = []
  for call in calls:
    command = next((a for a in call if a.startswith("--command=")), "")
    if command:
      assert call[2:4] == ["tpu-vm", "ssh"] and "--worker=all" in call
      out.append("install" if "uv" in command else "train" if "train" in command else "answer")
    else:
      out.append(call[3])
  return out


def test_a_slice_is_created_installed_and_trains(tmp_path):
  status, calls = play(tmp_path, "NONE WAITING_FOR_RESOURCES ACTIVE", "0")
  assert status == 0
  assert names(calls) == ["describe", "create", "describe", "describe", "scp", "install", "train"]
  assert set(calls[1][4:]) == {
    "run",
    "--zone=z",
    "--node-id=run",
    "--accelerator-type=v5litepod-16",
    "--runtime-version=v2-alpha-tpuv5-lite",
    "--spot",
  }
  assert json.loads((tmp_path / "arguments").read_text()) == TRAIN[1:]


def test_a_slice_on_demand_that_is_deleted_at_the_end(tmp_path):
  status, calls = play(tmp_path, "NONE ACTIVE", "0", SPOT="no", DELETE="yes")
  assert status == 0
  assert "--spot" not in calls[1]
  assert names(calls)[-2:] == ["train", "delete"]


def test_a_preempted_slice_is_created_anew_and_the_training_goes_on(tmp_path):
  # ssh answers 255 when the worker is gone
  status, calls = play(tmp_path, "ACTIVE SUSPENDING SUSPENDED NONE ACTIVE", "255 0")
  assert status == 0
  started = ["scp", "install", "train"]
  again = ["describe", "describe", "delete", "describe", "create", "describe"]
  assert names(calls) == ["describe", *started, *again, *started]


def test_a_run_that_saved_and_stopped_is_run_again_on_the_same_slice(tmp_path):
  status, calls = play(tmp_path, "ACTIVE ACTIVE", "75 0")
  assert status == 0
  assert names(calls) == ["describe", "scp", "install", "train"] * 2


def test_wrong_input_is_not_run_again(tmp_path):
  status, calls = play(tmp_path, "ACTIVE", "2")
  assert status == 2
  assert names(calls) == ["describe", "scp", "install", "train"]


def test_a_failure_on_a_slice_that_answers_is_the_runs_own(tmp_path):
  status, calls = play(tmp_path, "ACTIVE ACTIVE", "1")
  assert status == 1
  assert names(calls) == ["describe", "scp", "install", "train", "describe", "answer"]


def test_a_request_that_cannot_be_filled_ends_the_script(tmp_path):
  status, calls = play(tmp_path, "NONE FAILED FAILED", "")
  assert status == 1
  assert names(calls) == ["describe", "create", "describe", "describe"]


@pytest.mark.parametrize("name", ["NAME", "ZONE", "TYPE"])
def test_what_is_not_given_is_named(name, tmp_path):
  env = {"PATH": os.environ["PATH"], "NAME": "run", "ZONE": "z", "TYPE": "v5litepod-16"}
  del env[name]
  command = [ROOT / "scripts/tpu_pod.sh", *TRAIN]
  done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
  assert done.returncode != 0 and f"{name}: " in done.stderr
