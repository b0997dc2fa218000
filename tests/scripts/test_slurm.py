"""scripts/slurm.sbatch under a Slurm of its own: controller, one node, munge."""

import getpass
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from paligemma_jax.checkpoint import formats
from tests.train import toy_run

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/slurm.sbatch"

CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
NodeName={host} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def free_ports(number: int) -> list[int]:
  sockets = [socket.create_server(("", 0)) for _ in range(number)]
  ports = [s.getsockname()[1] for s in sockets]
  for s in sockets:
    s.close()
  return ports


@pytest.fixture(scope="module")
def slurm():
  """The environment in which Slurm's commands reach a cluster of this machine alone."""
  missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name)]
  if missing:
    pytest.skip(f"no {', '.join(missing)} here")
  # Not tmp_path: the path of a socket has at most 107 characters. Daemons end while it is removed.
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
    folder = pathlib.Path(name)
    options = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
    options |= {"folder": folder, "ports": free_ports(2)}
    (folder / "slurm.conf").write_text(CONFIG.format(**options))
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    env = os.environ | {
      "SLURM_CONF": str(folder / "slurm.conf"),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    files = {"socket": "socket"} | {f"{kind}-file": kind for kind in ("key", "pid", "log", "seed")}
    munge = ["munged", "--force", *(f"--{k}={folder}/munge.{v}" for k, v in files.items())]
    try:
      for daemon in (munge, ["slurmctld"], ["slurmd"]):
        subprocess.run(daemon, env=env, check=True, timeout=60)
      yield env
    finally:
      for pid in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
        if (folder / pid).exists():
          os.kill(int((folder / pid).read_text()), signal.SIGTERM)


def submit(env, output, *command) -> int:
  """Runs the command with two tasks on the one node; the exit status of the job."""
  options = ["--wait", "--ntasks-per-node=2", f"--output={output}", f"--chdir={ROOT}"]
  command = ["sbatch", *options, SCRIPT, *command]
  return subprocess.run(command, env=env, timeout=900).returncode


def processes(workdir) -> list[int]:
  """How many processes took part in each start of a run."""
  lines = (workdir / "runs.jsonl").read_text().splitlines()
  return [json.loads(line)["devices"]["processes"] for line in lines]


@pytest.mark.slow
def test_two_tasks_train_as_one_run(slurm, tmp_path):
  data = toy_run.write_data(tmp_path / "data")
  toy = [sys.executable, "-m", "tests.train.toy_run", tmp_path / "run", data]
  output = tmp_path / "output"
  assert submit(slurm, output, *toy) == 0, output.read_text()
  assert processes(tmp_path / "run") == [2]
  assert formats.open(tmp_path / "run").meta["step"] == 12


@pytest.mark.slow
def test_a_sigterm_leads_to_a_requeue_that_finishes(slurm, tmp_path):
  data = toy_run.write_data(tmp_path / "data")
  toy = [sys.executable, "-m", "tests.train.toy_run", tmp_path / "run", data]
  # Slurm counts the restarts: only in the first start one of the tasks sends itself the signal.
  first = '[ -n "${SLURM_RESTART_COUNT:-}" ] || set -- "$@" 6 SIGTERM'
  once = f'{first}; "$@"; status=$?; echo "status $status"; exit $status'
  output = tmp_path / "output"
  assert submit(slurm, output, "bash", "-c", once, "-", *toy) == 0, output.read_text()
  assert processes(tmp_path / "run") == [2, 2]
  assert formats.open(tmp_path / "run").meta["step"] == 12
  printed = output.read_text()
  assert printed.count("status 75") == 2 and printed.count("status 0") == 2
