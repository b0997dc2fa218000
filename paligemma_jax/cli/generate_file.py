"""`generate --input --output`: batched, in order, continued where it stopped."""

import argparse
import json
import os
import pathlib

import tqdm

from paligemma_jax import errors
from paligemma_jax.cli import answers, generate


def run(args: argparse.Namespace) -> None:
  """Answers the lines of `args.input` that `args.output` does not hold yet."""
  from paligemma_jax.data import sources, templates

  if args.prompt is not None:
    templates.check(args.prompt, "--prompt")
  source, output = sources.Jsonl(args.input), pathlib.Path(args.output)
  start = present(output, source, args.prompt)
  if start == len(source):
    print(f"{output}: all {start} answers are there; remove it to answer anew")
    return
  for i in range(start, len(source)):
    _check_pictures(asked(source, i, args.prompt), source, i)  # no mistake waits for the model
  model = generate.open_model(args)
  for i in range(start, len(source)) if args.text_len else ():
    _check_length(asked(source, i, args.prompt), source.place(i), model, args.text_len)
  size = min(args.batch_size, len(source))
  bar = tqdm.tqdm(total=len(source), initial=start, unit="example", desc="generate", disable=None)
  with bar:
    for first in range(start, len(source), size):
      numbers = range(first, min(first + size, len(source)))
      lines = _answer(args, model, source, numbers, size)
      with output.open("ab") as file:  # one write a batch: a kill leaves at most one torn line
        file.write("".join(lines).encode())
        os.fsync(file.fileno())
      bar.update(len(numbers))
  print(f"{output}: {len(source) - start} answers")


def present(output: pathlib.Path, source, prompt: str | None = None) -> int:
  """How many answers the file holds already; a torn last line is cut off.

  Args:
    output: of an earlier run, or none yet.
    source, prompt: what is to be answered, as in `asked`.

  Raises:
    UserError: the lines there are no answers to this.
  """
  if not output.exists():
    return 0
  data = output.read_bytes()
  whole = data.rfind(b"\n") + 1
  lines = data[:whole].splitlines()
  for i, line in enumerate(lines):
    if i == len(source) or not _is_answer(line, asked(source, i, prompt)):
      to = source.path if prompt is None else f'"{prompt}" of {source.path}'
      raise errors.UserError(
        f"{output}:{i + 1}: not an answer to {to}; remove it or choose another --output"
      )
  if whole < len(data):
    with output.open("r+b") as file:
      file.truncate(whole)
  return len(lines)


def asked(source, i: int, prompt: str | None) -> dict:
  """Record i with what it is asked as its "prefix".

  Args:
    source: a `data.jsonl.Jsonl`.
    i: index of the record.
    prompt: a template for all records, or None; see `tasks.asked`.

  Raises:
    UserError: the record cannot be asked; it names its place.
  """
  from paligemma_jax.data import tasks

  record, place = source[i], source.place(i)
  if "image" not in record:
    raise errors.UserError(f'{place}: no key "image" (found: {", ".join(record)})')
  given = record["image"] if isinstance(record["image"], list) else [record["image"]]
  if not given or not all(isinstance(one, str | bytes) for one in given):
    found = record["image"]
    raise errors.UserError(f'{place}: "image" is {found!r}; wanted a path or a list of paths')
  try:
    text = tasks.asked(record, prompt)
  except errors.UserError as e:
    raise errors.UserError(f"{place}: {e}; write it, or give --prompt") from None
  if not isinstance(text, str):
    raise errors.UserError(f'{place}: "prefix" is {text!r}; wanted a string')
  return {**record, "prefix": text}


def _check_pictures(record: dict, source, i: int) -> None:
  from paligemma_jax.data import examples, files, problems

  for given in examples.image_list(record):
    missing = isinstance(given, str) and problems.no_file("image", files.join(source.folder, given))
    if missing:
      raise errors.UserError(f"{source.place(i)}: {missing[1]}")


def _check_length(record: dict, place: str, model, text_len: int) -> None:
  needed, _ = model.processor.token_lengths(record["prefix"], None)
  if needed > text_len:
    raise errors.UserError(f"{place}: the prompt has {needed} tokens, --text-len is {text_len}")


def _is_answer(line: bytes, record: dict) -> bool:
  """Whether the line is one that this command wrote for the record."""
  try:
    answer = json.loads(line)
  except (ValueError, RecursionError):
    return False
  if not isinstance(answer, dict) or "text" not in answer:
    return False
  record = _written(record)
  return all(answer.get(key) == record.get(key) for key in ("image", "prefix"))


def _written(record: dict) -> dict:
  """The record as JSON holds it: pictures that came inside it are `data:` URLs again."""
  from paligemma_jax.processing import image

  return json.loads(json.dumps(record, default=image.to_data_url))


def _answer(args, model, source, numbers, size: int) -> list[str]:
  """The output lines of one batch, filled up to `size` rows."""
  from paligemma_jax import vlm
  from paligemma_jax.data import examples

  records = [asked(source, i, args.prompt) for i in numbers]
  pictures = [
    examples.read_images(record, source.folder, source.place(i), model.processor.alpha)
    for i, record in zip(numbers, records)
  ]
  fill = size - len(records)  # the last batch must not compile a second program
  batch = model.processor(
    images=pictures + pictures[-1:] * fill,
    prompts=[r["prefix"] for r in records] + [records[-1]["prefix"]] * fill,
    text_len=args.text_len,
  )
  batch.valid[len(records) :] = False
  output = vlm.generate(
    model,
    batch,
    max_new_tokens=args.max_new_tokens,
    sampler=args.sampler,
    seed=args.seed,
    constrain=args.constrain,
    rows=range(numbers[0], numbers[0] + size),  # the same samples in any batch
  )
  sizes = [
    images[examples.object_image(record)].shape[:2] for images, record in zip(pictures, records)
  ]
  found = answers.answers(output, sizes, model.codec)
  rows = [{**_written(record), **answers.to_json(a)} for record, a in zip(records, found)]
  return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
