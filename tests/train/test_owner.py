"""One run at a time in a workdir, whatever became of the one before."""

import fcntl
import json
import os
import subprocess
import sys

import pytest

from paligemma_jax import errors
from paligemma_jax.train import owner


def waits_for(*events):
  """In place of waiting: what happens meanwhile."""
  events = iter(events)
  return lambda seconds: next(events)()


def left_by_another(workdir):
  workdir.mkdir(exist_ok=True)
  card = {"host": "far", "process": 7, "since": "2030-01-01T00:00:00+00:00"}
  (workdir / owner.OWNER).write_text(json.dumps(card) + "\n")


@pytest.fixture
def no_locks(monkeypatch):
  """A file system without locks, as object stores are."""

  def flock(*_):
    raise OSError(owner._NO_LOCKS[0], "No locks available")

  monkeypatch.setattr(fcntl, "flock", flock)


def test_a_second_run_is_told_who_is_at_work(tmp_path):
  with owner.claimed(tmp_path):
    words = rf"another run is at work in this workdir \(host .+, process {os.getpid()}, since 20"
    with pytest.raises(errors.UserError, match=words):
      with owner.claimed(tmp_path):
        pass
    assert (tmp_path / owner.OWNER).exists()  # still the first one's
  with owner.claimed(tmp_path):
    pass
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(1)"])
def test_a_dead_owner_is_taken_over_at_once(tmp_path, end):
  code = f"""
import os, pathlib
from paligemma_jax.train import owner
with owner.claimed(pathlib.Path({str(tmp_path)!r})):
  {end}
"""
  assert subprocess.run([sys.executable, "-c", code]).returncode
  assert (tmp_path / owner.OWNER).exists()
  with owner.claimed(tmp_path):
    assert json.loads((tmp_path / owner.OWNER).read_text())["process"] == os.getpid()


def test_the_number_of_a_dead_owner_counts_for_nothing(tmp_path):
  card = {"host": "here", "process": os.getppid(), "since": "now"}  # alive, but another program
  (tmp_path / owner.OWNER).write_text(json.dumps(card))
  with owner.claimed(tmp_path):
    assert json.loads((tmp_path / owner.OWNER).read_text())["process"] == os.getpid()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_an_owner_that_writes_is_alive(tmp_path):
  left_by_another(tmp_path)
  beat = lambda: (tmp_path / owner.OWNER).write_text(
    (tmp_path / owner.OWNER).read_text() + "beat 1\n"
  )
  with pytest.raises(errors.UserError, match="at work in this workdir .host far, process 7, since"):
    with owner.claimed(tmp_path, waits_for(beat)):
      pass


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("remove", [False, True])
def test_without_locks_one_that_is_silent_or_goes_is_taken_over(tmp_path, remove):
  left_by_another(tmp_path)
  meanwhile = (tmp_path / owner.OWNER).unlink if remove else lambda: None
  with owner.claimed(tmp_path, waits_for(meanwhile)):
    assert json.loads((tmp_path / owner.OWNER).read_text())["process"] == os.getpid()
  assert not (tmp_path / owner.OWNER).exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_owner_writes_again_and_again(tmp_path, monkeypatch):
  monkeypatch.setattr(owner, "_BEAT", 0.001)
  with owner.claimed(tmp_path):
    while b"beat" not in (tmp_path / owner.OWNER).read_bytes():
      pass
    assert (
      json.loads((tmp_path / owner.OWNER).read_text().splitlines()[0])["process"] == os.getpid()
    )


def test_folders_that_were_made_for_a_run_that_did_not_begin_are_gone(tmp_path):
  with owner.claimed(tmp_path / "runs/a"):
    pass
  assert list(tmp_path.iterdir()) == []
  with owner.claimed(tmp_path / "runs/a"):
    (tmp_path / "runs/a/config.json").touch()
  assert (tmp_path / "runs/a/config.json").exists()


def test_a_place_that_cannot_be_written_to_is_told_in_one_line(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  for place in ("file", "file/below", "n" * 300):
    with pytest.raises(errors.UserError, match="nothing can be written there") as e:
      with owner.claimed(tmp_path / place):
        pass
    assert "\n" not in str(e.value)

  def refused(*_):
    raise PermissionError(13, "Permission denied", "owner.json")

  monkeypatch.setattr(os, "open", refused)
  with pytest.raises(errors.UserError, match=r"written there \(Permission denied: owner.json\)"):
    with owner.claimed(tmp_path / "new"):
      pass
  assert not (tmp_path / "new").exists()
