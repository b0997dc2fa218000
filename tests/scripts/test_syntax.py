"""The shell scripts parse, and the linter has nothing to say."""

import pathlib
import shutil
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize("name", ["tpu_pod.sh", "slurm.sbatch"])
@pytest.mark.parametrize("checker", [["bash", "-n"], ["shellcheck"]], ids=lambda c: c[0])
def test_shell_scripts(name, checker):
  if not shutil.which(checker[0]):
    pytest.skip(f"no {checker[0]} here")
  done = subprocess.run([*checker, SCRIPTS / name], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
