"""What is tried: for every kind of input valid files, what damages them, and the commands that read them.

A kind begins as a folder in which all its commands end right. An input is a copy of it of which one
file, or one command line, was changed.
"""

import io
import json
import pathlib
import random
import shlex
import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from paligemma_jax.checkpoint import formats
from paligemma_jax.cli import config
from paligemma_jax.processing import boxes, masks, processor
from paligemma_jax.transfers import common
from tests import toy
from tests.fuzz import mutations


class Kind(NamedTuple):
  """A kind of input. The functions work in the current folder."""

  make: Callable[[], None]  # writes the valid files
  commands: Sequence[str]  # that read them; outputs are called out…
  damage: Callable[[random.Random], Sequence[str | list[str]]]  # returns the commands to run
  after: Callable[[], None] = lambda: None  # must not fail where the first command ended right


def damaged(by_file: Mapping[str, Sequence[str]]) -> Callable[[random.Random], Sequence[str]]:
  """Damages one of the files that the patterns name; the commands are those of its pattern."""

  def damage(rng: random.Random):
    pattern = rng.choice(list(by_file))
    path = rng.choice(sorted(p for p in pathlib.Path().glob(pattern) if p.is_file()))
    write(path, mutations.by_name(rng, path.name, path.read_bytes()))
    return by_file[pattern]

  return damage


