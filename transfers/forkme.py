"""Fine-tune on a JSONL file of your own: the file to copy. `paligemma train --config transfers/forkme.py`

Without arguments it learns scenes of handwritten digits from scratch, with the tiny preset. With
arguments, your data from a published checkpoint of any size, which is recognised from its file:

  forkme.py:train=my/train.jsonl,val=my/val.jsonl,init=pt_224.npz,tokenizer=tokenizer.model,res=448

init=none begins with random parameters of preset=tiny and a tokenizer that is learnt from the data.
A comma that belongs to a path is written twice: train=a,,b/train.jsonl.
"""

from paligemma_jax import cache, errors
from paligemma_jax.transfers import common

RECIPES = {  # recipe -> batch size, learning rate
  "full": (32, 1e-5),  # big_vision, configs/proj/paligemma/transfers/forkme.py
  "attention_sgd": (8, 0.03),  # big_vision, the notebook for a 16 GB card
  "head_only": (32, 1e-3),  # chosen, not from the paper
  "lora": (
    16,
    2e-4,
  ),  # batch of the announcement's recipe, learning rate of QLoRA (train/recipes.py)
  "qlora": (16, 2e-4),
}
METRICS = {"text": "exact_match", "detect": "boxes_ap", "segment": "masks", "refer": "boxes"}
# From scratch, numbers chosen, not from a paper. Positions have to be told apart early, and a patch of
# the preset "tiny" has 9,408 inputs that agree.
SCRATCH = dict(
  batch_size=32, lr=2e-3, b2=0.95, lr_mults=(("img/pos_embedding", 5.0), ("img/embedding/.*", 0.5))
)


def get_config(arg=None):
  return _yours(arg) if arg else _digits()


def _yours(arg):
  a = common.args(
    arg, train="", val="", init="", tokenizer="", codec="", task="text", prefix="", preset="",
    res=0, text_len=128, recipe="full", epochs=0.0,
  )  # fmt: skip
  if not a.train:
    raise errors.UserError('config argument "train" is missing; add train=FILE')
  for key, known in (("recipe", RECIPES), ("task", METRICS)):
    if a[key] not in known:
      hint = errors.did_you_mean(a[key], known)
      raise errors.UserError(f'config argument "{key}": "{a[key]}" is unknown{hint}')

  c = common.base(a.res, a.text_len)
  c.model.update(init=a.init, preset=a.preset)
  c.input.update(tokenizer=a.tokenizer, codec=a.codec)
  batch_size, lr = RECIPES[a.recipe]
  c.train.data.yours = common.jsonl(a.train, task=a.task, prefix=a.prefix)
  c.train.update(epochs=a.epochs or 15.0, recipe=a.recipe, batch_size=batch_size, lr=lr)
  if a.recipe in ("full", "head_only"):
    c.train.weight_decay = 3e-7
  if a.init == "none":
    if a.recipe != "full":
      raise errors.UserError(
        f'config argument "recipe": "{a.recipe}" trains a part; from scratch all has to: recipe=full'
      )
    c.model.update(init="", preset=a.preset or "tiny")
    if c.model.preset == "tiny":
      c.model.remat = "none"
    c.input.tokenizer = a.tokenizer or "trained"
    c.train.update(SCRATCH, steps=0 if a.epochs else 2000)
    if a.task != "text":  # few pictures would be learnt by heart
      c.train.data.yours.augment = ("inception_crop:50",)
  if a.val:
    data = common.jsonl(a.val, task=a.task, prefix=a.prefix)
    metric, every = METRICS[a.task], 1 / 5
    c.evals.val = common.evaluate(
      data, metric, every=every, max_new_tokens=a.text_len, batch_size=8
    )
  c.update(log_every=1)
  c.checkpoint.every = 200
  return c


def _digits():
  """The embedded default. Numbers chosen for six minutes on two CPU cores, not from a paper."""
  c = common.base(res=0, text_len=28)
  c.build = "digits"
  c.log_every = 20
  c.model.update(init="", preset="tiny", remat="none")
  files = cache.directory("digits-1")
  c.input.update(
    resize="bicubic", tokenizer=str(files / "tokenizer.model"), codec=str(files / "codec.npz")
  )

  tasks = {  # name -> (kind of example, share of the mixture, metric)
    "caption": ("text", 0.4, "exact_match"),
    "count": ("text", 0.2, "exact_match"),
    "question": ("text", 2.0, "exact_match"),
    "detect": ("detect", 1.5, "boxes"),
    "segment": ("segment", 1.5, "masks"),
  }
  for name, (task, weight, metric) in tasks.items():
    train, val = (str(files / f"{split}_{name}.jsonl") for split in ("train", "val"))
    c.train.data[name] = common.jsonl(train, task=task, weight=weight)
    c.evals[name] = common.evaluate(common.jsonl(val, task=task), metric, every=1 / 3, limit=256)
  c.train.update(SCRATCH, steps=3000)
  c.checkpoint.every = 1000
  return c
