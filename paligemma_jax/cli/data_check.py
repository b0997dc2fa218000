"""`data check`: reads whole sources, tells every defect, writes a page. Status 2 if there is one."""

import argparse
import pathlib

from paligemma_jax import errors
from paligemma_jax.cli import config, runtime, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  train.add_config(parser, required=False)
  add = parser.add_argument
  add("file", nargs="?", metavar="FILE.jsonl", help="instead of --config: one file")
  add("--out", metavar="FILE.html", help="write what was found as a page, with examples")
  add("--tokenizer", metavar="FILE|DIR", help="of a FILE.jsonl (default: $PALIGEMMA_TOKENIZER)")
  add("--text-len", type=int, default=0, metavar="T", help="tokens that fit, of a FILE.jsonl")
  add("--codec", metavar="FILE.npz", help="mask codec, of a FILE.jsonl with masks")


def run(args: argparse.Namespace) -> int:
  """Checks, prints one line for each kind of defect; returns the exit status."""
  _check_arguments(args)
  given = config.load(args.config, args.overrides) if args.config else None
  runtime.start()
  found, unscored, processor, codec = _of_config(given) if given is not None else _of_file(args)
  from paligemma_jax.data import survey
  from paligemma_jax.evals import data_page

  print(_table(found))
  for title, notes in (("defects", False), ("worth a look", True)):
    lines = survey.lines(found, notes)
    if lines:
      wide = max(len(str(count)) for _, _, count, _ in lines)
      print("\n".join([f"\n{title}:", *(f"{n:>{wide}} × {line}" for _, _, n, line in lines)]))
  if unscored:
    print("\n".join(["\nevaluations that cannot be scored:", *unscored]))
  if args.out:
    data_page.write(args.out, found, processor, codec)
    print(f"\n{args.out}")
  return 2 if survey.lines(found) or unscored else 0


def _check_arguments(args) -> None:
  if bool(args.config) == bool(args.file):
    raise errors.UserError("give --config FILE.py or a FILE.jsonl, one of them")
  if args.file and args.overrides:
    raise errors.UserError(f"--config.{args.overrides[0][0]} is for --config; leave it out")
  for name in ("tokenizer", "text_len", "codec"):
    if args.config and getattr(args, name):
      option = name.replace("_", "-")
      raise errors.UserError(f"--{option} is for a FILE.jsonl; set --config.input.{name}")
  if args.text_len < 0:
    raise errors.UserError(f"--text-len is {args.text_len}; it must be at least 1")
  if args.out:
    if pathlib.Path(args.out).suffix != ".html":
      raise errors.UserError(f"--out {args.out}: name an .html file")
    runtime.check_folder("--out", args.out)


def _of_config(given):
  """What is found in all sources of a config; evaluations that cannot be; its processor; its codec."""
  from paligemma_jax.data import survey
  from paligemma_jax.evals import checks
  from paligemma_jax.train import settings, setup  # imports JAX

  c = settings.check(given)
  setup.build(c.build)
  inputs = setup.open_inputs(c)
  train_data = {f"train.data.{name}": source for name, source in c.train.data.items()}
  found = survey.run(
    train_data,
    {f"evals.{name}.data": e.data for name, e in c.evals.items()},
    inputs.processor,
    text_len=c.input.text_len,
    scored=[f"evals.{name}.data" for name, e in c.evals.items() if e.metric == "perplexity"],
    codec=inputs.codec,
  )
  return found, checks.findings(c.evals, inputs.codec), inputs.processor, inputs.codec


def _of_file(args):
  """The same for a file alone: its task is told from its records."""
  from paligemma_jax.data import survey
  from paligemma_jax.processing import processor as processors

  codec = None
  if args.codec:
    from paligemma_jax.models import vqvae  # imports JAX

    codec = vqvae.load(args.codec)
  processor = processors.Processor.from_files({}, res=224, tokenizer=args.tokenizer)
  if args.text_len and processor.tokenizer is None:
    processor.need_tokenizer()  # says where it was looked for
  source = {"kind": "jsonl", "path": args.file, "task": survey.guess_task(args.file)}
  found = survey.run({"data": source}, {}, processor, text_len=args.text_len, codec=codec)
  return found, [], processor, codec


def _table(surveys) -> str:
  """How much was read, one row a source."""
  rows = [("source", "examples", "pictures", "objects", "longest", "text_len", "mask IoU", "path")]
  for s in surveys:
    if s.report is not None:
      longest = s.lengths.max() if len(s.lengths) else ""
      iou = f"{s.ious.mean():.3f}" if len(s.ious) else ""
      source = s.report.source
      numbers = (len(source), s.num_pictures, s.num_objects, longest, s.text_len or "", iou)
      rows.append((s.name, *map(str, numbers), source.path))
  return runtime.table(rows, right=range(1, 7))
