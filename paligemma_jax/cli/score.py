"""How likely given answers to a prompt about a picture are, exactly.

  paligemma score --ckpt CKPT --image cat.jpg --prompt "answer en what animal?" --answers animals.txt

Prints every answer with its log-probability (nats, its end included) and its share among the answers,
the likeliest first.
"""

import argparse
import json

from paligemma_jax import errors
from paligemma_jax.cli import generate, runtime
from paligemma_jax.data import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's options."""
  parser.set_defaults(run=run)
  generate.add_checkpoint(parser)
  add = parser.add_argument
  add(
    "--image",
    action="append",
    required=True,
    metavar="FILE",
    help="picture; again for several in one prompt",
  )
  add("--prompt", required=True, metavar="TEXT", help='e.g. "answer en is it day or night?"')
  add("--answers", required=True, metavar="FILE", help="one answer a line, or a JSON list of them")
  add("--text-len", type=int, metavar="T", help="tokens of the prompt (default: as it needs)")
  add("--json", action="store_true", help='print a list of {"answer", "logprob", "prob"}')


def run(args: argparse.Namespace) -> None:
  """Scores."""
  answers = read_answers(args.answers)
  if args.text_len is not None and args.text_len < 1:
    raise errors.UserError(f"--text-len is {args.text_len}; it must be at least 1")
  for path in args.image:
    generate.read_image(path)  # a broken one must not wait for the weights
  runtime.start()
  from paligemma_jax import vlm

  model = vlm.load(args.ckpt, tokenizer=args.tokenizer, adapter=args.adapter, quant=args.quant)
  images = [generate.read_image(path, alpha=model.processor.alpha) for path in args.image]
  batch = model.processor([images], [args.prompt], text_len=args.text_len)
  found = vlm.score(model, batch, answers)
  rows = zip(answers, found.logprobs[0].tolist(), found.probs[0].tolist())
  rows = sorted(rows, key=lambda row: -row[1])
  if args.json:
    keys = ("answer", "logprob", "prob")
    print(json.dumps([dict(zip(keys, row)) for row in rows], ensure_ascii=False))
    return
  shown = [(f"{prob:.4f}", f"{logprob:.4f}", answer) for answer, logprob, prob in rows]
  print(runtime.table([("share", "logprob", "answer"), *shown], right=(0, 1)))


def read_answers(path: str) -> list[str]:
  """The answers in a file: a JSON list of strings, else its lines without the blank ones.

  Raises:
    UserError: no such file, no answers, one that comes twice, or JSON that is no list of strings.
  """
  try:
    text = files.read_bytes(path, "--answers").decode()
  except UnicodeDecodeError as e:
    raise errors.UserError(
      f"--answers {path} is not UTF-8 (byte {e.start}); save the file as UTF-8"
    ) from None
  if text.lstrip()[:1] == "[":
    answers = _listed(text, path)
  else:
    answers = [line for line in text.splitlines() if line.strip()]
  if not answers:
    raise errors.UserError(f"--answers {path} holds no answers; write one a line")
  if twice := [a for i, a in enumerate(answers) if a in answers[:i]]:
    raise errors.UserError(f'--answers {path} holds "{twice[0]}" twice; keep one')
  return answers


def _listed(text: str, path: str) -> list[str]:
  try:
    answers = json.loads(text)
  except (ValueError, RecursionError) as e:
    raise errors.UserError(f"--answers {path} begins as a JSON list but is none ({e})") from None
  if not all(isinstance(answer, str) for answer in answers):
    raise errors.UserError(f"--answers {path} is a list, but not of strings")
  return answers