def write(path: str | pathlib.Path, data: bytes | str) -> None:
  """Writes a file in place of the one that may be there, which other folders share."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.unlink(missing_ok=True)
  path.write_bytes(data.encode() if isinstance(data, str) else data)


def _lines(records: Sequence[dict]) -> str:
  return "".join(json.dumps(r) + "\n" for r in records)


# Pictures.


def _pictures() -> dict[str, bytes]:
  """Name -> a picture of 24 x 18 pixels, one for every format and mode that matters."""
  rng = np.random.default_rng(0)
  rgb = Image.fromarray(rng.integers(0, 256, (18, 24, 3), dtype=np.uint8))
  deep = Image.fromarray(rng.integers(0, 2**16, (18, 24), dtype=np.uint16))
  turned = Image.Exif()
  turned[0x0112] = 6
  text = PngImagePlugin.PngInfo()
  text.add_text("Comment", "two words", zip=True)
  text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="1"/>')
  made = {
    "rgb.png": (rgb, {}), "grey.png": (rgb.convert("L"), {}), "deep.png": (deep, {}),
    "bits.png": (rgb.convert("1"), {}), "alpha.png": (rgb.convert("RGBA"), {}),
    "palette.png": (rgb.convert("P"), {"transparency": 3}), "text.png": (rgb, {"pnginfo": text}),
    "turned.png": (rgb, {"exif": turned}), "frames.png": (rgb, {"save_all": True, "append_images": [rgb]}),
    "plain.jpg": (rgb, {}), "turned.jpg": (rgb, {"exif": turned, "comment": b"two words"}),
    "steps.jpg": (rgb, {"progressive": True}), "ink.jpg": (rgb.convert("CMYK"), {}),
    "lossy.webp": (rgb, {"exif": turned}), "exact.webp": (rgb.convert("RGBA"), {"lossless": True}),
    "moving.gif": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
    "raw.tif": (rgb, {}), "lzw.tif": (deep, {"compression": "tiff_lzw"}),
    "jpeg.tif": (rgb, {"compression": "jpeg"}), "plain.bmp": (rgb, {}), "rle.tga": (rgb, {"compression": "tga_rle"}),
    "plain.ppm": (rgb, {}), "plain.jp2": (rgb, {}), "plain.avif": (rgb, {"exif": turned}),
    "plain.ico": (rgb, {"sizes": [(24, 18)]}), "plain.pcx": (rgb, {}), "plain.sgi": (rgb, {}),
    "plain.dds": (rgb, {}),
  }  # fmt: skip
  files = {}
  for name, (picture, options) in made.items():
    out = io.BytesIO()
    picture.save(out, Image.registered_extensions()["." + name.split(".")[1]], **options)
    files[name] = out.getvalue()
  return files


def _make_pictures():
  for name, data in _pictures().items():
    write(f"p/{name}", data)
  write("mask.png", _pictures()["bits.png"])
  records = [{"image": f"p/{n}", "prefix": "caption en", "suffix": n} for n in _pictures()]
  write("d.jsonl", _lines(records))


def _damage_picture(rng):
  path = rng.choice(sorted(pathlib.Path("p").iterdir()))
  data = mutations.by_name(rng, path.name, path.read_bytes())
  name = f"x{path.suffix}" if rng.random() < 0.9 else "x"
  write(name, data)
  good, record = ({"image": n, "prefix": "caption en", "suffix": n} for n in ("p/rgb.png", name))
  if rng.random() < 0.2:
    thing = {"label": "cat", "box": [1, 1, 9, 9]}
    good, record = ({"image": "p/rgb.png", "objects": [thing | m]} for m in ({}, {"mask": name}))
  write("d.jsonl", _lines([good, record]))
  return ["data check d.jsonl"]


def _read_as_a_run_does():
  """Batches of what `data check` found good."""
  from paligemma_jax.data import pipeline, survey

  task = survey.guess_task("d.jsonl")
  source = common.jsonl("d.jsonl", task="detect" if task == "segment" else task)
  made = processor.Processor(toy.tokenizer(), 28, 4)
  options = dict(batch_size=2, text_len=64, with_suffix=True, truncate=True)
  with pipeline.eval_batches(source, made, **options) as batches:
    for _ in batches:
      pass


# Our JSONL.


def _disc() -> np.ndarray:
  y, x = np.mgrid[:30, :40]
  return (y - 15) ** 2 + (x - 20) ** 2 < 10**2


def _make_records():
  for i, picture in enumerate(toy.pictures()[:2]):
    Image.fromarray(picture).save(f"{i}.png")
  Image.fromarray(_disc()).save("mask.png")
  box = [10, 5, 31, 26]
  some = [{"label": "cat", "box": box}, {"label": "dog", "box": [0, 0, 40.0, 30]}]
  whole = {"label": "disc", "box": box, "mask": masks.encode_rle(_disc())}
  answers = boxes.format_boxes(
    boxes.parse_boxes("<loc0100><loc0100><loc0900><loc0800> cat", 30, 40), 30, 40
  )
  records = {
    "text": [
      {"image": "0.png", "prefix": "caption en", "suffix": "a cat"},
      {"image": ["0.png", "1.png"], "prefix": "which?", "suffix": ["the first", "one"], "id": 7},
      {"image": "1.png", "prefix": "detect cat", "suffix": answers, "width": 28, "height": 28},
    ],
    "objects": [
      {"image": "0.png", "objects": some, "split": "train"},
      {"image": ["1.png", "0.png"], "objects": [{**some[0], "image": 1}], "prefix": "detect cat"},
      {"image": "0.png", "objects": [{"label": "dog", "box": [1e0, 2, 3, 4], "score": 0.5}]},
    ],
    "masks": [
      {"image": "0.png", "objects": [whole, {**whole, "mask": "mask.png"}]},
      {"image": "0.png", "objects": [whole], "prefix": "segment disc"},
    ],
  }  # fmt: skip
  for name, lines in records.items():
    write(f"{name}.jsonl", _lines(lines))


def _make_jsonl():
  _make_records()
  _make_checkpoint("hf")


def _damage_jsonl(rng):
  path = rng.choice(("text", "objects", "masks")) + ".jsonl"
  write("d.jsonl", mutations.jsonl_file(rng, pathlib.Path(path).read_bytes()))
  answer = "generate --ckpt hf --input d.jsonl --output out.jsonl --max-new-tokens 2 --text-len 64"
  codec = "codec train --data d.jsonl --out out.npz --steps 1 --hidden 2 --embedding 4"
  return [
    "data check d.jsonl",
    *([answer] if path == "text.jsonl" else [codec] * (rng.random() < 0.1)),
  ]


# What is imported.


def _make_coco():
  _make_records()
  rle = masks.encode_rle(_disc())
  shared = {"image_id": 1, "category_id": 1, "area": 300.5, "iscrowd": 0}
  things = [
    {"id": 1, "bbox": [10, 5, 21, 21], "segmentation": [[10, 5, 30, 5, 30, 25, 10, 25]], **shared},
    {"id": 2, "bbox": [10.5, 5.5, 20, 20], "segmentation": rle, **shared},
    {"id": 3, "bbox": [0, 0, 5, 5], "attributes": {"occluded": False}, **shared, "image_id": 2},
  ]
  pictures = [
    {"id": 1, "file_name": "0.png", "width": 40, "height": 30, "license": 1},
    {"id": 2, "file_name": "1.png", "width": 28, "height": 28},
  ]
  names = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}]
  file = {"info": {}, "images": pictures, "annotations": things, "categories": names}
  write("ann.json", json.dumps(file))
  captions = [{"id": i, "image_id": i, "caption": f"picture {i}"} for i in (1, 2)]
  write("cap.json", json.dumps({"images": pictures, "annotations": captions}))


def _make_yolo():
  for name in ("train/images/0", "train/images/1", "valid/images/0"):
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(toy.pictures()[int(name[-1])]).save(f"{name}.png")
  write(
    "data.yaml", "path: .\ntrain: train/images\nval: valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
  )
  write("train/labels/0.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n")
  write("train/labels/1.txt", "1 0.50 5e-1 1.0 1.0\n")
  write("valid/labels/0.txt", "0 0.5 0.5 0.5 0.5\n")


def _make_voc():
  thing = (
    "  <object>\n    <name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>\n"
    "    <bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>\n  </object>\n"
  )
  pathlib.Path("JPEGImages").mkdir(exist_ok=True)
  for i, (width, height) in enumerate(((40, 30), (28, 28))):
    Image.fromarray(toy.pictures()[i]).save(f"JPEGImages/{i}.png")
    size = f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<annotation>\n  <filename>{i}.png</filename>\n'
    write(
      f"Annotations/{i}.xml", f"{head}{size}  <segmented>0</segmented>\n{thing * 2}</annotation>\n"
    )
  write("ImageSets/Main/train.txt", "0\n1\n")


def _make_csv():
  _make_records()
  write(
    "d.csv",
    'image,prefix,suffix,id\n0.png,caption en,"a cat, grey",1\n1.png,which?,"one ""dog""",2\n',
  )


