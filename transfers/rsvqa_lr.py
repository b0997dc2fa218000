"""RSVQA-LR: questions about Sentinel-2 tiles, those with numbers as answers left out.

Source: big_vision, configs/proj/paligemma/transfers/rsvqa_lr.py. Training resizes with antialias,
evaluation without. The headline is the mean over the kinds of questions.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=3, batch_size=256, lr=3e-6, label_smoothing=0.2))
PG2_LR = {"3b": 3e-6, "10b": 1e-5, "28b": 6e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc_avg  224  92.6±0.3 93.0±0.4 92.8±0.6 93.5±0.2
            test/acc_avg  448  93.1±0.7 92.7±0.8 93.1±0.6 93.7±0.4"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.rsvqa_lr = _tiles("train + val" if a.final else "train")
  seen = dict(minitrain="train[:1280]", minival="val")
  common.add_evals(c, lambda s: _tiles(s, resize="bilinear"), "rsvqa", 0.1, **seen, test="test")
  common.add_perplexity(c, _tiles, 0.1, **seen)
  return common.finish(c, a, SCORES, "rsvqa_lr")


def _tiles(split, **rules):
  rules |= dict(suffix="answers", lower=True, fields=(("id", "question_id"),))
  return common.tfds("rsvqa_lr/nonum", split, prefix="answer en {question}", **rules)
