"""What the transfer configs share: their arguments, their common settings, data and evaluations.

Everything here returns plain data (`ml_collections.ConfigDict` of numbers, strings and tuples), so
every key can be set on the command line: `--config.train.lr=3e-5`.

Numbers: big_vision, configs/proj/paligemma/transfers/common.py and forkme.py.
"""

import re

import ml_collections
from ml_collections import config_dict

from paligemma_jax import cache, errors
from paligemma_jax.configs import published
from paligemma_jax.configs.arguments import args, one_of

FAMILIES = ("", "pg2_3b", "pg2_10b", "pg2_28b")  # of checkpoints; "" is PaliGemma
RULES = dict(  # what every source may have besides, see docs/data.md
  lower=False, draw="any", resize="", fit="stretch", outline="", frames=0, stride=1, noise=0
)  # fmt: skip
CROPS = {"rs": (), "ic": ("inception_crop:50",), "rc": ("random_crop:0.875",)}  # of captions


def base(res: int = 224, text_len: int = 128) -> ml_collections.ConfigDict:
  """Every setting of a run, with the values that the reference's transfers share.

  Args:
    res: pixels a side; 0 for the one of the checkpoint.
    text_len: tokens of prefix, newline and suffix together.
  """
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.resume = ""  # "override": go on although the config differs from the workdir's
  c.build = ""  # "digits": make the embedded default's data first; "sample:TASK": a miniature
  c.mesh = "fsdp"  # a name in configs/meshes.py
  c.log_every = 50  # steps
  c.wandb = ""  # "PROJECT" or "ENTITY/PROJECT" of Weights & Biases for the metrics; "": none

  c.model = ml_collections.ConfigDict()
  c.model.preset = ""  # a name in models/variants.py; "": recognised from `init`
  c.model.res = res  # another than the checkpoint's: the position embedding is resampled
  c.model.init = f"pt_{res}.npz"  # checkpoint to start from; "": random parameters
  c.model.dtype = ""  # of the computation; "": bfloat16 on TPU and GPU, float32 on CPU
  c.model.remat = "nothing_saveable"  # what the backward pass finds saved; "none": everything
  c.model.remat_img = ""  # the same for the image tower; "": as `remat`
  c.model.dropout = 0.0  # in the decoder's blocks
  c.model.quant = (
    ""  # weights that do not train, in few bits: "nf4-dq", "int8:decoder"; "": recipe's
  )
  c.model.adapter = ""  # a PEFT folder or a run with adapters, to begin with; "": none
  c.model.settings = _settings()

  c.input = ml_collections.ConfigDict()
  c.input.text_len = text_len
  c.input.resize = ""  # "bilinear_antialias", "bilinear", "bicubic"; "": the checkpoint's
  c.input.alpha = ""  # of transparent pictures: "drop" or "white"; "": the checkpoint's
  c.input.tokenizer = ""  # file or folder; "": beside the checkpoint, $PALIGEMMA_TOKENIZER
  c.input.codec = ""  # npz of the mask codec, for segmentation
  c.input.truncate = False  # texts longer than text_len are cut, as the reference does; else errors
  c.input.max_unreadable = 10  # pictures; with one more the run stops, till then they weigh 0

  c.train = _train()
  c.evals = ml_collections.ConfigDict()  # name -> evaluate(...)
  c.expect = ml_collections.ConfigDict()  # name -> a published score, see configs/published.py
  c.checkpoint = ml_collections.ConfigDict()
  c.checkpoint.every = 1000  # steps
  c.checkpoint.keep = 3  # how many of the newest stay
  c.checkpoint.keep_every = 0  # every so many steps one stays for good; 0: none
  c.checkpoint.best = ""  # "val/exact_match" ("-val/…": lower is better): the best one stays too
  return c


def _settings():
  """What shapes cannot tell of a checkpoint; None: as the checkpoint says, else the default."""
  s = ml_collections.ConfigDict()
  s.final_logits_softcap = config_dict.placeholder(float)  # 0.0: off
  s.attn_logits_softcap = config_dict.placeholder(float)
  s.sliding_window = config_dict.placeholder(int)  # tokens; 0: off
  s.query_pre_attn_norm = config_dict.placeholder(str)
  return s


