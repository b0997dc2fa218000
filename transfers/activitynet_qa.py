"""ActivityNet QA: questions that people asked about long videos of what people do.

Source: big_vision, configs/proj/paligemma/transfers/activitynet_qa.py, whose reader of videos is not
published; the slices of train and valid that are scored meanwhile are ours.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=1, batch_size=128, lr=1e-5, weight_decay=1e-6)}
PG2_LR = {"3b": 6e-6, "10b": 6e-6}  # arXiv:2412.03555, best on minival
SCORES = "test/acc  224  50.8±0.4 51.3±0.2 53.2±0.4"
FRAMES = dict(frames=16, stride=70)  # of 1120 frames on


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, PG2_LR)
  c.train.data.activitynet_qa = _videos("train+valid" if a.final else "train")
  seen = dict(minitrain="train[:2%]", minival="valid[:10%]")
  common.add_evals(c, _videos, "vqa", 1 / 4, 128, **seen)
  common.add_evals(c, _videos, "vqa", 1.0, 128, val="valid", test="test")
  common.add_perplexity(c, _videos, 1 / 4, **seen)
  return common.finish(c, a, SCORES, "activitynet_qa")


def _videos(split):
  rules = dict(prefix="answer en {question}", suffix="answer")
  return common.video("activitynet_qa", split, **FRAMES, **rules)
