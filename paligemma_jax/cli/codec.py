"""The mask codec: train one on your own masks, or turn masks into tokens and back.

paligemma codec train --data masks.jsonl --out codec.npz
paligemma codec train --data masks.jsonl --out codec.npz --hidden 4 --embedding 32 --steps 700 --batch-size 32 --lr 3e-3
paligemma codec encode --codec vae-oid.npz --mask cat.png --label cat
paligemma codec decode --codec vae-oid.npz --text "<loc0100>…<seg012> cat" --size 480 640 --out cat.png

The second is a small one: a minute on two CPU cores, where the published widths take hours.
"""

import argparse
import os
import pathlib
import sys

from paligemma_jax import errors
from paligemma_jax.cli import runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the three commands and their options."""
  commands = parser.add_subparsers(metavar="train|encode|decode", required=True)
  fit = commands.add_parser("train", help="train a codec on the masks of a JSONL file")
  fit.set_defaults(run=_train)
  fit.add_argument(
    "--data", required=True, metavar="FILE.jsonl", help='"objects" with box and mask'
  )
  fit.add_argument("--out", required=True, metavar="CODEC.npz")
  fit.add_argument("--steps", type=int, default=10_000, metavar="N", help="default 10000")
  fit.add_argument("--batch-size", type=int, default=64, metavar="B", help="default 64")
  fit.add_argument("--lr", type=float, default=1e-3, help="peak of the schedule (default 0.001)")
  fit.add_argument(
    "--hidden", type=int, default=16, help="narrowest width (default 16, as published)"
  )
  fit.add_argument(
    "--embedding", type=int, default=512, help="width of a code (default 512, as published)"
  )
  fit.add_argument("--seed", type=int, default=0, metavar="S")
  encode = commands.add_parser("encode", help="a mask picture -> loc and seg tokens")
  encode.set_defaults(run=_encode)
  encode.add_argument("--codec", required=True, metavar="CODEC.npz")
  encode.add_argument("--mask", required=True, metavar="MASK.png", help="of the whole picture")
  box = ("X0", "Y0", "X1", "Y1")
  encode.add_argument(
    "--box", type=float, nargs=4, metavar=box, help="pixels (default: around the mask)"
  )
  encode.add_argument("--label", default="", metavar="TEXT")
  decode = commands.add_parser("decode", help="loc and seg tokens -> a mask picture")
  decode.set_defaults(run=_decode)
  decode.add_argument("--codec", required=True, metavar="CODEC.npz")
  decode.add_argument("--text", required=True, help="an answer; all its masks are joined")
  decode.add_argument("--size", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"))
  decode.add_argument("--out", required=True, metavar="MASK.png")


def _train(args) -> None:
  out = pathlib.Path(args.out)
  if out.suffix != ".npz":
    raise errors.UserError(f"--out {out}: name an .npz file")
  runtime.check_folder("--out", args.out)
  for name in ("steps", "batch_size", "hidden", "embedding"):
    if getattr(args, name) < 1:
      raise errors.UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}; at least 1")
  crops = collect(args.data)
  runtime.start()
  from paligemma_jax.train import codec  # imports JAX

  say = lambda line: print(line, file=sys.stderr, flush=True)
  say(f"codec: {len(crops)} masks of {args.data}")
  params = codec.train(
    crops,
    hidden=args.hidden,
    embedding=args.embedding,
    steps=args.steps,
    batch_size=args.batch_size,
    lr=args.lr,
    seed=args.seed,
    progress=say,
  )
  codec.save(out, params)
  sample = crops[:: max(1, len(crops) // 1000)]
  iou = codec.iou(params, sample).mean()
  print(f"{out}: mean IoU {iou:.3f} of {len(sample)} masks with what comes back")


def collect(path: str):
  """uint8[N, 64, 64]: every mask of a JSONL file, cropped to its box.

  Raises:
    UserError: a line is broken, a mask is missing, or there is none at all.
  """
  import numpy as np  # 0.1 s that --help need not pay

  from paligemma_jax.data import examples, sources
  from paligemma_jax.processing import boxes, masks

  source, crops = sources.Jsonl(path), []
  for i in range(len(source)):
    for place, item in _objects(source[i], source.place(i)):
      mask = examples.read_mask(item["mask"], source.folder, place)
      boxes.check_box(item["box"], *mask.shape, f"{place}.box")
      crops.append(np.round(masks.crop_for_codec(mask, item["box"]) * 255).astype(np.uint8))
  if not crops:
    raise errors.UserError(f'{path}: no masks; every line needs "objects" with "box" and "mask"')
  return np.stack(crops)


def _objects(record: dict, place: str):
  """(place, object) of a record, each with a box and a mask."""
  from paligemma_jax.data import problems

  objects = record.get("objects") or []
  for k, item in enumerate(objects if isinstance(objects, list) else [objects]):
    found = item if isinstance(item, dict) else {}
    if not problems.is_box(found.get("box")) or not isinstance(
      found.get("mask"), str | bytes | dict
    ):
      raise errors.UserError(
        f'{place}: objects[{k}] needs a "box", [x0, y0, x1, y1] in pixels, and a "mask", a file or run'
        " lengths"
      )
    yield f"{place}: objects[{k}]", item


def _encode(args) -> None:
  import numpy as np

  from paligemma_jax import structs
  from paligemma_jax.data import examples
  from paligemma_jax.processing import boxes, masks

  mask = examples.read_mask(os.path.abspath(args.mask), "", "--mask")
  height, width = mask.shape
  box = args.box or masks.box_of(mask)
  if box is None:
    raise errors.UserError(f"--mask {args.mask}: nothing is inside (all pixels are black)")
  x0, y0, x1, y1 = box
  if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
    raise errors.UserError(f"--box {x0:g} {y0:g} {x1:g} {y1:g} lies outside {width} x {height} px")
  runtime.start()
  import jax

  from paligemma_jax.models import vqvae

  crop = masks.crop_for_codec(mask, box)[None]
  codes = jax.jit(vqvae.encode)(vqvae.load(args.codec), crop)
  found = structs.Box(args.label, *box, codes=tuple(int(c) for c in np.asarray(codes)[0]))
  print(boxes.format_boxes([found], height, width))


def _decode(args) -> None:
  import numpy as np
  from PIL import Image

  runtime.check_picture_path("--out", args.out)
  height, width = args.size
  if min(height, width) < 1:
    raise errors.UserError(f"--size {height} {width}: height and width are at least 1 pixel")
  runtime.start()
  from paligemma_jax.evals import objects  # these import JAX
  from paligemma_jax.models import vqvae

  row = {"height": height, "width": width, "objects": objects.parse(args.text, height, width)}
  found = objects.with_masks([row], "objects", vqvae.load(args.codec))[0]["objects"]
  found = [o["mask"] for o in found if o["mask"] is not None]
  if not found:
    raise errors.UserError("--text holds no mask: 4 loc and 16 seg tokens make one")
  picture = Image.fromarray(np.any(found, axis=0).astype(np.uint8) * 255)
  runtime.save_picture(picture, args.out)