# Checkpoints.


def _make_checkpoint(path: str, family: str = "paligemma", codec: bool = False):
  from paligemma_jax.models import vqvae

  cfg = toy.config(family)
  flat = toy.flat_params(cfg)
  files = processor.Processor(
    toy.tokenizer(), cfg.img.res, cfg.img.num_tokens, "bicubic"
  ).to_files()
  if codec:
    rng, shapes = np.random.default_rng(0), vqvae.param_shapes(hidden=2, embedding=4)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    write("codec.npz", vqvae.to_bytes(params))
  read = lambda name, layer=None: flat[name] if layer is None else flat[name][layer]
  formats.save(path, read, cfg, files)


def _make_npz():
  _make_checkpoint("m.npz", codec=True)


def _make_folder():
  """A folder of two shards with their index, and one of a single file."""
  from safetensors import numpy as st

  _make_checkpoint("one")
  _make_checkpoint("hf", "paligemma2")
  whole = pathlib.Path("hf/model.safetensors")
  tensors, index = st.load_file(whole), {}
  whole.unlink()
  names = sorted(tensors)
  for i, part in enumerate((names[::2], names[1::2]), 1):
    file = f"model-0000{i}-of-00002.safetensors"
    st.save_file({name: tensors[name] for name in part}, f"hf/{file}", {"format": "pt"})
    index |= dict.fromkeys(part, file)
  size = sum(x.nbytes for x in tensors.values())
  write(
    "hf/model.safetensors.index.json",
    json.dumps({"metadata": {"total_size": size}, "weight_map": index}),
  )


def _make_quantised():
  _make_checkpoint("one")
  for form in ("nf4-dq", "int8"):
    formats.convert("one", form, quant=form, progress=False)


