"""Scene Text VQA: as infovqa.py on photos with text; validation is a part of the official train.

Source: big_vision, configs/proj/paligemma/transfers/stvqa.py, whose list of validation pictures is
not published: ours is another, without a picture in both. Officially scored by ANLS on a server.
"""

from paligemma_jax.transfers import common

HPARAMS = {
  224: dict(epochs=3, batch_size=256, lr=1e-5, weight_decay=1e-6, label_smoothing=0.1),
  448: dict(epochs=3, batch_size=128, lr=1e-5, weight_decay=1e-6, label_smoothing=0.1),
  896: dict(epochs=3, batch_size=32, lr=3e-6, weight_decay=3e-7, label_smoothing=0.1),
}
PG2_LR = {"3b": 6e-6, "10b": 3e-6, "28b": 3e-6}  # arXiv:2412.03555, best on val at 224
SCORES = """test/anls          224  63.3±0.5
            test/anls          448  81.8±0.3
            test/anls          896  84.4
            tune:minival/anls  224  61.6@t15 61.9±0.1 64.3±0.4 65.1±0.4
            tune:minival/anls  448  79.7@t15 80.5±0.1 82.0±0.3 81.8±0.1"""


def get_config(arg=None):
  c, a = common.start(arg, HPARAMS, 48, PG2_LR, resize="bilinear_antialias")
  c.train.data.stvqa = _scenes("train+val" if a.final else "train")
  seen = dict(minitrain="train[:5%]", minival="val")
  common.add_evals(c, _scenes, "vqa_lower", 0.1, 256, **seen)
  common.add_evals(c, _scenes, "", 1.0, 256, test="test")  # a server has its answers
  common.add_perplexity(c, _scenes, 0.05, **seen)
  return common.finish(c, a, SCORES, "stvqa")


def _scenes(split):
  rules = dict(suffix="answers", draw="each", lower=True, fields=(("id", "question_id"),))
  return common.tfds("stvqa", split, prefix="answer en {question}", **rules)
