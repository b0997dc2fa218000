"""Do our checkpoint and its Hugging Face export answer alike? Needs torch and transformers.

  python scripts/same_answers.py workdir exported data/val_question.jsonl --limit 50

Pictures and prompts go through transformers' own processor and `generate` on one side, and through
`pg.load(…).processor` and `pg.generate` on the other. Prints every pair that differs, then how many
are equal; exit status 1 if any differs.
"""

import argparse
import json
import pathlib
import sys

import paligemma_jax as pg


def records(path: pathlib.Path, limit: int) -> list[tuple[pathlib.Path, str]]:
  """(picture, prefix) of the first records that have a prefix or objects to detect or segment."""
  found = []
  for line in path.read_text().splitlines()[:limit]:
    record = json.loads(line)
    prefix = record.get("prefix") or f"segment {record['objects'][0]['label']}"
    found.append((path.parent / record["image"], prefix))
  return found


def theirs(folder: str, examples: list, max_new_tokens: int) -> list[str]:
  """Answers of transformers, one example at a time."""
  import torch
  from PIL import Image
  from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

  model = PaliGemmaForConditionalGeneration.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager"
  )
  processor = AutoProcessor.from_pretrained(folder)
  texts = []
  for picture, prefix in examples:
    image = Image.open(picture).convert("RGB")
    inputs = processor(images=image, text="<image>" + prefix, return_tensors="pt")
    inputs.pop("labels", None)
    tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = tokens[0, inputs["input_ids"].shape[1] :]
    texts.append(processor.decode(new, skip_special_tokens=True))
  return texts


def ours(ckpt: str, examples: list, max_new_tokens: int) -> list[str]:
  """Answers of this package, all in one batch."""
  vlm = pg.load(ckpt)
  batch = vlm.processor(images=[str(p) for p, _ in examples], prompts=[t for _, t in examples])
  return pg.generate(vlm, batch, max_new_tokens=max_new_tokens).text


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("ckpt", help="anything that pg.load reads")
  parser.add_argument("folder", help="its Hugging Face export")
  parser.add_argument("data", type=pathlib.Path, help="JSONL")
  parser.add_argument("--limit", type=int, default=50)
  parser.add_argument("--max-new-tokens", type=int, default=32)
  args = parser.parse_args()
  examples = records(args.data, args.limit)
  pairs = list(
    zip(
      ours(args.ckpt, examples, args.max_new_tokens),
      theirs(args.folder, examples, args.max_new_tokens),
    )
  )
  for (picture, prefix), (a, b) in zip(examples, pairs):
    if a != b:
      print(f"{picture}: {prefix!r}: ours {a!r}, theirs {b!r}")
  same = sum(a == b for a, b in pairs)
  print(f"{same} of {len(pairs)} answers are the same text")
  sys.exit(same != len(pairs))


if __name__ == "__main__":
  main()
