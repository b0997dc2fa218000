"""MSR-VTT QA: questions made from the captions of MSR-VTT's clips.

Source: big_vision, configs/proj/paligemma/transfers/msrvtt_qa.py, whose reader of videos is not
published; the slices of train and valid that are scored meanwhile are ours. Its clips are those of msrvtt_cap.py.
"""

from paligemma_jax.transfers import common

HPARAMS = {224: dict(epochs=1, batch_size=128, lr=1e-5, freeze_vit=True)}
PG2_LR = {"3b": 6e-6, "10b": 3e-6}  # arXiv:2412.03555, best on minival
SCORES = "test/acc  224  50.1±0.1 50.5±0.1 51.9±0.1"
FRAMES = dict(frames=16, stride=9)  # of 144 frames on


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 64, PG2_LR)
  c.train.data.msrvtt_qa = _questions("train+valid" if a.final else "train")
  seen = dict(minitrain="train[:2%]", minival="valid[:10%]")
  common.add_evals(c, _questions, "vqa", 1 / 4, 128, **seen)
  common.add_evals(c, _questions, "vqa", 1.0, 128, val="valid", test="test")
  common.add_perplexity(c, _questions, 1 / 4, **seen)
  return common.finish(c, a, SCORES, "msrvtt_qa")


def _questions(split):
  rules = dict(prefix="answer en {question}", suffix="answer")
  return common.video("msrvtt_qa", split, **FRAMES, **rules)
