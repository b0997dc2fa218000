"""MSR-VTT captioning: clips of ten to thirty seconds, twenty captions each, one drawn anew each time.

Source: big_vision, configs/proj/paligemma/transfers/msrvtt_cap.py, whose reader of videos is not
published; the slices of train and valid that are scored meanwhile are ours.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=20, batch_size=128, lr=1e-5, freeze_vit=True)}
PG2_LR = {"3b": 1e-5, "10b": 1e-6}  # arXiv:2412.03555, best on minival
SCORES = "test/cider  224  70.5±0.9 68.5±1.3 72.1±0.5"
FRAMES = dict(frames=16, stride=9)  # of 144 frames on


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 32, PG2_LR)
  c.train.data.msrvtt_cap = _clips("train+valid" if a.final else "train")
  seen = dict(minitrain="train[:2%]", minival="valid[:10%]")
  common.add_evals(c, _clips, "cider", 1 / 4, 128, **seen)
  common.add_evals(c, _clips, "cider", 1.0, 128, val="valid", test="test")
  common.add_perplexity(c, _clips, 1 / 4, **seen)
  return common.finish(c, a, SCORES, "msrvtt_cap")


def _clips(split):
  rules = dict(prefix="caption en", fields=(("suffix", "caption/string"),))
  return common.video("msrvtt", split, **FRAMES, **rules)
