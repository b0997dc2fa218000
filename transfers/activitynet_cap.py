"""ActivityNet captions: one sentence for every annotated stretch of a long video.

Source: big_vision, configs/proj/paligemma/transfers/activitynet_cap.py, whose reader of videos is not
published; the slices of train and valid that are scored meanwhile are ours.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=1, batch_size=128, lr=1e-5, weight_decay=1e-6, freeze_vit=True)}
PG2_LR = {"3b": 3e-6, "10b": 3e-6}  # arXiv:2412.03555, best on minival
SCORES = "test/cider  224  34.6±0.6 34.2±0.3 35.9±0.5"
FRAMES = dict(frames=16, stride=30)  # of 480 frames on


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, PG2_LR)
  c.train.data.activitynet_cap = _stretches("train+valid" if a.final else "train")
  seen = dict(minitrain="train[:2%]", minival="valid[:10%]")
  common.add_evals(c, _stretches, "cider", 1 / 4, 128, **seen)
  common.add_evals(c, _stretches, "cider", 1.0, 128, val="valid", test="test")
  common.add_perplexity(c, _stretches, 1 / 4, **seen)
  return common.finish(c, a, SCORES, "activitynet_cap")


def _stretches(split):
  rules = dict(prefix="caption en", fields=(("suffix", "caption/string"),))
  return common.video("activitynet_captions_mr", split, **FRAMES, **rules)
