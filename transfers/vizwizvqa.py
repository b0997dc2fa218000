"""VizWiz VQA: questions that blind people asked about their own photos.

Source: big_vision, configs/proj/paligemma/transfers/vizwizvqa.py. Training resizes with antialias,
evaluation without. Some questions have fewer than ten answers, hence the plain VQA score; the
official one of test comes from the server. (arXiv:2412.03555, table 15, calls that one val.)
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=10, batch_size=256, lr=1e-5))
PG2_LR = {"3b": 1e-5, "10b": 3e-6, "28b": 3e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc          224  73.7±0.2
            test/acc          448  75.5±0.5
            tune:minival/acc  224  76.4@t4 76.4±0.4 78.1±0.4 78.7±0.2
            tune:minival/acc  448  - 77.5±0.2 78.6±0.4 78.9±0.5"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 48, PG2_LR, resize="bilinear_antialias")
  c.train.data.vizwizvqa = _photos("train+val" if a.final else "train")
  common.add_evals(c, _photos_for_eval, "vqa", 1 / 8, minitrain="train[:5120]")
  common.add_evals(c, _photos_for_eval, "vqa", 0.1, minival="val")
  common.add_evals(c, _photos_for_eval, "", 1.0, test="test")  # a server has its answers
  common.add_perplexity(c, _photos, 1 / 8, minitrain="train", minival="val")
  return common.finish(c, a, SCORES, "vizwizvqa")


def _photos(split, **rules):
  rules |= dict(suffix="answers", draw="each", fields=(("id", "image/filename"),))
  return common.tfds("vizwizvqa", split, prefix="answer en {question}", **rules)


def _photos_for_eval(split):
  return _photos(split, resize="bilinear")
