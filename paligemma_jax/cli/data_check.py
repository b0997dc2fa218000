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
  add("files", nargs="*", metavar="FILE.jsonl", help="instead of --config: files, compared too")
  add("--out", metavar="FILE.html", help="write what was found as a page, with examples")
  add("--tokenizer", metavar="FILE|DIR", help="of a FILE.jsonl (default: $PALIGEMMA_TOKENIZER)")
  add("--text-len", type=int, default=0, metavar="T", help="tokens that fit, of a FILE.jsonl")
  add("--codec", metavar="FILE.npz", help="mask codec, of a FILE.jsonl with masks")


def run(args: argparse.Namespace) -> int:
  """Checks, prints one line for each kind of defect; returns the exit status."""
  _check_arguments(args)
  given = config.load(args.config, args.overrides) if args.config else None
  runtime.start()
  found, unscored, processor, codec = _of_config(given) if given is not None else _of_files(args)
  from paligemma_jax.data import survey
  from paligemma_jax.evals import data_page

  print(_table(found))
  for title, notes in (("defects", False), ("worth a look", True)):
    lines = survey.lines(found, notes)
    if lines:
      wide = max(len(str(count)) for _, _, count, _ in lines)
      print("\n".join([f"\n{title}:", *(f"{n:>{wide}} × {line}" for _, _, n, line in lines)]))
  if not survey.lines(found):
    print(f"\nno defects found in {_total(found)}")
  if unscored:
    print("\n".join(["\nevaluations that cannot be scored:", *unscored]))
  if args.out:
    data_page.write(args.out, found, processor, codec)
    print(f"\n{args.out}")
  return 2 if survey.lines(found) or unscored else 0


def _check_arguments(args) -> None:
  if bool(args.config) == bool(args.files):
    raise errors.UserError("give --config FILE.py or a FILE.jsonl, one of them")
  if args.files and args.overrides:
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

  is_open = not (given.model.init or given.model.preset)  # which model it will be
  if is_open:
    given.model.preset = "tiny"  # nothing of it is used
  c = settings.check(given)
  setup.build(c.build)
  processor, codec = _without_model(c.input) if is_open else _of_model(c)
  train_data = {f"train.data.{name}": source for name, source in c.train.data.items()}
  found = survey.run(
    train_data,
    {f"evals.{name}.data": e.data for name, e in c.evals.items()},
    processor,
    text_len=c.input.text_len,
    scored=[f"evals.{name}.data" for name, e in c.evals.items() if e.metric == "perplexity"],
    codec=codec,
  )
  return found, checks.findings(c.evals, codec), processor, codec


def _of_model(c):
  """Processor and codec of the model that the config names."""
  from paligemma_jax.train import setup

  inputs = setup.open_inputs(c)
  return inputs.processor, inputs.codec


def _without_model(given):
  """Processor and codec of what is given apart from a model."""
  from paligemma_jax.processing import processor as processors

  codec = None
  if given.get("codec"):
    from paligemma_jax.models import vqvae  # imports JAX

    codec = vqvae.load(given["codec"])
  settings = {key: given.get(key) or None for key in ("tokenizer", "resize", "alpha", "text_len")}
  return processors.Processor.from_files({}, res=224, **settings), codec


def _of_files(args):
  """The same for files alone: their tasks are told from their records."""
  from paligemma_jax.data import survey

  processor, codec = _without_model({"tokenizer": args.tokenizer, "codec": args.codec})
  if args.text_len and processor.tokenizer is None:
    processor.need_tokenizer()  # says where it was looked for
  tasks = {path: survey.guess_task(path) for path in dict.fromkeys(args.files)}
  names = ["data"] if len(tasks) == 1 else [f"data{k}" for k in range(1, len(tasks) + 1)]
  sources = [{"kind": "jsonl", "path": path, "task": task} for path, task in tasks.items()]
  sources = dict(zip(names, sources))
  found = survey.run(sources, {}, processor, text_len=args.text_len, codec=codec)
  return found, [], processor, codec


def _total(surveys) -> str:
  """Numbers of all that was read."""
  opened = [s for s in surveys if s.report is not None]
  counts = {
    "example": sum(len(s.report.source) for s in opened),
    "picture": sum(s.num_pictures for s in opened),
    "object": sum(s.num_objects for s in opened),
  }
  return ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())


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
