"""What `generate` says about an answer: text, tokens, log-probability, boxes and masks in pixels."""

import numpy as np

from paligemma_jax.cli import runtime
from paligemma_jax.processing import draw, masks


def answers(output, sizes: list[tuple[int, int]], codec: dict | None) -> list[dict]:
  """One plain dict for each answer.

  Args:
    output: `structs.Output` of at least len(sizes) rows; more are padding.
    sizes: (height, width) in pixels of the picture that boxes refer to.
    codec: of `models.vqvae`; without it there are no masks.

  Returns:
    "text", "tokens" (up to and with EOS), "logprob" (their sum, nats), and where the text names
    objects "objects": [{"label", "box", "score", "codes", "mask": bool[H, W] or None}].
  """
  from paligemma_jax.evals import objects  # imports JAX

  rows = []
  for i, (height, width) in enumerate(sizes):
    tokens = [int(t) for t in output.tokens[i] if t]  # 0 only fills up after EOS
    row = {
      "text": output.text[i],
      "tokens": tokens,
      "logprob": round(float(np.sum(output.logprobs[i][: len(tokens)])), 6),
      "height": height,
      "width": width,
      "objects": objects.parse(output.text[i], height, width, output.spans[i], output.logprobs[i]),
    }
    rows.append(row)
  return objects.with_masks(rows, "objects", codec)


def to_json(answer: dict) -> dict:
  """The answer as `--json` prints it.

  "boxes": [{"label", "box": [x0, y0, x1, y1], "score"}] and "masks", one for each box: COCO RLE
  {"size": [height, width], "counts"}, or null; each key only where there are any.
  """
  plain = {key: answer[key] for key in ("text", "tokens", "logprob")}
  if answer["objects"]:
    keys = ("label", "box", "score")
    plain["boxes"] = [{key: o[key] for key in keys if key in o} for o in answer["objects"]]
  found = [o["mask"] for o in answer["objects"]]
  if any(mask is not None for mask in found):
    plain["masks"] = [None if mask is None else masks.encode_rle(mask) for mask in found]
  return plain


def save_drawing(path: str, image: np.ndarray, answer: dict) -> None:
  """Writes the picture with the answer's boxes and masks on it."""
  runtime.save_picture(draw.annotate(image, draw.marks(answer["objects"])), path)


def has_codes(answer: dict) -> bool:
  """Whether the text holds masks."""
  return any(o["codes"] is not None for o in answer["objects"])
