"""Metrics at Weights & Biases, with a stand-in for its client."""

import sys
import types

import pytest

from paligemma_jax import errors
from paligemma_jax.train import log as logs
from paligemma_jax.train import loop, wandb
from tests.train import toy_run


class Client(types.ModuleType):
  """What the package `wandb` offers, as far as it is used."""

  class Error(Exception):
    pass

  def __init__(self):
    super().__init__("wandb")
    self.asked, self.metrics, self.lines, self.finished = [], [], [], 0

  def init(self, **settings):
    self.asked.append(settings)
    return self  # the run

  def define_metric(self, name, step_metric):
    self.metrics.append((name, step_metric))

  def log(self, line):
    self.lines.append(line)

  def finish(self):
    self.finished += 1


@pytest.fixture
def client(monkeypatch):
  client = Client()
  monkeypatch.setitem(sys.modules, "wandb", client)
  return client


@pytest.fixture
def data(tmp_path, monkeypatch):
  monkeypatch.setenv("PALIGEMMA_CACHE", str(tmp_path / "cache"))
  return toy_run.write_data(tmp_path / "data")


def config(data, **changes):
  return toy_run.config(
    data, steps=3, mesh="single", **{"wandb": "team/digits", "checkpoint.every": 2} | changes
  )


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_run_there_and_has_every_line(client, data, tmp_path):
  def interrupt(done, values):
    if done == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    loop.train(config(data), tmp_path / "run", callbacks=[interrupt])
  assert client.finished == 1
  cut = len(client.lines)
  assert [line["step"] for line in client.lines if "loss" in line] == [1, 2]
  loop.train(config(data), tmp_path / "run")
  assert client.finished == 2

  first, second = client.asked
  assert (first["entity"], first["project"], first["resume"]) == ("team", "digits", "allow")
  assert first["id"] == second["id"] and first["name"] == "run"
  assert first["config"]["train"]["steps"] == 3
  assert client.metrics == [("*", "step")] * 2
  written = logs.read_metrics(tmp_path / "run")
  assert client.lines[cut:] == written[-len(client.lines[cut:]) :]
  assert any("eval/val/exact_match" in line for line in client.lines[cut:])


def test_a_project_without_entity_is_the_users_own(client, tmp_path):

  wandb.Writer(tmp_path, "digits", {})
  (asked,) = client.asked
  assert (asked["entity"], asked["project"], asked["dir"]) == (None, "digits", str(tmp_path))


def test_without_the_package_nothing_is_begun(monkeypatch, data, tmp_path):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(errors.UserError, match="needs the package wandb; pip install"):
    loop.train(config(data), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_client_that_cannot_begin_is_told_in_one_line(client, tmp_path):

  def init(**settings):
    raise client.Error("No API key configured.\nUse …")

  client.init = init
  with pytest.raises(errors.UserError, match="No API key configured; sign in") as e:
    wandb.Writer(tmp_path, "digits", {})
  assert "\n" not in str(e.value)


def test_only_the_first_process_writes(client, data, tmp_path, monkeypatch):
  c = loop.settings.check(config(data))
  monkeypatch.setattr(loop.jax, "process_index", lambda: 1)
  loop._log(c, tmp_path, total=3, start=0).close()
  assert client.asked == []
  monkeypatch.setattr(loop.jax, "process_index", lambda: 0)
  loop._log(c, tmp_path, total=3, start=0).close()
  assert len(client.asked) == 1