def _make_tokenizers():
  _make_jsonl()
  for name in ("tokenizer.model", "tokenizer.json"):
    write(f"{name[10:]}/{name}", toy.tokenizer().to_files()[name])
  for name in toy.tokenizer().to_files():
    if name not in ("tokenizer.model", "tokenizer.json"):
      write(f"json/{name}", toy.tokenizer().to_files()[name])
  pathlib.Path("hf/tokenizer.model").unlink()


# Configs and command lines.

_FORKME = "transfers/forkme.py:train=text.jsonl,val=text.jsonl,init=hf,text_len=64"
_SMALL = "--config.train.steps=1 --config.train.batch_size=2 --config.evals.val.batch_size=2 --config.mesh=single"
_SHOW = "data show --config cfg.py:a=1 --out out.png --count 2"
_CONFIG = '''"""Text."""
from paligemma_jax.transfers import common


def get_config(arg=None):
  a = common.args(arg, a=0, res=0, name="", lr=1e-5, final=False)
  c = common.base(res=a.res, text_len=64)
  c.model.update(init="hf", remat="none")
  c.train.data.mine = common.jsonl("text.jsonl", task="text", weight=1.0)
  c.train.data.boxes = common.jsonl("objects.jsonl", task="detect", augment=("random_crop:0.9",))
  c.evals.val = common.evaluate(common.jsonl("text.jsonl"), "exact_match", every=0.5, batch_size=2)
  c.train.update(epochs=1.0, steps=2, batch_size=4, lr=a.lr, schedule=dict(decay_type="cosine"))
  return c
'''


def _make_configs():
  _make_jsonl()
  write("cfg.py", _CONFIG)


def _damage_config(rng):
  words = shlex.split(_SHOW)
  if rng.random() < 0.05:
    words = shlex.split(f"train --config cfg.py:a=1 --workdir out {_SMALL}")
  kind = rng.randrange(10)
  if kind == 0:
    write("cfg.py", mutations.text_file(rng, _CONFIG.encode()))
  elif kind == 1:
    keys = ("a", "res", "name", "lr", "final", "", "b")
    args = [
      f"{rng.choice(keys)}={rng.choice(mutations.ODD_WORDS)}" for _ in range(rng.choice((1, 2)))
    ]
    words[words.index("--config") + 1] = "cfg.py:" + rng.choice((",", ",,", ";")).join(args)
  else:
    keys = config.paths(_example())
    for _ in range(rng.choice((1, 1, 2, 3))):
      key = rng.choice(keys)
      if key not in ("wandb", "train.steps"):  # a longer training is no fault
        words.append(f"--config.{key}={rng.choice(mutations.ODD_WORDS)}")
  return [words]


def _example():
  names: dict = {}
  exec(_CONFIG, names)  # noqa: S102, the text above
  return names["get_config"]()


def _make_run():
  from paligemma_jax.cli import main

  _make_configs()
  assert main.main(shlex.split(f"train --config cfg.py:a=1 --workdir run {_SMALL}")) == 0


COMMANDS = (
  "inspect hf", "inspect m.npz", "convert hf out.npz --dtype bfloat16", "convert m.npz out --tokenizer hf --to hf",
  "data check text.jsonl --tokenizer hf --text-len 64", "data check --config cfg.py:a=1 --out out.html",
  _SHOW, "data import coco ann.json out.jsonl --images . --prefix caption",
  "data import csv d.csv out.jsonl --columns image=image,suffix=suffix", "data build okvqa --help",
  "generate --ckpt hf --image 0.png --prompt caption --max-new-tokens 2 --sampler nucleus:0.9 --seed 1 --json",
  "generate --ckpt hf --image 0.png --prompt detect --max-new-tokens 2 --text-len 32 --draw out.png",
  "generate --ckpt hf --input text.jsonl --output out.jsonl --batch-size 2 --max-new-tokens 2",
  "score --ckpt hf --image 0.png --prompt caption --answers answers.txt --json",
  f"eval --config {_FORKME} --ckpt hf --workdir out --evals val {_SMALL}",
  f"train --config {_FORKME} --workdir out {_SMALL}",
  f"plan --config {_FORKME},preset=tiny,tokenizer=hf --devices 1 {_SMALL}",
  "codec encode --codec codec.npz --mask mask.png --box 10 5 31 26 --label disc",
  "codec decode --codec codec.npz --text <loc0100><loc0100><loc0900><loc0900><seg001> --size 30 40 --out out.png",
  "codec train --data masks.jsonl --out out.npz --steps 1 --batch-size 2 --hidden 2 --embedding 4 --lr 0.01",
)  # fmt: skip
RARE = ("eval", "train", "plan")  # seconds each


