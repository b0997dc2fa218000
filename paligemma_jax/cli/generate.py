"""Answer a prompt about a picture, or every line of a JSONL file.

  paligemma generate --ckpt pt_224.npz --image cat.jpg --prompt "detect cat" --draw boxes.png
  paligemma generate --ckpt CKPT --input data.jsonl --output answers.jsonl

  paligemma generate --ckpt CKPT --input val.jsonl --prompt "detect {label}" --output boxes.jsonl

Lines of --input hold "image" (a path or a list of them) and "prefix", or "objects", whose labels are
then asked for ("detect cat ; dog"); --prompt asks the same of every line, {field} is the value of that
key. --output gets each line with the keys of --json added, in order. The same command again continues
after the lines that are there.
"""

import argparse
import json
import sys

from paligemma_jax import errors
from paligemma_jax.cli import runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  add_checkpoint(parser)
  add = parser.add_argument
  add("--image", action="append", metavar="FILE", help="picture; again for several in one prompt")
  add(
    "--prompt", metavar="TEXT", help='e.g. "caption en", "detect cat"; with --input of every line'
  )
  add("--input", metavar="DATA.jsonl", help="answer every line of this file")
  add("--output", metavar="PREDS.jsonl", help="where the answers to --input go")
  add("--batch-size", type=int, default=8, metavar="B", help="lines at a time (default 8)")
  add("--max-new-tokens", type=int, default=128, metavar="N", help="longest answer (default 128)")
  add(
    "--sampler",
    default="greedy",
    help="greedy, temperature:T, top_k:K, nucleus:P, beam:N, best_of:N:T (default greedy)",
  )
  add(
    "--constrain",
    metavar="GRAMMAR",
    help="keep to boxes of the labels that the prompt names: detect, segment, detect_all (as many as"
    " there is room for); refer: one box and mask",
  )
  add("--seed", type=int, default=0, metavar="S", help="of the random samplers (default 0)")
  add("--text-len", type=int, metavar="T", help="tokens of the prompt (default: as it needs)")
  add("--stream", action="store_true", help="print the words as they come")
  add("--json", action="store_true", help="print text, tokens, logprob, boxes and masks")
  add("--draw", metavar="OUT.png", help="write the picture with boxes and masks on it")
  add("--codec", metavar="FILE.npz", help="mask codec (vae-oid.npz; default: the checkpoint's own)")


def add_checkpoint(parser: argparse.ArgumentParser, **options) -> None:
  """Adds `--ckpt`, with further options of argparse, and `--tokenizer`, for what uses a model."""
  parser.add_argument(
    "--ckpt",
    required=True,
    metavar="CKPT",
    **{"help": "npz, Hugging Face folder or Hub id, Orbax checkpoint, or workdir", **options},
  )
  parser.add_argument(
    "--tokenizer",
    metavar="FILE|DIR",
    help="default: beside the checkpoint, else $PALIGEMMA_TOKENIZER",
  )
  parser.add_argument(
    "--adapter",
    metavar="DIR",
    help="a PEFT folder, or a run that trained adapters, of this checkpoint",
  )
  parser.add_argument(
    "--quant",
    metavar="FORM",
    help="weights in few bits: int8, int4, nf4, nf4-dq; FORM:decoder of the decoder alone; float"
    " (default: as stored)",
  )


def run(args: argparse.Namespace) -> None:
  """Answers."""
  _check(args)
  if args.input:
    from paligemma_jax.cli import generate_file

    generate_file.run(args)
  else:
    _one(args)


def _check(args) -> None:
  """What can be told from the arguments alone, before anything is read."""
  many = args.input or args.output
  if not args.input and not (args.image and args.prompt is not None):
    raise errors.UserError("give --image and --prompt, or --input and --output")
  if args.image and many:
    raise errors.UserError("--input takes pictures from its lines; leave out --image")
  if bool(args.input) != bool(args.output):
    raise errors.UserError("--input and --output go together; give both")
  if many and (args.stream or args.draw or args.json):
    option = "--stream" if args.stream else "--draw" if args.draw else "--json"
    raise errors.UserError(f"{option} is for one answer; leave it out with --input")
  if args.stream and (args.json or args.draw):
    raise errors.UserError("--stream prints words only; leave out --json and --draw")
  for name in ("batch_size", "max_new_tokens", "text_len"):
    if (value := getattr(args, name)) is not None and value < 1:
      raise errors.UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
  if args.draw:
    runtime.check_picture_path("--draw", args.draw)
  if args.output:
    runtime.check_folder("--output", args.output)


def read_image(path: str, where: str = "", alpha: str = "drop"):
  """uint8[H, W, 3] of a picture file or URL; a UserError names the file (and place) if it is none."""
  from paligemma_jax.data import files
  from paligemma_jax.processing import image

  return image.decode(files.read_bytes(path, where), f"{where}: {path}" if where else path, alpha)


def open_model(args: argparse.Namespace):
  """The model of `--ckpt`, with `--tokenizer` and `--codec`."""
  runtime.start()
  from paligemma_jax import vlm
  from paligemma_jax.decode import grammar, samplers  # imports JAX

  samplers.parse(args.sampler)  # a misspelt one must not wait for the weights
  if args.constrain:
    grammar.check(args.constrain)
  return vlm.load(
    args.ckpt,
    tokenizer=args.tokenizer,
    codec=args.codec,
    adapter=args.adapter,
    quant=args.quant,
  )


def _one(args) -> None:
  """One answer, printed."""
  for path in args.image:
    read_image(path)  # a broken one must not wait for the weights
  model = open_model(args)
  images = [read_image(path, alpha=model.processor.alpha) for path in args.image]
  batch = model.processor(
    images=[images if len(images) > 1 else images[0]],
    prompts=[args.prompt],
    text_len=args.text_len,
  )
  if args.stream:
    _stream(args, model, batch)
    return
  from paligemma_jax import vlm
  from paligemma_jax.cli import answers

  output = vlm.generate(
    model,
    batch,
    max_new_tokens=args.max_new_tokens,
    sampler=args.sampler,
    seed=args.seed,
    constrain=args.constrain,
  )
  answer = answers.answers(output, [images[-1].shape[:2]], model.codec)[0]
  print(json.dumps(answers.to_json(answer), ensure_ascii=False) if args.json else answer["text"])
  if args.draw:
    answers.save_drawing(args.draw, images[-1], answer)
  if model.codec is None and answers.has_codes(answer) and (args.json or args.draw):
    print("paligemma: the answer holds masks; give --codec to see them", file=sys.stderr)


def _stream(args, model, batch) -> None:
  """Prints the text as it grows; letters that need two tokens wait for the second."""
  from paligemma_jax import vlm
  from paligemma_jax.decode import generate

  limits = args.constrain, args.max_new_tokens
  tokens, shown = [], ""
  for token in generate.stream(
    model.model,
    model.params,
    batch,
    max_new_tokens=args.max_new_tokens,
    sampler=args.sampler,
    seed=args.seed,
    rules=vlm.make_rules(model.processor, model.config, batch, *limits),
  ):
    tokens.append(token)
    text = model.processor.tokenizer.decode(tokens)
    if text.startswith(shown) and not text.endswith("\ufffd"):
      print(text[len(shown) :], end="", flush=True)
      shown = text
  print(model.processor.tokenizer.decode(tokens)[len(shown) :])
