"""What a run records about how it was made."""

import json
import subprocess

import jax
import numpy as np

from paligemma_jax.train import provenance


def test_a_line_names_devices_versions_and_data_and_is_plain_json(tmp_path):
  mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "fsdp"))
  for step in (0, 7):
    provenance.write(tmp_path, provenance.start(mesh, {"mine": "abc"}, step))
  first, second = map(json.loads, (tmp_path / provenance.RUNS).read_text().splitlines())
  assert (first["step"], second["step"]) == (0, 7)
  assert first["devices"] == {
    "platform": "cpu", "kind": "cpu", "number": 8, "processes": 1, "mesh": {"data": 2, "fsdp": 4},
  }  # fmt: skip
  assert first["versions"]["jax"] == jax.__version__
  assert first["data"] == {"mine": "abc"}


def test_the_state_of_the_checkout_is_commit_and_changed_files(tmp_path):
  assert provenance.git_state(tmp_path) is None

  def git(*args):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
      ("git", "-C", tmp_path, *who, *args), check=True, capture_output=True, text=True
    ).stdout

  git("init")
  (tmp_path / "a.py").write_text("1")
  git("add", "a.py")
  git("commit", "-m", "a")
  commit = git("rev-parse", "HEAD").strip()
  assert provenance.git_state(tmp_path) == {"commit": commit, "changed": []}
  (tmp_path / "a.py").write_text("2")
  assert provenance.git_state(tmp_path) == {"commit": commit, "changed": ["a.py"]}
