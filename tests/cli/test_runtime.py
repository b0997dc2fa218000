"""Huge pages: a training process starts itself anew, once."""

import os
import sys

import pytest

from paligemma_jax.cli import main, runtime


@pytest.fixture
def started(monkeypatch, tmp_path):
  """What is started instead of this process; Linux leaves huge pages to the program."""
  found = []
  setting = tmp_path / "enabled"
  setting.write_text("always [madvise] never\n")
  monkeypatch.setattr(runtime, "_HUGE_PAGES", setting)
  monkeypatch.setattr(os, "execv", lambda path, argv: found.append([path, *argv]))
  monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "paligemma_jax", "train", "--help"])
  monkeypatch.setattr(sys, "argv", ["paligemma_jax", "train", "--help"])
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  return found


def test_the_same_command_again_with_huge_pages(started, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back afterwards
  del os.environ["GLIBC_TUNABLES"]
  assert main.main() == 0
  argv = [sys.executable, "-m", "paligemma_jax", "train", "--help"]
  assert started == [[sys.executable, *argv]]
  assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
  assert main.main() == 0 and len(started) == 1  # that process does not start another


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_not_where_linux_has_decided(started, text):
  runtime._HUGE_PAGES.write_text(text)
  runtime.take_huge_pages()
  assert not started and "GLIBC_TUNABLES" not in os.environ


def test_not_where_the_user_has_decided(started, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "")
  runtime.take_huge_pages()
  assert not started


def test_not_for_a_call_from_python(started):
  assert main.main(["train", "--help"]) == 0
  assert not started