def _train():
  t = ml_collections.ConfigDict()
  t.data = ml_collections.ConfigDict()  # name -> jsonl(...) or its like, mixed by weight
  t.epochs = 1.0
  t.steps = 0  # 0: as many as the epochs ask for
  t.patience = 0  # ends after so many evaluations without a better `checkpoint.best`; 0: never
  t.batch_size = 256  # examples a step, over all devices
  t.recipe = "full"  # "attention_sgd", "head_only", "lora", "qlora": see train/recipes.py
  t.lora = lora()
  t.lr = 0.0  # 0: the recipe's
  t.weight_decay = 0.0  # decoupled and not multiplied by lr, as the reference
  t.wd_mults = ((".*/kernel$", 1.0),)  # (regex, factor), …; these are the image tower's alone
  t.optimizer = ""  # "adam", "adam8bit", "sgd", "adafactor"; "": the recipe's
  t.b1, t.b2 = 0.9, 0.999
  t.mu_dtype = ""  # of Adam's first moment and SGD's momentum; "": the parameters'
  t.momentum = 0.0  # of SGD; 0: none, as the reference
  t.ema_decay = 0.0  # a moving average of what trains, evaluated and loaded in its place; 0: none
  t.accumulate = 1  # pieces that a batch is cut into, one after the other: less memory
  t.mean_over = "example"  # the loss: "example", as big_vision; "token", as transformers
  t.grad_clip_norm = 1.0
  t.label_smoothing = 0.0
  t.schedule = ml_collections.ConfigDict(dict(decay_type=""))  # "": the recipe's, warmup included
  t.schedule.warmup_percent = config_dict.placeholder(float)
  t.schedules = ml_collections.ConfigDict()  # name -> {params: regex, decay_type: …} for a part
  t.lr_mults = ()  # (regex over parameter names, factor), …; the first that matches
  t.freeze = ()  # regexes over parameter names
  t.workers = 0  # processes that read data; 0: threads of this one
  return t


def lora() -> ml_collections.ConfigDict:
  """Low-rank adapters, of the recipes that have them."""
  o = ml_collections.ConfigDict()
  # Sets of train/adapters.py or regexes, joined by "+". Without the patches pictures that look unlike
  # those of the base are learnt more slowly (docs/adapters.md).
  o.targets = "all-linear+patches"
  o.rank = 8  # the published recipe's
  o.alpha = 16.0  # the update is scaled by alpha / rank
  o.dropout = 0.0  # of what goes into an adapter
  o.rslora = False  # alpha / sqrt(rank) instead
  o.dora = False  # magnitudes beside directions
  o.rank_pattern = ()  # (regex, rank), … of some modules; the first that matches
  o.alpha_pattern = ()
  return o


def jsonl(
  path: str,
  task: str = "text",
  prefix: str = "",
  suffix: str = "",
  weight: float = 1.0,
  augment: tuple[str, ...] = (),
  where: str = "",
  **rules,
) -> ml_collections.ConfigDict:
  """A JSONL file as a source, one object per line.

  Args:
    path: of the file; relative to the folder the command is run in, or a URL.
    task: "text" (keys prefix and suffix), or "detect", "segment" (key objects).
    prefix: a template over the record's own prefix, may use {field}; "": the record's.
    suffix: key of the answer; "": "suffix".
    weight: share in a mixture, relative to the other sources.
    augment: random changes of the pictures in training, see processing/augment.py.
    where: keeps only some records; "": all.
    **rules: keys of `RULES`, how answers are drawn and pictures are made.
  """
  return _source("jsonl", path, task, prefix, suffix, weight, augment, rules, where=where)


def tfds(
  path: str,
  split: str = "train",
  task: str = "text",
  prefix: str = "",
  suffix: str = "",
  weight: float = 1.0,
  augment: tuple[str, ...] = (),
  data_dir: str = "",
  fields: tuple[tuple[str, str], ...] = (),
  boxes: str = "yxyx_unit",
  max_images: int = 0,
  **rules,
) -> ml_collections.ConfigDict:
  """A data set that TFDS prepared as array_record files; what is not named is as in `jsonl`.

  Args:
    path: its name, "coco_captions" or "ref_coco/unc:1.4.0", or the folder of one version.
    split: TFDS's notation, "train[:98%]+restval".
    data_dir: where named data sets lie; "": $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    fields: (our key, their feature), …; see data/layout.py.
    boxes: how they are written: "yxyx_unit", "xywh", "xyxy".
    max_images: most pictures of one record; 0: one for each "image" in `fields`.
  """
  return _source(
    "tfds", path, task, prefix, suffix, weight, augment, rules,
    split=split, data_dir=data_dir, fields=fields, boxes=boxes, max_images=max_images,
  )  # fmt: skip


