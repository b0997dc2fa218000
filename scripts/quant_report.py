"""What do few bits cost on your data? Forms of one model's weights, compared on a config's evaluations.

  python scripts/quant_report.py CKPT --config transfers/forkme.py:train=…,val=my/val.jsonl
  python scripts/quant_report.py CKPT --config CONFIG.py --forms int8 nf4-dq:decoder --limit 100

A form is "float" or what `--quant` takes (docs/adapters.md); the float model, which the others are
compared with, is always the first row. The columns:

  scores     of every evaluation of the config
  KL         nats from the float model's distribution of the next token to this one's, the mean over
             the supervised tokens of the evaluations' answers
  changed    share of the evaluations' predictions that are not the float model's
  bytes      of the weights in memory
  tokens/s   of decoding, for one row, the picture and prompt not counted; the best of three

What is measured of a form is told on stderr at once, the table comes at the end. One model is in
memory at a time. Exit status 2: bad input, told in one line.
"""

import argparse
import contextlib
import functools
import pathlib
import sys
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_jax import errors, sharding, vlm
from paligemma_jax.checkpoint import adapted, formats
from paligemma_jax.cli import config as configs
from paligemma_jax.cli import eval as evaluation
from paligemma_jax.cli import runtime
from paligemma_jax.data import pipeline
from paligemma_jax.decode import generate
from paligemma_jax.evals import runner
from paligemma_jax.models import paligemma
from paligemma_jax.train import setup

DEFAULT = ("int8", "int4", "nf4", "nf4-dq", "nf4-dq:decoder")
LENGTH = 64  # tokens that are decoded for the speed
PIECE = 2**23  # logits of a model that exist at a time


class Measured(NamedTuple):
  """What was measured of a form."""

  scores: dict[str, float]  # "EVALUATION/SCORE" -> value
  texts: list[str]  # predictions, in the order of the evaluations and their examples
  hidden: list  # float32[N, D] of every batch: states that predict its supervised tokens
  kl: float
  num_bytes: int
  speed: float | None


def main(argv: list[str] | None = None) -> int:
  rest, overrides = configs.split_overrides(sys.argv[1:] if argv is None else argv)
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add("ckpt", metavar="CKPT", help="as `paligemma eval --ckpt`")
  add("--config", required=True, metavar="FILE.py[:key=value,…]", help="whose evaluations count")
  add("--forms", nargs="+", default=DEFAULT, metavar="FORM", help=f"default: {' '.join(DEFAULT)}")
  add("--limit", type=int, default=0, metavar="N", help="only the first N examples of each")
  args = parser.parse_args(rest)
  try:
    report(args.ckpt, configs.load(args.config, overrides), args.forms, args.limit)
  except errors.UserError as e:
    print(f"quant_report: {e}", file=sys.stderr)
    return 2
  return 0


def report(ckpt: str, settings, forms, limit: int) -> None:
  """Prints the table."""
  setup.use_compilation_cache()
  if limit < 0:
    raise errors.UserError(f"--limit {limit}: 0 (all) or more")
  if not settings.evals:
    raise errors.UserError("the config has no evaluations (config.evals is empty)")
  settings.model.init = ckpt
  for one in settings.evals.values():
    one.limit = min(filter(None, (one.limit, limit)), default=0)
  c, inputs = evaluation.open_inputs(settings, list(settings.evals))
  answered = {f"evals.{name}.data": one.data for name, one in c.evals.items()}
  text_len = 0 if c.input.truncate else c.input.text_len
  pipeline.check(answered, inputs.processor, text_len, train=True)  # KL needs the answers
  forms = dict.fromkeys((adapted.FLOAT, *forms))
  quants = {form: adapted.forms(inputs.source, inputs.config, form) for form in forms}

  found: dict[str, Measured] = {}
  for form, quant in quants.items():
    start = time.monotonic()
    found[form] = measure(c, inputs, quant, next(iter(found.values()), None))
    head, *_, row = cells(found)
    told = ", ".join(f"{name} {cell}" for name, cell in zip(head[1:], row[1:]))
    print(f"{form}: {time.monotonic() - start:.0f} s; {told}", file=sys.stderr, flush=True)
  print(runtime.table(cells(found), right=range(1, 99)))


def cells(found: dict[str, Measured]) -> list[list[str]]:
  """The rows of the table, its head first."""
  floats = next(iter(found.values()))
  rows = [["form", *floats.scores, "KL", "changed", "bytes", "tokens/s"]]
  for form, m in found.items():
    changed = sum(a != b for a, b in zip(m.texts, floats.texts, strict=True))
    share = f"{changed / len(m.texts):.1%}" if m.texts else "-"
    scores = [f"{m.scores[name]:.4g}" if name in m.scores else "-" for name in floats.scores]
    mine = ["-", "-"] if m is floats else [f"{m.kl:.2g}", share]
    speed = f"{m.speed:.1f}" if m.speed else "-"
    rows.append([form, *scores, *mine, runtime.size(m.num_bytes), speed])
  return rows


