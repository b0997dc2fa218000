"""scripts/quant_report.py: what it measures of the forms of a toy model."""

import json

import jax
import numpy as np
import pytest

import paligemma_jax as pg
from paligemma_jax import sharding
from paligemma_jax.checkpoint import formats
from scripts import quant_report
from tests import toy
from tests.train import toy_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A folder with pt.npz of random weights, and config.py with an evaluation of eight examples."""
  folder = tmp_path_factory.mktemp("base")
  data = toy_run.write_data(folder / "data")
  flat = toy.flat_params(toy.config())
  read = lambda name, layer=None: flat[name] if layer is None else flat[name][layer]
  assets = {p.name: p.read_bytes() for p in data.glob("token*")}
  formats.save(folder / "pt.npz", read, toy.config(), assets)
  (folder / "config.py").write_text(f"""
from paligemma_jax.transfers import common
def get_config(arg=None):
  c = common.base(res=28, text_len=16)
  c.mesh = "single"
  source = common.jsonl({str(data / "train.jsonl")!r})
  c.evals.val = common.evaluate(source, "exact_match", max_new_tokens=3, batch_size=8)
  return c
""")
  return folder


def load(base, form):
  mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
  return pg.load(base / "pt.npz", quant=form, mesh=mesh)


def logprobs(model, batch):
  """float64[B, T, V] of the next token."""
  inputs = batch.image, batch.text[:, :-1], batch.mask_ar[:, :-1]
  logits, _ = model.model.apply({"params": model.params}, *inputs)
  x = np.asarray(logits, np.float64)
  x -= x.max(axis=-1, keepdims=True)
  return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def rows(text):
  head, *lines = (line.split() for line in text.splitlines())
  return head, {line[0]: line[1:] for line in lines}


@pytest.mark.slow
def test_the_report_of_a_toy_model(base, capsys):
  argv = [str(base / "pt.npz"), "--config", str(base / "config.py"), "--forms", "int4-32", "float"]
  assert quant_report.main(argv) == 0
  printed = capsys.readouterr()
  head, found = rows(printed.out)
  assert head[0] == "form" and {"val/exact_match", "KL", "changed", "tokens/s"} <= set(head)
  assert list(found) == ["float", "int4-32"]
  assert [line.split(":")[0] for line in printed.err.splitlines()[-2:]] == ["float", "int4-32"]

  lines = [json.loads(s) for s in (base / "data/train.jsonl").read_text().splitlines()]
  models = [load(base, form) for form in ("float", "int4-32")]
  asked = [base / "data" / r["image"] for r in lines], [r["prefix"] for r in lines]
  batch = models[0].processor(*asked, suffixes=[r["suffix"] for r in lines], text_len=16)
  p, q = (logprobs(model, batch) for model in models)
  kl = (np.exp(p) * (p - q)).sum(axis=-1)[batch.mask_loss[:, 1:] > 0].mean()
  cells = dict(zip(head, ["int4-32", *found["int4-32"]]))  # bytes are two words, the last but one
  assert float(cells["KL"]) == pytest.approx(kl, rel=0.06)  # two digits are printed
  said = [pg.generate(m, m.processor(*asked, text_len=16), max_new_tokens=3).text for m in models]
  changed = np.mean([a != b for a, b in zip(*said)])
  assert cells["changed"] == f"{changed:.1%}"


def test_the_divergence_does_not_depend_on_its_pieces(base, monkeypatch):
  model = load(base, "float")
  p, q = np.random.default_rng(0).normal(size=(2, 7, 48)).astype(np.float32)
  whole = quant_report.divergence(model.model, model.params, p, q)
  monkeypatch.setattr(quant_report, "PIECE", 3 * 1500)
  pieces = quant_report.divergence(model.model, model.params, p, q)
  np.testing.assert_allclose(pieces, whole, atol=2e-6)
  np.testing.assert_allclose(quant_report.divergence(model.model, model.params, p, p), 0, atol=2e-6)


@pytest.mark.parametrize(
  "options, message",
  [
    (["--forms", "int5"], 'quant "int5" is unknown'),
    (["--forms", "nf4:nothing"], "matches no whole name"),
    (["--limit", "-1"], "--limit -1: 0 (all) or more"),
    (["--config.evals.nothing.limit=1"], "nothing"),
  ],
)
def test_bad_input_is_one_line(base, capsys, options, message):
  argv = [str(base / "pt.npz"), "--config", str(base / "config.py"), *options]
  assert quant_report.main(argv) == 2
  printed = capsys.readouterr()
  assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