def objects(feature: str, **keys: str) -> tuple[tuple[str, str], ...]:
  """`fields` of the objects in a feature: box="bbox" takes their boxes from FEATURE/bbox."""
  return tuple((f"objects/{ours}", f"{feature}/{theirs}") for ours, theirs in keys.items())


def video(path: str, split: str, frames: int, stride: int, **rest) -> ml_collections.ConfigDict:
  """A data set of videos, as `tfds`: every `stride`-th of the pictures in "frames" and `frames` of them."""
  fields = (("image", "frames"), *rest.pop("fields", ()))
  rest |= dict(fields=fields, max_images=100_000)  # an hour; the model sees `frames`
  return tfds(path, split, frames=frames, stride=stride, **rest)


def hf(
  path: str,
  split: str = "train",
  task: str = "text",
  prefix: str = "",
  suffix: str = "",
  weight: float = 1.0,
  augment: tuple[str, ...] = (),
  name: str = "",
  fields: tuple[tuple[str, str], ...] = (),
  boxes: str = "xywh",
  max_images: int = 0,
  **rules,
) -> ml_collections.ConfigDict:
  """A data set of the Hugging Face Hub or its folder; what is not named is as in `tfds`.

  Args:
    path: "user/name", a folder that `save_to_disk` left, or a .parquet file.
    split: its name; from the Hub also "train[:10%]".
    name: which of its configurations; "": the default.
  """
  return _source(
    "hf", path, task, prefix, suffix, weight, augment, rules,
    split=split, name=name, fields=fields, boxes=boxes, max_images=max_images,
  )  # fmt: skip


def arrayrecord(
  path: str,
  task: str = "text",
  prefix: str = "",
  suffix: str = "",
  weight: float = 1.0,
  augment: tuple[str, ...] = (),
  fields: tuple[tuple[str, str], ...] = (),
  boxes: str = "xyxy",
  max_images: int = 0,
  **rules,
) -> ml_collections.ConfigDict:
  """ArrayRecord files of JSON objects or tf.train.Examples; what is not named is as in `tfds`.

  Args:
    path: a file or a pattern, "data/train.array_record-*".
  """
  return _source(
    "arrayrecord", path, task, prefix, suffix, weight, augment, rules,
    fields=fields, boxes=boxes, max_images=max_images,
  )  # fmt: skip


SOURCES = {"jsonl": jsonl, "tfds": tfds, "hf": hf, "arrayrecord": arrayrecord}  # by "kind"


def _source(kind, path, task, prefix, suffix, weight, augment, rules, **rest):
  if unknown := [key for key in rules if key not in RULES]:
    raise errors.UserError(
      f'a source has no key "{unknown[0]}"{errors.did_you_mean(unknown[0], RULES)}'
    )
  shared = dict(kind=kind, path=path, task=task, prefix=prefix, suffix=suffix, weight=weight)
  return ml_collections.ConfigDict(shared | dict(augment=augment) | RULES | rules | rest)


def evaluate(
  data: ml_collections.ConfigDict,
  metric: str,
  every: float = 1.0,
  max_new_tokens: int = 32,
  batch_size: int = 64,
  sampler: str = "greedy",
  limit: int = 0,
  constrain: str = "",
  answers: tuple[str, ...] = (),
) -> ml_collections.ConfigDict:
  """An evaluation that answers `data` and scores the answers.

  Args:
    data: a source, as `jsonl` and its like give it.
    metric: a name in metrics.METRICS; "": nothing is scored, the predictions are written.
    every: fraction of the training between two runs; 1.0: only at the end.
    max_new_tokens: longest answer.
    batch_size: examples at a time, over all devices.
    sampler: as `paligemma generate --sampler`.
    limit: only the first so many examples; 0: all.
    constrain: as `paligemma generate --constrain`; "": answers are free.
    answers: the likeliest of these is the answer, nothing is generated; "{field}" stands for those
      in that key of the record. (): answers are free.
  """
  return ml_collections.ConfigDict(
    dict(
      data=data, metric=metric, every=every, max_new_tokens=max_new_tokens, batch_size=batch_size,
      sampler=sampler, limit=limit, constrain=constrain, answers=answers,
    )
  )  # fmt: skip


