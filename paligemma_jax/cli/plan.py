"""What a run needs and whether it fits, before it is paid for; compiled without the hardware.

  paligemma plan --config transfers/forkme.py:train=my.jsonl,init=pt_224.npz,preset=paligemma-3b \\
    --topology v5e:4x4 --eval
  paligemma plan --config … --topology v5p:4x4x4 --search

Neither weights nor data nor tokenizer need to exist. Topologies are those of v4, v5e, v5p, v6e and
tpu7x (pip install 'paligemma_jax[tpu]', no TPU). What the figures mean: docs/plan.md.
"""

import argparse
import sys

from paligemma_jax import errors
from paligemma_jax.cli import config, runtime, train

TRAINING = "training step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  train.add_config(parser)
  where = parser.add_mutually_exclusive_group()
  where.add_argument("--topology", metavar="NAME:AxB", help="TPU slice, e.g. v5e:4x4, v5p:4x4x4")
  where.add_argument("--devices", type=int, metavar="N", help="simulated CPU devices (default 1)")
  parser.add_argument("--eval", action="store_true", help="also what the evaluations run")
  parser.add_argument(
    "--search", action="store_true", help="try other batches, remat, meshes and precisions"
  )


def run(args: argparse.Namespace) -> None:
  """Prints the plan."""
  if args.devices is not None and args.devices < 1:
    raise errors.UserError(f"--devices {args.devices}: at least 1")
  if args.search and not args.topology:
    raise errors.UserError("--search compares times on a chip: give --topology, e.g. v5e:4x4")
  settings = config.load(args.config, args.overrides)
  if args.eval and not settings.evals:
    raise errors.UserError("--eval: the config has no evaluations (config.evals is empty)")
  runtime.start()
  import jax

  jax.config.update("jax_platforms", "cpu")  # nothing here runs on an accelerator
  from paligemma_jax.train import plan, setup, targets

  target = targets.tpu(args.topology) if args.topology else targets.cpu(args.devices or 1)
  made = plan.make(settings, target)
  print(runtime.table(_summary(made)), flush=True)
  for line in setup.check_shares(made.parts.leaves, made.parts.mesh, made.parts.rules):
    print(line, flush=True)
  _say(f"compiling the training step for {target.name} …")
  _show([plan.train_step(made)], made)
  if args.eval:
    _say("compiling the evaluations …")
    _show(plan.evaluations(made), made)
  if args.search:
    from paligemma_jax.train import search

    found = search.run(settings, target, say=_say)
    rows = [("examples/s", "step", "peak", "settings, where they differ from the config's")]
    rows += [_trial(t, search.flags(t.overrides)) for t in found]
    print("\n" + runtime.table(rows, right=(0, 1, 2)))
    if found and found[0].rate:
      print(f"fastest that fits: {search.flags(found[0].overrides) or 'the config itself'}")
    else:
      print("nothing that was tried fits; plan for more or larger devices")


def _show(programs: list, plan) -> None:
  for program in programs:
    print("\n" + "\n".join(_figures(program, plan)), flush=True)


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _summary(plan) -> list[tuple[str, str]]:
  """What is planned."""
  c, parts, target = plan.config, plan.parts, plan.target
  model, mesh = parts.model, ", ".join(f"{axis} {n}" for axis, n in parts.mesh.shape.items())
  kind = target.devices[0].device_kind
  text = f"{c.train.batch_size} examples a step, text {c.input.text_len}"
  if c.train.accumulate > 1:
    text += f", in {c.train.accumulate} pieces"
  remat = f"remat {model.remat}" + (f", image tower {model.remat_img}" if model.remat_img else "")
  recipe = f"{c.train.recipe}, {c.train.optimizer}, {len(plan.optimizer.trainable)} tensors"
  return [
    ("model", f"{model.config.name}, {model.dtype}, {remat}"),
    ("devices", f"{target.name} ({len(target.devices)} {kind}), mesh {c.mesh}: {mesh}"),
    ("batch", text),
    ("trains", recipe),
  ]


def _figures(p, plan) -> list[str]:
  """The figures of one program as lines."""
  m, devices, size = p.memory, plan.parts.mesh.devices.size, runtime.size
  waits = " (waits)" if p.name != TRAINING else ""
  rows = [(f"{p.name}, compiled in {p.compile_seconds:.0f} s", "a device")]
  rows += [("  parameters", size(m.params)), (f"  optimizer{waits}", size(m.optimizer))]
  rows += [("  batch", size(m.batch))]
  if not m.is_refused:
    rows += [("  activations, gradients, temporaries", size(m.temporaries))]
    rows += [("  program", size(m.program)), ("  peak", size(m.peak))]
  lines = [runtime.table(rows, right=(1,))]
  words = "fits:" if m.fits else "does not fit: needs"
  lines.append(f"{words} {size(m.peak)} of {size(m.limit)}")
  again = p.hardware_flops - p.model_flops
  twice = f", and {_si(again)} computed twice" if again else ""
  each = f"; {_si(p.hardware_flops / devices)} a device" if devices > 1 else ""
  lines.append(f"FLOPs {_si(p.model_flops)}{twice}{each}")
  if p.collectives:
    lines.append(_collectives(p.collectives))
  r = p.roofline
  if r is not None and m.fits:
    lines.append(
      f"at least {_ms(r.seconds)}: products {_ms(r.products)}, optimizer {_ms(r.update)},"
      f" sending {_ms(r.links)} meanwhile ({_ms(r.exposed)} one after the other)"
    )
    rate, mfu = p.batch_size / r.seconds, p.mfu(plan.target.chip, devices)
    lines.append(f"at most {rate:,.0f} examples/s, MFU {mfu:.0%}")
  return lines


def _trial(trial, flags: str) -> tuple[str, str, str, str]:
  p = trial.program
  if not trial.rate:
    return "does not fit", "", runtime.size(p.memory.peak), flags
  return f"{trial.rate:,.0f}", _ms(p.roofline.seconds), runtime.size(p.memory.peak), flags


def _collectives(found) -> str:
  rows = [("sent by each device", "times", "in all")]
  for c in found:
    note = "" if c.is_exact else " (at most)"
    rows.append((f"  {c.kind}{note}", f"{c.count:,}", runtime.size(c.num_bytes)))
  return runtime.table(rows, right=(1, 2))


def _ms(seconds: float) -> str:
  return f"{seconds * 1e3:,.1f} ms"


def _si(number: float) -> str:
  for unit in ("", " k", " M", " G", " T", " P"):
    if number < 1000 or unit == " P":
      return f"{number:.4g}{unit}"
    number /= 1000
