"""COCO captions, scored on Karpathy's val as in the papers, and NoCaps without training.

Source: big_vision, configs/proj/paligemma/transfers/cococap.py. Five epochs show each of the five
captions of a picture once. `crop=ic` and `crop=rc` are the crops that the reference has ready.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=5, batch_size=256, lr=1e-5, weight_decay=1e-6))
PG2_LR = {"3b": 3e-6, "10b": 6e-7, "28b": 6e-7}  # arXiv:2412.03555, best on minival at 224
SCORES = """eval/cider         224  141.9±0.3 141.3±0.5 143.7±0.2 144.0±0.3
            eval/cider         448  144.6±0.5 143.4±0.4 145.0±0.3 145.2±0.4
            nocaps_eval/cider  224  121.7±0.3 123.1±0.3 126.3±0.4 127.1±0.3
            nocaps_eval/cider  448  123.6±0.7 123.5±0.3 126.9±0.1 127.0±0.2"""
BEAM = dict(sampler="beam:2")


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, crop="rs")
  train = "train+restval" if a.final else "train[:98%]+restval"
  crop = common.one_of("crop", a.crop, common.CROPS)
  c.train.data.cococap = _coco(train, augment=crop)
  splits = dict(minitrain="train[:2%]", minival="train[-2%:]", eval="val")
  common.add_evals(c, _coco, "cider", 0.1, **BEAM, **splits)
  common.add_evals(c, _nocaps, "nocaps", 0.1, **BEAM, nocaps_eval="val")
  common.add_perplexity(c, _coco, 0.05, **splits)
  return common.finish(c, a, SCORES, "cococap", "nocaps")


def _coco(split, **rules):
  rules |= dict(draw="each", fields=(("suffix", "captions/text"), ("id", "image/id")))
  return common.tfds("coco_captions", split, prefix="caption en", **rules)


def _nocaps(split):
  fields = (("id", "image/id"),)
  return common.tfds("nocaps", split, prefix="caption en", suffix="texts", fields=fields)
