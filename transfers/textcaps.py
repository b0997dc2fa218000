"""TextCaps: captions that read the text in the picture, lower-cased in training only.

Source: big_vision, configs/proj/paligemma/transfers/textcaps.py. The paper speaks of the test split,
its published numbers are of val. Decoded with three beams.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=5, batch_size=256, lr=1e-5, weight_decay=1e-6))
PG2_LR = {"3b": 1e-6, "10b": 1e-6, "28b": 3e-7}  # arXiv:2412.03555, best on minival at 224
SCORES = """eval/cider  224  127.5±1.0 127.5±0.3 137.9±0.3 139.9±0.4
            eval/cider  448  153.9±0.5 152.1±0.3 157.7±0.7 153.6±0.5"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, crop="rs")
  train = "train" if a.final else "train[:98%]"
  crop = common.one_of("crop", a.crop, common.CROPS)
  c.train.data.textcaps = _lower_cased(train, augment=crop)
  splits = dict(minitrain="train[:2%]", minival="train[-2%:]", eval="val")
  common.add_evals(c, _textcaps, "cider", 0.1, sampler="beam:3", **splits)
  common.add_perplexity(c, _lower_cased, 0.05, **splits)
  return common.finish(c, a, SCORES, "textcaps")


def _textcaps(split, **rules):
  fields = (("id", "image/id"),)
  return common.tfds("text_caps", split, "text", "caption en", "texts", fields=fields, **rules)


def _lower_cased(split, **rules):
  return _textcaps(split, draw="each", lower=True, **rules)