def measure(c, inputs, quant: dict, floats: Measured | None) -> Measured:
  """Everything about the weights in one form; `floats`: what was measured of the float model."""
  mesh, rules = setup.make_mesh(c.mesh)
  model = paligemma.PaliGemma(inputs.config, c.model.dtype or vlm.default_dtype(), rules=rules)
  params = formats.load_params(inputs.source, inputs.config, mesh=mesh, rules=rules, quant=quant)
  with jax.set_mesh(mesh):
    parts = model, params, inputs.processor, inputs.codec, mesh, rules
    results = runner.run_config(c, *parts)
    hidden, kls = [], []
    for batch in supervised_batches(c, inputs, mesh, rules):
      states = states_of(model, params, sharding.put_batch(batch, mesh, rules))
      states = np.asarray(states)[(batch.mask_loss[:, 1:] > 0) & batch.valid[:, None]]
      if floats is None:
        hidden.append(states)
      else:
        kls.append(divergence(model, params, floats.hidden[len(kls)], states))
    speed = decoding_speed(c, model, params, inputs.processor, mesh, rules)
  scores = {f"{name}/{key}": x for name, (one, _) in results.items() for key, x in one.items()}
  texts = [r["prediction"] for _, rows in results.values() for r in rows if "prediction" in r]
  kl = float(np.concatenate(kls).mean()) if kls else 0.0
  num_bytes = sum(x.nbytes for x in sharding.flatten(params).values())
  return Measured(scores, texts, hidden, kl, num_bytes, speed)


def supervised_batches(c, inputs, mesh, rules):
  """The examples of all evaluations with their answers, as in training."""
  for one in c.evals.values():
    size = sharding.whole_batch(one.batch_size, mesh, rules)
    batches = pipeline.eval_batches(
      one.data, inputs.processor, batch_size=size, text_len=c.input.text_len, limit=one.limit,
      with_suffix=True, codec=inputs.codec, max_unreadable=c.input.max_unreadable,
      truncate=c.input.truncate,
    )  # fmt: skip
    with contextlib.closing(batches):
      yield from (batch for batch, _ in batches)


@functools.partial(jax.jit, static_argnames="model")
def states_of(model, params: dict, batch) -> jax.Array:
  """float32[B, T, D]: the states that predict the tokens of a batch in the training layout."""
  text, mask_ar = batch.text[:, :-1], batch.mask_ar[:, :-1]
  more = dict(mask_image=batch.mask_image, method="hidden")
  return model.apply({"params": params}, batch.image, text, mask_ar, **more)


def divergence(model, params: dict, p: np.ndarray, q: np.ndarray) -> np.ndarray:
  """float32[N]: KL(P || Q) in nats of the next token's distributions after states float32[N, D]."""
  size = max(1, min(512, PIECE // model.config.llm.vocab_size))
  pad = lambda x: np.pad(x, ((0, -len(x) % size), (0, 0)))  # all pieces have one shape
  pieces = zip(*(np.split(pad(x), -(-len(x) // size)) for x in (p, q))) if len(p) else ()
  found = [_divergence(model, params, *pair) for pair in pieces]
  return np.concatenate([np.zeros(0, np.float32), *found])[: len(p)]


@functools.partial(jax.jit, static_argnames="model")
def _divergence(model, params, p, q):
  logits = [model.apply({"params": params}, x, method="logits") for x in (p, q)]
  p, q = map(jax.nn.log_softmax, logits)
  return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def decoding_speed(c, model, params: dict, processor, mesh, rules) -> float | None:
  """Tokens a second of one row, the first example, EOS not heeded; None: lost in the noise."""
  size = sharding.whole_batch(1, mesh, rules)
  data = next(iter(c.evals.values())).data
  batches = pipeline.eval_batches(
    data, processor, batch_size=size, text_len=c.input.text_len, limit=1, truncate=c.input.truncate
  )
  with contextlib.closing(batches):
    batch, _ = next(iter(batches))
  batch, params = sharding.put_batch(batch, mesh, rules), generate.decode_params(params)

  def seconds(length):
    run = lambda: generate.generate(model, params, batch, max_new_tokens=length, eos=-1)
    jax.block_until_ready(run())  # compiled
    times = []
    for _ in range(3):
      start = time.perf_counter()
      jax.block_until_ready(run())
      times.append(time.perf_counter() - start)
    return min(times)

  rest = seconds(1 + LENGTH) - seconds(1)
  return LENGTH / rest if rest > 0 else None


if __name__ == "__main__":
  sys.exit(main())