def start(arg: str | None, hparams: dict, text_len: int, pg2_lr: dict | None = None, **defaults):
  """The config of a published transfer before its data, and the arguments it was asked for with.

  Args:
    arg: "res=448,final,variant=pg2_10b,debug" and what `defaults` adds: pixels a side, whether the
      split of the published number is trained on, a name in `FAMILIES`, and `debug`.
    hparams: pixels a side -> the settings of the published run: epochs or steps, batch_size, lr,
      weight_decay, label_smoothing, dropout, and freeze_vit.
    text_len: tokens; longer texts are cut, as the reference does.
    pg2_lr: "3b", "10b", "28b" -> the rate of PaliGemma 2; None: as PaliGemma.
    **defaults: further arguments; "resize" is how pictures become small.

  Returns:
    (config, arguments).
  """
  resize = defaults.pop("resize", "bilinear")
  a = args(arg, res=min(hparams), final=False, variant="", debug=False, **defaults)
  one_of("variant", a.variant, dict.fromkeys(FAMILIES))
  c, h = base(a.res, text_len), dict(one_of("res", a.res, hparams))
  c.input.update(resize=resize, truncate=True)
  c.model.dropout = h.pop("dropout", 0.0)
  c.train.freeze = ("img/.*",) if h.pop("freeze_vit", False) else ()
  c.train.update(h)
  if a.variant:
    size = a.variant.removeprefix("pg2_")
    c.model.init = f"pt_{size}_{a.res}.npz"
    c.train.lr = (pg2_lr or {}).get(size, c.train.lr)
  return c, a


def add_evals(
  c, data, metric: str, every: float, batch_size: int = 1024, sampler="greedy", **splits
):
  """Adds an evaluation for every name -> split; `data` makes a source of a split."""
  for name, split in splits.items():
    c.evals[name] = evaluate(data(split), metric, every, c.input.text_len, batch_size, sampler)


def add_perplexity(c, data, every: float, **splits):
  """Adds NAME_pplx, how likely the answers are that training would draw, for name -> split."""
  for name, split in splits.items():
    c.evals[f"{name}_pplx"] = evaluate(data(split), "perplexity", every, 1, c.train.batch_size)


def finish(c, a, scores: str = "", *tasks: str) -> ml_collections.ConfigDict:
  """The config with what is published about it, made small if `debug` asks for that.

  Args:
    c, a: as `start` gives them, the data added.
    scores: a table as configs/published.py reads it.
    *tasks: that `paligemma data build` prepares the data of; `debug` takes their miniatures.
  """
  c.expect = ml_collections.ConfigDict(published.scores(scores, a.res, a.variant, a.final))
  return debug(c, *tasks) if a.debug else c


def debug(c: ml_collections.ConfigDict, *tasks: str) -> ml_collections.ConfigDict:
  """Two steps of a tiny model on the miniatures of the tasks; all sizes are those of all transfers.

  Args:
    c: of a transfer; one that only evaluates trains on what it evaluates.
    *tasks: as in `finish`.
  """
  small, files = base(res=0, text_len=128), cache.directory("samples-1")
  small.update(
    build="sample:" + "+".join(tasks), mesh="single", log_every=1, evals=c.evals, expect=c.expect
  )
  small.model.update(init="", preset="tiny", remat="none")
  tokenizer, codec = str(files / "tokenizer.model"), str(files / "codec.npz")
  small.input.update(resize=c.input.resize, truncate=True, tokenizer=tokenizer, codec=codec)
  small.train.data = c.train.data or {"debug": next(iter(c.evals.values())).data}
  small.train.update(steps=2, batch_size=2, lr=1e-3)
  for e in small.evals.values():
    e.update(batch_size=2, max_new_tokens=8, sampler="greedy", every=1.0)
  for source in (*small.train.data.values(), *(e.data for e in small.evals.values())):
    split = re.sub(r"\[[^]]*\]", "", source.split)  # a slice of so little may be empty
    source.update(data_dir=str(files / "data"), split=split, frames=min(source.frames, 2))
  return small
