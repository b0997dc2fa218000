"""RSVQA-HR: as rsvqa_lr.py on aerial photos; test2 is of Philadelphia, which training never saw.

Source: big_vision, configs/proj/paligemma/transfers/rsvqa_hr.py. Training resizes with antialias,
evaluation without.
"""

from paligemma_jax.transfers import common

HPARAMS = dict.fromkeys((224, 448), dict(epochs=1, batch_size=256, lr=1e-5))
PG2_LR = {"3b": 1e-5, "10b": 6e-6, "28b": 6e-7}  # arXiv:2412.03555, best on val at 224
SCORES = """test/acc_avg   224  92.6±0.1 92.7±0.1 92.6±0.0 92.7±0.0
            test/acc_avg   448  92.8±0.1 92.8±0.0 92.8±0.1 92.8±0.1
            test2/acc_avg  224  90.6±0.1 90.9±0.1 90.8±0.1 90.9±0.1
            test2/acc_avg  448  90.5±0.2 90.7±0.2 90.7±0.2 90.8±0.1"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR, resize="bilinear_antialias")
  c.train.data.rsvqa_hr = _photos("train + val" if a.final else "train")
  data, last = _photos_for_eval, dict(minival="val", test="test", test2="test_2")
  common.add_evals(c, data, "rsvqa", 0.1, minitrain="train[:1280]")
  common.add_evals(c, data, "rsvqa", 1.0, **last)
  common.add_perplexity(c, _photos, 0.1, minitrain="train[:1280]", minival="val")
  return common.finish(c, a, SCORES, "rsvqa_hr")


def _photos(split, **rules):
  rules |= dict(suffix="answers", lower=True, fields=(("id", "question_id"),))
  return common.tfds("rsvqa_hr/nonum", split, prefix="answer en {question}", **rules)


def _photos_for_eval(split):
  return _photos(split, resize="bilinear")
