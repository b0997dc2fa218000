"""Whole programs over weights in few bits: no layer but the one at work is ever there in floats."""

import importlib.util
import json
import subprocess
import sys

import pytest

NEEDS_LIBTPU = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "int4", "nf4-dq"])
@pytest.mark.parametrize("program", ["decode", "train"])
@pytest.mark.parametrize("where", ["cpu", pytest.param("v5e:1x1", marks=NEEDS_LIBTPU)])
def test_no_stack_of_layers_is_there_in_floats(where, program, form):
  argv = [sys.executable, "-m", "tests.models.compiled_few_bits", where, program, form]
  run = subprocess.run(argv, capture_output=True, text=True, check=True)
  assert json.loads(run.stdout) == []


@pytest.mark.slow
def test_a_stack_in_floats_would_be_found():
  argv = [sys.executable, "-m", "tests.models.compiled_few_bits", "cpu", "train", "int8:attention"]
  run = subprocess.run(argv, capture_output=True, text=True, check=True)
  assert json.loads(run.stdout)  # those of the MLPs, which stay floats