def _make_all():
  _make_checkpoint("hf")
  _make_coco()
  _make_csv()
  _make_npz()
  write("cfg.py", _CONFIG)
  write("answers.txt", "yes\nno\n")


def _damage_argv(rng):
  command = rng.choice(COMMANDS)
  if command.split()[0] in RARE and rng.random() < 0.8:
    command = rng.choice(COMMANDS[:5])
  others = [word for other in COMMANDS for word in other.split()]
  return [mutations.argv(rng, shlex.split(command), others)]


_READ = ("inspect hf", "convert hf out.npz")
_CHECK = "data check out.jsonl"
KINDS = types.MappingProxyType({
  "pictures": Kind(_make_pictures, ["data check d.jsonl"], _damage_picture, _read_as_a_run_does),
  "jsonl": Kind(_make_jsonl, [f"data check {n}.jsonl" for n in ("text", "objects", "masks")], _damage_jsonl, _read_as_a_run_does),
  "coco": Kind(_make_coco, ["data import coco ann.json out.jsonl"], damaged({
    f"{name}.json": [f"data import coco {name}.json out.jsonl", _CHECK] for name in ("ann", "cap")
  })),
  "yolo": Kind(_make_yolo, ["data import yolo . out.jsonl --split train"], damaged({
    pattern: ["data import yolo . out.jsonl --split train", _CHECK] for pattern in ("data.yaml", "train/labels/*.txt")
  })),
  "voc": Kind(_make_voc, ["data import voc . out.jsonl --split train"], damaged({
    pattern: ["data import voc . out.jsonl --split train", _CHECK] for pattern in ("Annotations/*.xml", "ImageSets/Main/*")
  })),
  "csv": Kind(_make_csv, ["data import csv d.csv out.jsonl"], damaged({"d.csv": ["data import csv d.csv out.jsonl", _CHECK]})),
  "npz": Kind(_make_npz, ["inspect m.npz", "convert m.npz out"], damaged({
    "m.npz": ["inspect m.npz", "convert m.npz out"],
    "codec.npz": ["codec encode --codec codec.npz --mask no.png"],
  })),
  "safetensors": Kind(_make_folder, _READ, damaged({
    "hf/model-*": _READ, "hf/*.index.json": _READ, "one/*.safetensors": ["inspect one", "convert one out.npz"],
  })),
  "quantised": Kind(_make_quantised, ["inspect int8", "convert nf4-dq out.npz"], damaged({
    f"{form}/*{end}": [f"inspect {form}", f"convert {form} out.npz"]
    for form in ("nf4-dq", "int8") for end in (".safetensors", "g.json")
  })),
  "config.json": Kind(_make_folder, _READ, damaged({
    "hf/config.json": _READ, "one/config.json": ["inspect one", "convert one out.npz"],
  })),
  "tokenizers": Kind(_make_tokenizers, ["data check text.jsonl --text-len 64 --tokenizer model"], damaged({
    "model/*": ["data check text.jsonl --text-len 64 --tokenizer model"],
    "json/*": ["data check text.jsonl --text-len 64 --tokenizer json"],
    "hf/*token*": _READ, "hf/*processor*": _READ,
  })),
    "runs": Kind(
      _make_run,
      ["inspect run", "inspect run run", "convert run out.npz"],
      damaged(
        {
          "run/*.json*": ["inspect run run", f"train --config cfg.py:a=1 --workdir run {_SMALL}"],
          "run/checkpoints/**/*": ["inspect run", "convert run out.npz"],
        }
      ),
    ),
"configs": Kind(_make_configs, [_SHOW], _damage_config),
  "argv": Kind(_make_all, [c for c in COMMANDS if not c.startswith(("plan", "codec decode"))], _damage_argv),
})  # fmt: skip
