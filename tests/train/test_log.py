"""Progress line and metrics.jsonl, with a clock of our own."""

import io
import json

import pytest

from paligemma_jax import errors
from paligemma_jax.train import log as logs


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def make(tmp_path=None, **options):
  clock, stream = Clock(), io.StringIO()
  options = {"total_steps": 100, "batch_size": 8, "interval": 5.0, **options}
  return logs.Log(tmp_path, stream=stream, clock=clock, **options), clock, stream


def test_a_line_comes_when_the_interval_is_over():
  log, clock, stream = make()
  clock.now = 2.0
  log.progress(1, 3.0)
  assert stream.getvalue() == ""
  log.waited(1.0)
  clock.now = 10.0
  log.progress(20, 1.25)  # 20 steps in 10 s, 1 s of it waiting, 80 steps to go
  assert stream.getvalue() == (
    "step 20/100  loss 1.2500  500 ms/step  10% waiting for data  16.0 examples/s  ETA 0:40\n"
  )


def test_the_time_of_a_step_is_split_into_waiting_for_data_for_devices_and_the_rest():
  log, clock, _ = make()
  log.waited(1.0)
  with log.device():
    clock.now = 6.0
  clock.now = 10.0
  speed = log.progress(20, 1.0)
  assert (speed["data_wait"], speed["device_wait"]) == (0.1, 0.6)


def test_compiling_and_evaluating_do_not_count():
  log, clock, _ = make()
  with log.outside() as seconds:
    clock.now = 60.0
    assert seconds() == 60.0
  clock.now = 62.0
  assert log.progress(1, 1.0)["seconds_per_step"] == 2.0


def test_the_terminal_line_is_rewritten_and_ended():
  log, clock, stream = make(interval=0.0)
  log._tty = True
  clock.now = 1.0
  log.progress(1, 1.0)
  log.say("hello")
  log.close()
  assert stream.getvalue().startswith("\rstep 1/100")
  assert stream.getvalue().endswith("\r\x1b[Khello\n")


def test_metrics_are_whole_lines_and_resuming_drops_later_ones(tmp_path):
  log, _, _ = make(tmp_path)
  for step in (1, 2, 3):
    log.write(step, {"loss": step / 2})
  log.write(2, {"accuracy": 0.5}, prefix="eval/val/")
  log.close()
  with open(tmp_path / logs.METRICS, "a") as f:
    f.write('{"step": 4, "lo')  # killed in the middle of a line
  logs.truncate_metrics(tmp_path, 2)
  assert logs.read_metrics(tmp_path) == [
    {"step": 1, "loss": 0.5},
    {"step": 2, "loss": 1.0},
    {"step": 2, "eval/val/accuracy": 0.5},
  ]
  assert (tmp_path / logs.METRICS).read_text().endswith("}\n")


@pytest.mark.parametrize(
  "line",
  [
    b"nonsense",
    b"[1]",
    b'{"loss": 1}',
    b'{"step": "one"}',
    b'{"step": 1, "loss": "low"}',
    b'{"step": 1, "loss": 1' + b"0" * 400 + b"}",
    b'{"step": 1, "a": ' + b"[" * 9999 + b"]" * 9999 + b"}",
    b'{"step": 1, "loss": "\xff"}',
  ],
)
def test_a_line_that_no_run_has_written_is_named(tmp_path, line):
  (tmp_path / logs.METRICS).write_bytes(b'{"step": 1, "loss": 1.0}\n' + line + b"\n")
  for read in (logs.read_metrics, lambda workdir: logs.truncate_metrics(workdir, 1)):
    with pytest.raises(errors.UserError, match="metrics.jsonl: a line is no object of numbers"):
      read(tmp_path)


def test_tensorboard_gets_the_same_numbers(tmp_path):
  log, _, _ = make(tmp_path)
  log.write(1, {"loss": 0.5})
  log.close()
  assert list((tmp_path / logs.TENSORBOARD).glob("events.*"))
  assert json.loads((tmp_path / logs.METRICS).read_text()) == {"step": 1, "loss": 0.5}
