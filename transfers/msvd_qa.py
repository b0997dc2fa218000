"""MSVD QA: questions made from the captions of short clips from YouTube.

Source: big_vision, configs/proj/paligemma/transfers/msvd_qa.py, whose reader of videos is not
published; the slices of train and valid that are scored meanwhile are ours. Eight frames, though the
paper describes sixteen.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=1, batch_size=128, lr=3e-6, weight_decay=3e-7)}
PG2_LR = {"3b": 3e-6, "10b": 1e-6}  # arXiv:2412.03555, best on minival
SCORES = "test/acc  224  60.2±0.3 61.1±0.2 62.5±0.2"
FRAMES = dict(frames=8, stride=26)  # of 208 frames on


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, PG2_LR)
  c.train.data.msvd_qa = _clips("train+valid" if a.final else "train")
  seen = dict(minitrain="train[:2%]", minival="valid[:10%]")
  common.add_evals(c, _clips, "vqa", 1 / 4, 128, **seen)
  common.add_evals(c, _clips, "vqa", 1.0, 128, val="valid", test="test")
  common.add_perplexity(c, _clips, 1 / 4, **seen)
  return common.finish(c, a, SCORES, "msvd_qa")


def _clips(split):
  rules = dict(prefix="answer en {question}", suffix="answer")
  return common.video("msvd_qa", split, **FRAMES, **rules)
